"""Who is remembered as a subscriber, also when things happen while the disk is being told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import attrs
import trio
import trio.testing
from msgspec import Raw

import iii_trio
from iii_trio.environment import Environment
from iii_trio.triggers.queue import Change, MemoryStore
from iii_trio.wire import RegisterTrigger, encode

T = TypeVar("T")


@attrs.define
class Disk:
    """What blocks waits for it, while it is `busy`."""

    busy: bool = False
    _free: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, function: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        while self.busy:
            await self._free.wait()
        return function()

    def free(self) -> None:
        self.busy = False
        self._free.set()
        self._free = trio.Event()


@attrs.define
class Scene:
    disk: Disk
    store: MemoryStore
    engine: iii_trio.Engine
    app: iii_trio.Worker

    async def topics(self) -> dict[str, int]:
        rows = await self.app.trigger("engine::queue::list_topics")
        return {row["name"]: row["subscriber_count"] for row in rows if row["name"] != "default"}

    def on_disk(self) -> set[tuple[str, str]]:
        return {(one.topic, one.function_id) for one in self.store.load().subscribers}


@asynccontextmanager
async def scene(store: MemoryStore | None = None) -> AsyncIterator[Scene]:
    disk, store = Disk(), store or MemoryStore()
    async with (
        iii_trio.open_engine(stores={"queue": store}, environment=Environment(run_blocking=disk.run)) as engine,
        engine.open_worker("app") as app,
    ):
        yield Scene(disk, store, engine, app)


def bind(
    worker: iii_trio.Worker, function_id: str = "f", topic: str = "news", **queue_config: Any
) -> iii_trio.TriggerBinding:
    return worker.register_trigger(
        "durable:subscriber", function_id, config={"topic": topic, "queue_config": queue_config}
    )


async def test_Q7_one_that_is_lost_while_the_disk_is_told_of_it_is_remembered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with scene() as at:
        async with at.engine.open_worker("lost") as lost:
            at.disk.busy = True
            bind(lost)
            await trio.sleep(1)
            assert await at.topics() == {"news": 1}
        await at.app.trigger("engine::workers::list", {})
        at.disk.free()
        await trio.sleep(1)
        assert await at.topics() == {"news": 0}
        assert at.on_disk() == {("news", "f")}


async def test_Q7_one_that_is_withdrawn_while_the_disk_is_told_of_it_is_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with scene() as at:
        at.disk.busy = True
        binding = bind(at.app)
        await trio.sleep(1)
        binding.unregister()
        await trio.sleep(1)
        assert await at.topics() == {}
        at.disk.free()
        await trio.sleep(1)
        assert (await at.topics(), at.on_disk()) == ({}, set())


async def test_Q7_one_of_two_that_withdraws_while_the_disk_is_told_of_the_other_takes_nothing_from_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """They are of one function, as two replicas are."""
    async with scene() as at:
        first = bind(at.app)
        await trio.sleep(1)
        at.disk.busy = True
        bind(at.app, maxRetries=5)
        await trio.sleep(1)
        first.unregister()
        await trio.sleep(1)
        at.disk.free()
        await trio.sleep(1)
        assert (await at.topics(), at.on_disk()) == ({"news": 1}, {("news", "f")})


async def test_Q7_one_that_is_replaced_by_one_of_another_topic_is_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with scene() as at:
        binding = bind(at.app)
        await trio.sleep(1)
        session = at.app._membership.session
        assert session is not None
        again = RegisterTrigger(binding.id, "durable:subscriber", "f", config=Raw(b'{"topic":"olds"}'))
        session.link.send(encode(again))
        await trio.sleep(1)
        assert (await at.topics(), at.on_disk()) == ({"olds": 1}, {("olds", "f")})


def unwanted(changes: Sequence[Change]) -> None:
    raise AssertionError(f"written: {changes}")


async def test_one_that_comes_back_to_another_engine_and_says_the_same_costs_no_write(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    async with scene(store) as at:
        bind(at.app, maxRetries=5)
        await trio.sleep(1)
    assert len(store.load().subscribers) == 1
    store.write = unwanted  # type: ignore[method-assign]
    async with scene(store) as at:
        assert await at.topics() == {"news": 0}
        bind(at.app, maxRetries=5)
        await trio.sleep(1)
        assert await at.topics() == {"news": 1}
