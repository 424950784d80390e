"""An engine with a queue, in memory, under a virtual clock; and what happens in it, with its times."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

import trio
import trio.testing

import iii_trio
from iii_trio import EngineConfig, QueueConfig, QueueSettings
from iii_trio.environment import Environment
from iii_trio.triggers.queue import MemoryStore, Store

T = TypeVar("T")


async def inline(function: Callable[[], T]) -> T:
    """Runs at once what would run in a thread: threads have no virtual time."""
    await trio.lowlevel.checkpoint()
    return function()


class NoJitter(Random):
    """Pauses are as long as they say."""

    def random(self) -> float:
        return 0.0


@asynccontextmanager
async def queueing(
    store: Store | None = None,
    *,
    jobs: int = 1_000_000,
    run_blocking: Callable[[Callable[[], Any]], Awaitable[Any]] = inline,
    **queues: QueueSettings,
) -> AsyncIterator[iii_trio.Engine]:
    """An engine whose jobs are in `store`: another one with the same store is the same engine, started anew."""
    config = EngineConfig(modules={"queue": QueueConfig(queues=queues, jobs=jobs)})
    async with iii_trio.open_engine(
        config,
        stores={"queue": store or MemoryStore()},
        environment=Environment(run_blocking=run_blocking, rng=NoJitter()),
    ) as engine:
        yield engine


class Seen(list[tuple[float, Any]]):
    """What was seen, each with its virtual time since the first look."""

    def __init__(self) -> None:
        super().__init__()
        self._began = trio.current_time()

    def add(self, what: Any) -> None:
        self.append((round(trio.current_time() - self._began, 3), what))

    @property
    def what(self) -> list[Any]:
        return [what for _, what in self]

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self]


async def rows(worker: iii_trio.Worker) -> dict[str, dict[str, Any]]:
    """The rows of `engine::queue::list`, by their names."""
    return {row["name"]: row for row in (await worker.trigger("engine::queue::list", {}))["queues"]}


async def dead(worker: iii_trio.Worker, name: str) -> list[dict[str, Any]]:
    """The dead letters of a queue or topic, the newest first."""
    letters: list[dict[str, Any]] = await worker.trigger("engine::queue::dlq_messages", {"queue": name})
    return letters


async def settled() -> None:
    """Nobody has anything to do but wait for time."""
    await trio.testing.wait_all_tasks_blocked()


async def be_lost(engine: iii_trio.Engine, *function_ids: str, jobs: int = 1) -> list[dict[str, Any]]:
    """Serve these functions, take some jobs, and be lost without a goodbye. Return the messages of the jobs."""
    given: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:
        link = await nursery.start(engine.address.connect)
        await link.receive()
        link.send(b'{"type":"invokefunction","function_id":"engine::workers::register","data":{"name":"victim"}}')
        for function_id in function_ids:
            link.send(json.dumps({"type": "registerfunction", "id": function_id}).encode())
        while len(given) < jobs:
            message = json.loads(await link.receive() or b"")
            if message["type"] == "invokefunction":
                given.append(message)
        nursery.cancel_scope.cancel()
    return given
