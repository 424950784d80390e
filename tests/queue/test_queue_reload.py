"""Queues that come, change and go while the engine runs (promise Q12)."""

from __future__ import annotations

import logging

import attrs
import pytest
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio import EngineConfig, QueueConfig, QueueSettings


def config(**queues: QueueSettings) -> EngineConfig:
    return EngineConfig(listeners=(), modules={"queue": QueueConfig(queues=queues)})


async def test_Q12_a_queue_that_comes_takes_jobs_and_what_is_in_one_that_goes_is_still_done(
    autojump_clock: MockClock,
) -> None:
    before = config(old=QueueSettings(max_attempts=2, backoff_seconds=30.0))
    async with iii_trio.open_engine(before) as engine, engine.open_worker("w") as worker:
        calls: list[tuple[str, int]] = []
        done = trio.Event()

        @worker.function("f")
        async def f(queue: str, metadata: dict[str, dict[str, int]]) -> None:
            calls.append((queue, metadata["job"]["attempt"]))
            if calls == [("old", 1)]:
                raise ValueError("not yet")
            if len(calls) == 3:
                done.set()

        await worker.trigger("f", {"queue": "old"}, action=iii_trio.enqueue("old"))
        await trio.sleep(1)
        await engine.reload(config(new=QueueSettings(concurrency=1)))
        await worker.trigger("f", {"queue": "new"}, action=iii_trio.enqueue("new"))
        with pytest.raises(iii_trio.CallError, match="Queue 'old' not found"):
            await worker.trigger("f", {"queue": "old"}, action=iii_trio.enqueue("old"))
        assert [row["name"] for row in await rows(worker)] == ["default", "new", "old"]
        await trio.sleep(20)
        assert calls == [("old", 1), ("new", 1)], "the pause is that of its old settings"
        await trio.sleep(20)
        assert calls == [("old", 1), ("new", 1), ("old", 2)]
        await trio.testing.wait_all_tasks_blocked()
        assert [row["name"] for row in await rows(worker)] == ["default", "new"], "nothing is left of it"


async def test_Q12_a_queue_that_changes_holds_to_its_new_settings_at_once(autojump_clock: MockClock) -> None:
    async with (
        iii_trio.open_engine(config(q=QueueSettings(concurrency=1))) as engine,
        engine.open_worker("w") as worker,
    ):
        running = 0
        most = 0

        @worker.function("f")
        async def f() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await trio.sleep(10)
            running -= 1

        for _ in range(6):
            await worker.trigger("f", {}, action=iii_trio.enqueue("q"))
        await trio.sleep(15)
        assert most == 1
        await engine.reload(config(q=QueueSettings(concurrency=3)))
        await trio.sleep(1)
        assert running == 3
        await trio.sleep(30)
        assert (most, running) == (3, 0)


async def test_Q12_where_jobs_are_kept_and_whether_at_all_waits_for_a_restart_and_the_log_says_so(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "iii_trio.queue")
    async with iii_trio.open_engine(config()) as engine:
        for changed, sentence in (
            (
                QueueConfig(directory="/nowhere"),
                "the queue's directory stays memory until the engine is started again, and is /nowhere then",
            ),
            (
                QueueConfig(synchronous="off"),
                "the queue's synchronous stays full until the engine is started again, and is off then",
            ),
            (None, "the queue stays on until the engine is started again"),
        ):
            caplog.clear()
            await engine.reload(attrs.evolve(config(), modules={"queue": changed}))
            assert caplog.messages == [sentence]
            assert engine.modules["queue"].place == "memory"
    async with iii_trio.open_engine(attrs.evolve(config(), modules={"queue": None})) as engine:
        caplog.clear()
        await engine.reload(config())
        assert caplog.messages == ["the queue stays off until the engine is started again"]


async def rows(worker: iii_trio.Worker) -> list[dict[str, object]]:
    """What is told of each queue."""
    return list((await worker.trigger("engine::queue::list", {}))["queues"])
