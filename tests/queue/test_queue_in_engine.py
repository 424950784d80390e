"""The queue as a part of an engine: its drain and its end, its limits, and the order in which work comes in."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import CallError, EngineConfig, QueueConfig, QueueSettings, enqueue
from iii_trio.config import Limits, Listener
from iii_trio.environment import Environment
from iii_trio.transport.link import Link
from iii_trio.triggers.queue import MemoryStore
from tests.helpers.queue_world import Seen, inline, queueing, rows, settled

Clock = trio.testing.MockClock
STRICT = QueueSettings(max_attempts=1, max_lost_deliveries=1, concurrency=3)
"""A single failure, or a single worker that is counted as lost, makes a dead letter."""


# --- order


async def _send_without_waiting(link: Link, numbers: range) -> None:
    """As many SDKs' callers do: each call is sent before the one before it is answered."""
    for n in numbers:
        call = {
            "type": "invokefunction",
            "invocation_id": str(uuid.uuid4()),
            "function_id": "app::take",
            "data": {"n": n},
            "action": {"type": "enqueue", "queue": "line"},
        }
        link.send(json.dumps(call).encode())
    answers = 0
    while answers < len(numbers):
        text = await link.receive()
        assert text is not None
        answers += json.loads(text)["type"] == "invocationresult"


@pytest.mark.parametrize("over", ["memory", "a socket"])
async def test_Q5_calls_that_are_sent_without_waiting_are_queued_in_their_order(over: str) -> None:
    """Whatever order Trio gives to the tasks that answer them."""
    line = QueueSettings(concurrency=1)
    config = EngineConfig(modules={"queue": QueueConfig(queues={"line": line})}, listeners=(Listener(port=0),))
    async with iii_trio.open_engine(config) as engine, engine.open_worker("app") as app:
        taken: list[int] = []
        all_there = trio.Event()

        @app.function("app::take")
        async def take(n: int) -> None:
            taken.append(n)
            if len(taken) == 500:
                all_there.set()

        await app.wait_registered()
        if over == "memory":
            address: Any = engine.address
        else:
            [url] = await engine.listen()
            address = iii_trio.embed.SocketAddress(url)
        async with trio.open_nursery() as nursery:
            link: Link = await nursery.start(address.connect)
            await link.receive()
            with trio.fail_after(60):
                await _send_without_waiting(link, range(500))
                await all_there.wait()
            nursery.cancel_scope.cancel()
        assert taken == list(range(500))


# --- the end


async def test_a_drain_waits_no_longer_than_what_runs_may(autojump_clock: Clock) -> None:
    bounded = QueueSettings(max_attempts=2, visibility_timeout_seconds=10)
    async with queueing(mail=bounded) as engine, engine.open_worker("app") as app:

        @app.function("app::send")
        async def send() -> None:
            await trio.sleep_forever()

        await app.trigger("app::send", {}, action=enqueue("mail"))
        await settled()
        began = trio.current_time()
        assert await engine.drain(1000) is True
        assert trio.current_time() - began == pytest.approx(10)


async def test_Q2_a_drain_gives_back_what_does_not_finish_in_time_and_it_costs_nothing(autojump_clock: Clock) -> None:
    store = MemoryStore()
    async with queueing(store, mail=STRICT) as engine, engine.open_worker("app") as app:
        began, ended = Seen(), Seen()

        @app.function("app::send")
        async def send(n: int) -> None:
            began.add(n)
            try:
                await trio.sleep(4 if n == 1 else 1000)
            except trio.Cancelled:
                ended.add(f"{n} cancelled")
                raise
            ended.add(f"{n} done")

        for n in (1, 2, 3, 4):
            await app.trigger("app::send", {"n": n}, action=enqueue("mail"))
        await settled()
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                assert await engine.drain(10) is False

            nursery.start_soon(drain)
            await trio.sleep(1)
            with pytest.raises(CallError, match="engine_draining"):
                await app.trigger("app::send", {"n": 5}, action=enqueue("mail"))
            with pytest.raises(CallError, match="engine_draining"):
                await app.trigger("iii::durable::publish", {"topic": "news", "data": 5})
        assert sorted(began.what) == [1, 2, 3]  # the fourth is not begun when the first has made room
        await settled()
        assert ended[0] == (4.0, "1 done")
        assert sorted(ended[1:]) == [(10.0, "2 cancelled"), (10.0, "3 cancelled")]
    assert sorted(json.loads(job.data or b"")["n"] for job in store.load().jobs) == [2, 3, 4]
    assert {(job.progress.attempts, job.progress.lost, job.progress.died_at_ms) for job in store.load().jobs} == {
        (0, 0, None)
    }
    async with queueing(store, mail=STRICT) as engine, engine.open_worker("app") as app:
        again = Seen()

        @app.function("app::send")
        async def send_again(n: int, metadata: Any) -> None:
            again.add((n, metadata["job"]["attempt"]))

        await trio.sleep(10)
        assert sorted(again.what) == [(2, 1), (3, 1), (4, 1)]
    assert list(store.load().jobs) == []


