"""The options of one job: its time, its priority, its unique key, its result; and what a receipt tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import CallError, MisuseError, QueueSettings, enqueue
from iii_trio.environment import Environment
from iii_trio.triggers.queue import Change, MemoryStore, Put, StorageError
from iii_trio.triggers.queue.results import MAX_RESULT_BYTES, Results
from iii_trio.triggers.queue.settings import QueueConfig
from tests.helpers.queue_world import Seen, inline, queueing, rows, settled

Clock = trio.testing.MockClock


# --- Q26: the time of one job


async def test_Q26_a_delay_of_a_job_wins_over_its_queues(autojump_clock: Clock) -> None:
    async with queueing(slow=QueueSettings(delay_seconds=50)) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(n: int) -> None:
            seen.add(n)

        await worker.trigger("f", {"n": 60}, action=enqueue(delay_seconds=60))
        await worker.trigger("f", {"n": 0}, action=enqueue("slow", delay_seconds=0))
        await worker.trigger("f", {"n": 50}, action=enqueue("slow"))
        await trio.sleep(100)
        assert seen == [(0, 0), (50, 50), (60, 60)]


async def test_Q26_a_job_starts_at_its_time_also_after_a_restart(autojump_clock: Clock) -> None:
    store, seen = MemoryStore(), Seen()
    start = datetime(2026, 5, 1, tzinfo=UTC)
    began = trio.current_time()

    def wall_clock() -> float:
        return start.timestamp() + trio.current_time() - began

    environment = Environment(run_blocking=inline, wall_clock=wall_clock)
    config = iii_trio.EngineConfig(modules={"queue": QueueConfig()})
    for n in (1, 2):
        async with (
            iii_trio.open_engine(config, stores={"queue": store}, environment=environment) as engine,
            engine.open_worker("w") as worker,
        ):

            @worker.function("f")
            async def f(what: str) -> None:
                seen.add(what)

            if n == 1:
                await worker.trigger("f", {"what": "later"}, action=enqueue(at=start + timedelta(seconds=90)))
                await worker.trigger("f", {"what": "past"}, action=enqueue(at=start - timedelta(days=1)))
            await trio.sleep(50)
    assert seen.what == ["past", "later"]
    assert round(seen.times[1]) == 90


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"delay_seconds": -1}, "give a number of seconds from 0"),
        ({"delay_seconds": float("nan")}, "give a number of seconds from 0"),
        ({"delay_seconds": 1, "at": datetime.now(UTC)}, "leave out"),
        ({"at": datetime(2026, 5, 1)}, "no time zone"),
        ({"priority": 4}, "give 0, 1, 2 or 3"),
        ({"replace": True}, "give one"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(MisuseError, match=problem):
        enqueue(**options)


@pytest.mark.parametrize(
    "options", [{"delay_seconds": -1}, {"priority": 9}, {"unique_key": ""}, {"delay": 1}, {"at_ms": "x"}, 1]
)
async def test_Q26_options_of_other_workers_are_checked(autojump_clock: Clock, options: object) -> None:
    async with queueing() as engine:
        assert (await raw_enqueue(engine, options))["error"]["code"] == "enqueue_error"
        assert "messageReceiptId" in (await raw_enqueue(engine, {"delay_seconds": 1}))["result"]


async def raw_enqueue(engine: iii_trio.Engine, options: object) -> Any:
    """Enqueue as any worker might, and return the answer."""
    async with trio.open_nursery() as nursery:
        link = await nursery.start(engine.address.connect)
        call = {
            "type": "invokefunction",
            "function_id": "f",
            "invocation_id": "6f1c9a52-6f0e-4d8a-9a53-0c6f0f1c3d77",
            "action": {"type": "enqueue", "queue": "default", "options": options},
        }
        link.send(json.dumps(call).encode())
        while (answer := json.loads(await link.receive() or b""))["type"] != "invocationresult":
            pass
        nursery.cancel_scope.cancel()
    return answer


async def test_Q26_a_queue_that_knows_no_options_is_not_given_any(autojump_clock: Clock) -> None:
    config = iii_trio.EngineConfig(modules={"queue": None})
    async with iii_trio.open_engine(config) as engine:
        async with trio.open_nursery() as nursery:
            link = await nursery.start(engine.address.connect)
            await link.receive()
            link.send(b'{"type":"invokefunction","function_id":"engine::workers::register","data":{"name":"q"}}')
            link.send(b'{"type":"registerfunction","id":"engine::queue::enqueue"}')
            await trio.sleep(1)
            answer = await raw_enqueue(engine, {"delay_seconds": 1})
            assert answer["error"]["code"] == "enqueue_error"
            assert "knows no `options` of jobs: leave them out" in answer["error"]["message"]
            nursery.cancel_scope.cancel()


# --- Q27: unique keys


async def test_Q27_the_first_job_of_a_key_is_the_only_one_until_it_is_over(autojump_clock: Clock) -> None:
    async with queueing(other=QueueSettings()) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(n: int) -> None:
            seen.add(n)
            await trio.sleep(10)

        action = enqueue(unique_key="k")
        receipts = []
        async with trio.open_nursery() as nursery:  # also while the first is on its way to the store

            async def ask(n: int) -> None:
                receipts.append(await worker.trigger("f", {"n": n}, action=action))

            for n in range(5):
                nursery.start_soon(ask, n)
        assert len({receipt.id for receipt in receipts}) == 1
        assert (await rows(worker))["default"]["depth"] == 1
        await worker.trigger("f", {"n": 10}, action=enqueue("other", unique_key="k"))
        await trio.sleep(20)
        again = await worker.trigger("f", {"n": 6}, action=action)
        assert again.id != receipts[0].id
        await trio.sleep(20)
        assert sorted(seen.what)[1:] == [6, 10] and len(seen) == 3


async def test_Q27_a_key_is_taken_for_its_time_and_outlives_the_engine(autojump_clock: Clock) -> None:
    store = MemoryStore()
    async with queueing(store) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(n: int) -> None:
            seen.add(n)

        action = enqueue(unique_key="k", unique_seconds=60)
        first = await worker.trigger("f", {"n": 1}, action=action)
        await trio.sleep(30)
        assert (await worker.trigger("f", {"n": 2}, action=action)) == first
        await trio.sleep(31)
        await worker.trigger("f", {"n": 3}, action=action)
        await settled()
        assert seen.what == [1, 3]
        waiting = await worker.trigger("nobody", {}, action=enqueue(unique_key="w"))
    async with queueing(store) as engine, engine.open_worker("w") as worker:
        assert (await worker.trigger("nobody", {}, action=enqueue(unique_key="w"))) == waiting


class FullStore(MemoryStore):  # type: ignore[misc]  # final, for those who use it
    full = False

    def write(self, changes: Sequence[Change]) -> None:
        if self.full and any(isinstance(change, Put) for change in changes):
            raise StorageError("no room")
        super().write(changes)


@pytest.mark.parametrize("state", ["delayed", "waiting", "running", "storing"])
async def test_Q27_the_last_job_of_a_key_replaces_one_that_waits(autojump_clock: Clock, state: str) -> None:
    store = FullStore()
    async with queueing(store, default=QueueSettings(concurrency=1)) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(n: int) -> None:
            seen.add(n)
            await trio.sleep(10)

        if state == "waiting":
            await worker.trigger("f", {"n": 0}, action=enqueue())
        delay = 30 if state in ("delayed", "storing") else None
        action = enqueue(unique_key="k", replace=True, delay_seconds=delay)
        if state == "storing":
            async with trio.open_nursery() as nursery:
                for n in (1, 2):
                    nursery.start_soon(lambda n=n: worker.trigger("f", {"n": n}, action=action))
                    await trio.lowlevel.checkpoint()
        else:
            first = await worker.trigger("f", {"n": 1}, action=action)
            await settled()
            store.full = True
            with pytest.raises(CallError, match="no room"):  # then the first one stays as it was
                await worker.trigger("f", {"n": 3}, action=action)
            store.full = False
            assert (await worker.trigger("engine::queue::job", {"id": first.id}))["state"] == state
            assert (await worker.trigger("f", {"n": 2}, action=action)) != first
        await trio.sleep(200)
        expected = {"delayed": [2], "waiting": [0, 2], "running": [1, 2]}.get(state)
        assert seen.what == expected if expected else len(seen) == 1
        assert list(store.load().jobs) == []


# --- Q28: priority


async def test_Q28_a_higher_priority_starts_first_and_none_starves(autojump_clock: Clock) -> None:
    async with queueing(default=QueueSettings(concurrency=1)) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(what: str) -> None:
            seen.add(what)
            await trio.sleep(1)

        await worker.trigger("f", {"what": "first"}, action=enqueue())
        for priority in (0, 1, 3, 2):
            for n in range(3):
                await worker.trigger("f", {"what": f"{priority}{n}"}, action=enqueue(priority=priority))
        await trio.sleep(100)
        assert seen.what == ["first", "30", "31", "32", "00", "20", "21", "22", "01", "10", "11", "12", "02"]


async def test_Q28_a_fifo_queue_refuses_priorities(autojump_clock: Clock) -> None:
    async with queueing(line=QueueSettings(fifo=True, group_by="g")) as engine, engine.open_worker("w") as worker:
        with pytest.raises(CallError, match="keeps the order of its jobs; leave `priority` out"):
            await worker.trigger("f", {"g": 1}, action=enqueue("line", priority=2))


# --- Q29: receipts


async def test_Q29_a_receipt_waits_for_the_end_and_its_result(autojump_clock: Clock) -> None:
    once = QueueSettings(max_attempts=1)
    async with queueing(default=once) as engine, engine.open_worker("w") as worker:

        @worker.function("double")
        async def double(n: int) -> int:
            await trio.sleep(5)
            if n == 0:
                raise CallError("zero", "nothing to double")
            return 2 * n

        kept = await worker.trigger("double", {"n": 4}, action=enqueue(keep_result_seconds=60))
        assert (await kept.status())["state"] == "running"
        assert await kept.wait() == 8
        assert await kept.wait() == 8, "as often as one likes"
        await trio.sleep(61)
        assert await kept.wait() is None, "its age is over"
        plain = await worker.trigger("double", {"n": 4}, action=enqueue())
        assert await plain.wait() is None
        failing = await worker.trigger("double", {"n": 0}, action=enqueue())
        with pytest.raises(CallError, match="nothing to double") as caught:
            await failing.wait()
        assert caught.value.code == "zero"
        removed = await worker.trigger("double", {"n": 1}, action=enqueue(delay_seconds=1000))
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(CallError, match="was cancelled or purged"):
                    await removed.wait()

            nursery.start_soon(wait)
            await trio.sleep(1)
            await worker.trigger("engine::queue::purge", {"queue": "default"})
        with pytest.raises(MisuseError, match="not made by a worker"):
            await iii_trio.Receipt("x").wait()


async def test_Q29_waiting_for_a_job_does_not_hold_up_a_drain(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        receipt = await worker.trigger("nobody", {}, action=enqueue())
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(CallError):
                    await receipt.wait()

            nursery.start_soon(wait)
            await settled()
            before = trio.current_time()
            await engine.drain(1000)
            assert trio.current_time() - before < 500
            nursery.cancel_scope.cancel()


def test_Q29_results_are_bounded_in_size_number_and_age() -> None:
    results = Results()
    results.keep("large", b"x" * (MAX_RESULT_BYTES + 1), 10)
    assert results.get("large", 0) is None
    for n in range(1000):
        results.keep(f"{n}", b"x" * MAX_RESULT_BYTES, 10)
    assert results.get("0", 0) is None and results.get("999", 0) is not None
    assert sum(results.get(f"{n}", 0) is not None for n in range(1000)) == 16 * 2**20 // (MAX_RESULT_BYTES + 256)
    assert results.get("999", 10) is None


# --- Q30: a redrive to another function


async def test_Q30_dead_letters_are_given_to_another_function_up_to_a_number(autojump_clock: Clock) -> None:
    store = MemoryStore()
    once = QueueSettings(max_attempts=1)
    async with queueing(store, default=once) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("broken")
        async def broken(n: int) -> None:
            raise CallError("broken", "it is")

        for n in range(3):
            await worker.trigger("broken", {"n": n}, action=enqueue())
        await trio.sleep(1)
        request = {"queue": "default", "count": 2, "to_function_id": "mended"}
        answer = await worker.trigger("iii::queue::redrive", request)
        assert answer == {"queue": "default", "redriven": 2, "left": 1}
    async with queueing(store, default=once) as engine, engine.open_worker("w") as worker:

        @worker.function("mended")
        async def mended(n: int) -> None:
            seen.add(n)

        await trio.sleep(10)
        assert seen.what == [0, 1]
        assert (await rows(worker))["default"]["dead"] == 1
