"""Workers that leave and workers that are lost: what it costs their jobs (Q15, Q16)."""

from __future__ import annotations

import json
from typing import Any

import trio
import trio.testing

from iii_trio import Engine, QueueSettings, enqueue
from tests.helpers.queue_world import be_lost, dead, queueing, rows, settled

Clock = trio.testing.MockClock


async def test_Q15_a_worker_that_leaves_in_the_middle_of_a_job_costs_it_nothing(autojump_clock: Clock) -> None:
    strict = QueueSettings(max_attempts=1, max_lost_deliveries=1)
    async with queueing(mail=strict) as engine, engine.open_worker("w") as worker:
        attempts: list[int] = []
        await worker.trigger("f", {}, action=enqueue("mail"))
        for _ in range(5):
            async with engine.open_worker("leaver") as leaver:

                @leaver.function("f")
                async def f(metadata: dict[str, Any]) -> None:
                    attempts.append(metadata["job"]["attempt"])
                    await trio.sleep_forever()

                before = len(attempts)
                await trio.sleep(1)
                assert len(attempts) == before + 1
        await settled()
        assert attempts == [1] * 5
        assert not await dead(worker, "mail") and (await rows(worker))["mail"]["depth"] == 1


async def test_Q16_a_job_that_kills_its_workers_takes_no_innocent_one_along(autojump_clock: Clock) -> None:
    """Ten jobs of two queues run together on a worker that dies of one of them, time after time."""
    async with queueing(mail=QueueSettings(), post=QueueSettings()) as engine, engine.open_worker("w") as worker:
        done: list[int] = []
        for n in range(10):
            await worker.trigger(f"f{n % 2}", {"n": n}, action=enqueue("mail" if n < 5 else "post"))
        for _ in range(20):  # each time the worker dies as soon as it has the seventh job
            if await be_lost_by(engine, culprit=7, done=done):
                break
        await trio.sleep(1)
        assert sorted(done) == [n for n in range(10) if n != 7]
        [letter] = [*await dead(worker, "mail"), *await dead(worker, "post")]
        assert (letter["payload"], letter["code"], letter["lost"]) == ({"n": 7}, "worker_lost", 3)


async def be_lost_by(engine: Engine, culprit: int, done: list[int]) -> bool:
    """Serve the jobs until the culprit comes, a while after it began. Return whether it did not come."""
    with trio.move_on_after(10_000) as waiting:
        async with trio.open_nursery() as nursery:
            link = await nursery.start(engine.address.connect)
            await link.receive()
            link.send(b'{"type":"invokefunction","function_id":"engine::workers::register","data":{"name":"victim"}}')
            for function_id in ("f0", "f1"):
                link.send(json.dumps({"type": "registerfunction", "id": function_id}).encode())

            async def work(message: dict[str, Any]) -> None:
                n = message["data"]["n"]
                if n == culprit:
                    await trio.sleep(0.3)
                    nursery.cancel_scope.cancel()
                await trio.sleep(2)
                done.append(n)
                answer = {k: message[k] for k in ("invocation_id", "function_id")}
                link.send(json.dumps({"type": "invocationresult", "result": None, **answer}).encode())

            while True:
                message = json.loads(await link.receive() or b"")
                if message["type"] == "invokefunction":
                    nursery.start_soon(work, message)
    return waiting.cancelled_caught


async def test_Q16_a_suspect_that_is_innocent_is_done_alone_and_others_go_on(autojump_clock: Clock) -> None:
    async with queueing(mail=QueueSettings(backoff_seconds=1)) as engine, engine.open_worker("w") as worker:
        await worker.trigger("f", {"n": 0}, action=enqueue("mail"))
        for _ in range(2):
            await be_lost(engine, "f")
        running: set[int] = set()
        together: dict[int, set[int]] = {}

        @worker.function("f")
        async def f(n: int) -> None:
            running.add(n)
            for one in running:
                together.setdefault(one, set()).update(running)
            await trio.sleep(5)
            running.remove(n)

        for n in (1, 2, 3):
            await worker.trigger("f", {"n": n}, action=enqueue("mail"))
        await trio.sleep(100)
        assert together[0] == {0} and together[1] >= {1, 2, 3}
        assert not await dead(worker, "mail") and (await rows(worker))["mail"]["depth"] == 0