async def test_Q2_an_engine_that_closes_gives_back_what_runs_and_what_rests_and_it_costs_nothing(
    autojump_clock: Clock,
) -> None:
    store = MemoryStore()
    settings = QueueSettings(max_attempts=2, max_lost_deliveries=1, backoff_seconds=100)
    ended: list[str] = []

    async def work(engine: iii_trio.Engine, *, task_status: trio.TaskStatus[iii_trio.Worker]) -> None:
        async with engine.open_worker("app") as app:

            @app.function("app::send")
            async def send(n: int) -> None:
                if n == 1:
                    raise ValueError("not this time")
                try:
                    await trio.sleep_forever()
                finally:
                    ended.append("cancelled")

            task_status.started(app)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with queueing(store, mail=settings) as engine:
            worker = await nursery.start(work, engine)
            for n in (1, 2):
                await worker.trigger("app::send", {"n": n}, action=enqueue("mail"))
            await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert ended == ["cancelled"]
    kept = {json.loads(job.data or b"")["n"]: (job.progress.attempts, job.progress.lost) for job in store.load().jobs}
    assert kept == {1: (1, 0), 2: (0, 0)}
    async with queueing(store, mail=settings) as engine, engine.open_worker("app") as app:
        again = Seen()

        @app.function("app::send")
        async def send_again(n: int, metadata: Any) -> None:
            again.add((n, metadata["job"]["attempt"]))

        await trio.sleep(200)
        assert again.what == [(2, 1), (1, 2)]
        assert again.times[0] < 1
        assert 80 < again.times[1] <= 100  # the rest of its pause


async def test_Q2_a_worker_that_is_cut_off_by_the_engines_end_is_not_counted_as_lost(autojump_clock: Clock) -> None:
    """Also if it is the one that goes first: who runs both in one program leaves the worker's block before the engine's."""
    store = MemoryStore()
    async with queueing(store, mail=STRICT) as engine:
        async with engine.open_worker("app") as app:

            @app.function("app::send")
            async def send(n: int) -> None:
                await trio.sleep_forever()

            await app.trigger("app::send", {"n": 1}, action=enqueue("mail"))
            await trio.sleep(1)
            await engine.drain(0)
    [job] = store.load().jobs
    assert (job.progress.attempts, job.progress.lost, job.progress.died_at_ms) == (0, 0, None)


# --- limits


async def test_the_queues_own_calls_are_bounded_by_the_queue_and_not_by_a_workers_limit(autojump_clock: Clock) -> None:
    config = EngineConfig(modules={"queue": QueueConfig()}, limits=Limits(calls_per_session=4))
    async with (
        iii_trio.open_engine(config, environment=Environment(run_blocking=inline)) as engine,
        engine.open_worker("one") as one,
        engine.open_worker("two") as two,
        engine.open_worker("three") as three,
    ):
        running: list[str] = []
        for name, worker in {"one": one, "two": two, "three": three}.items():

            async def work(name: str = name) -> None:
                running.append(name)
                await trio.sleep(10)

            worker.register_function(f"{name}::work", work)
        for name in ("one", "two", "three") * 3:
            await one.trigger(f"{name}::work", {}, action=enqueue())
        await trio.sleep(1)
        assert sorted(running) == sorted(["one", "two", "three"] * 3)
        assert (await rows(one))["default"]["running"] == 9
        await trio.sleep(10)
        assert len(running) == 9  # none was given up for another, and none was run again
        assert (await rows(one))["default"]["depth"] == 0
