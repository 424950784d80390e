"""What is asked of the queue, and the queue itself, cancelled at every step in both ways: nothing hangs, nothing is lost."""

from __future__ import annotations

import logging
from random import Random

import attrs
import pytest
import trio

import iii_trio
from iii_trio import EngineConfig, QueueConfig, QueueSettings, enqueue
from iii_trio.environment import Environment
from iii_trio.testing import cancel_everywhere
from iii_trio.testing.cancelling import Run, Seen
from iii_trio.triggers.queue import MemoryStore, open_queue
from tests.helpers.queue_world import inline

FIFO = QueueConfig(queues={"fifo": QueueSettings(fifo=True, group_by="g")})


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


async def around(seen: Seen, run: Run) -> None:
    """An engine with a queue and a worker that does its jobs; in the end nothing may be left to do."""
    store = MemoryStore()
    seen["done"] = []
    async with (
        iii_trio.open_engine(
            EngineConfig(modules={"queue": FIFO}),
            stores={"queue": store},
            environment=simulated(),
        ) as engine,
        engine.open_worker("worker", environment=Environment(rng=Random(1))) as worker,
        engine.open_worker("app", environment=Environment(rng=Random(2))) as app,
    ):

        @worker.subscribe("news", "do")
        async def do(n: int) -> None:
            seen["done"].append(n)

        await worker.wait_registered()
        await trio.sleep(1)
        seen["app"] = app
        await run()
        await trio.sleep(600)
        seen["left"] = list(store.load().jobs)
        statistics = attrs.asdict(engine.statistics())
        seen["calls"] = statistics["calls"]


def simulated() -> Environment:
    return Environment(run_blocking=inline, rng=Random(1))


def check(seen: Seen) -> None:
    assert not seen["left"] and not seen["calls"]
    assert set(seen.get("acknowledged", ())) <= set(seen["done"])
    assert len(seen["done"]) == len(set(seen["done"])), "nobody was lost, so nothing is done twice"


def test_enqueuing() -> None:
    async def subject(seen: Seen) -> None:
        for n in range(2):
            await seen["app"].trigger("do", {"g": 1, "n": n}, action=enqueue("fifo"))
            seen.setdefault("acknowledged", []).append(n)

    cancel_everywhere(subject, check, around=around, others=True)


def test_publishing() -> None:
    async def subject(seen: Seen) -> None:
        await seen["app"].trigger("iii::durable::publish", {"topic": "news", "data": {"n": 7}})
        seen["acknowledged"] = [7]

    cancel_everywhere(subject, check, around=around, others=True)


def test_the_queue_itself() -> None:
    """Whenever it ends, what was kept is done by the next one."""

    async def with_a_queue_of_its_own(seen: Seen, run: Run) -> None:
        store = seen["store"] = MemoryStore()
        seen["done"] = []
        async with iii_trio.open_engine(EngineConfig(modules={"queue": None})) as engine:
            seen["engine"] = engine
            async with engine.open_worker("worker", environment=Environment(rng=Random(1))) as worker:

                @worker.function("do")
                async def do(n: int) -> None:
                    await trio.sleep(1)
                    seen["done"].append(n)

                seen["app"] = worker
                await run()
                async with open_queue(engine.address, FIFO, store=store, environment=simulated()):
                    await trio.sleep(600)
                seen["left"] = list(store.load().jobs)

    async def subject(seen: Seen) -> None:
        queue = open_queue(
            seen["engine"].address,
            FIFO,
            store=seen["store"],
            environment=simulated(),
        )
        async with queue:
            for n in range(2):
                await seen["app"].trigger("do", {"g": 1, "n": n}, action=enqueue("fifo"))
                seen.setdefault("acknowledged", []).append(n)
            await trio.sleep(5)

    def nothing_is_lost(seen: Seen) -> None:
        assert not seen["left"]
        assert set(seen.get("acknowledged", ())) <= set(seen["done"])

    cancel_everywhere(subject, nothing_is_lost, around=with_a_queue_of_its_own)
