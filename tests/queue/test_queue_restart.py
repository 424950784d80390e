"""The queue fails, by a fault of its own, and the engine starts it again (Q35)."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock as Clock

import iii_trio
from iii_trio import EngineConfig, QueueConfig, Queues, QueueSettings, enqueue
from iii_trio.environment import Environment
from iii_trio.triggers.queue.ledger import Ledger
from tests.helpers.queue_world import NoJitter, inline


class Fault(Exception):
    """A mistake in the queue."""


@pytest.mark.parametrize("on_disk", [False, True])
async def test_Q35_jobs_outlive_a_failure_of_the_queue(
    on_disk: bool,
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = QueueConfig(
        queues={"mail": QueueSettings(backoff_seconds=500)},
        directory=str(tmp_path) if on_disk else None,
        synchronous="off",
    )
    config = EngineConfig(modules={"queue": queue})
    begun: list[int] = []
    environment = Environment(run_blocking=inline, rng=NoJitter())
    async with iii_trio.open_engine(config, environment=environment) as engine, engine.open_worker("w") as worker:

        @worker.function("app::work")
        async def work(n: int) -> None:
            begun.append(n)
            if n == 1 and begun.count(1) == 1:
                raise ValueError("once")
            if n == 2:
                await trio.sleep(5)

        @worker.subscribe("news", function_id="app::news")
        async def news(n: int) -> None:
            begun.append(n)

        await worker.wait_registered()
        await worker.trigger("app::work", {"n": 1}, action=enqueue("mail"))
        await trio.sleep(1)
        await worker.trigger("app::work", {"n": 2}, action=enqueue("mail"))
        await trio.sleep(1)
        await Queues(worker).pause("mail")
        await worker.trigger("app::work", {"n": 3}, action=enqueue("mail"))
        assert begun == [1, 2]

        real = Ledger.tick

        def fail(self: Ledger, timestamp: object) -> object:
            raise Fault

        monkeypatch.setattr(Ledger, "tick", fail)
        await worker.trigger("app::work", {"n": 0}, action=enqueue("default", delay_seconds=1))
        await trio.sleep(1.5)
        monkeypatch.setattr(Ledger, "tick", real)
        await trio.sleep(30)
        assert "module `queue` failed" in caplog.text
        assert begun == [1, 2, 0], "what ran is run again, once its queue is resumed"
        states = [(row["state"], row["failed"]) for row in (await Queues(worker).jobs("mail"))[0]]
        assert states == [("delayed", 1), ("waiting", 0), ("waiting", 0)]
        await Queues(worker).resume("mail")
        await worker.trigger("iii::durable::publish", {"topic": "news", "data": {"n": 9}})
        await trio.sleep(600)
        assert sorted(begun[3:]) == [1, 2, 3, 9]
