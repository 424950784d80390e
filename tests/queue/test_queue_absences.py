"""Subscribers that do not come back: a bound and an age for each (Q34)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock as Clock

import iii_trio
from iii_trio import CallError, EngineConfig, QueueConfig
from iii_trio.environment import Environment
from iii_trio.triggers.queue import MemoryStore, Remember
from tests.helpers.queue_world import inline, rows

DAY = 86_400.0


@asynccontextmanager
async def engine_with(
    store: MemoryStore | None = None, wall: float = 1_700_000_000.0, **bounds: float | int | None
) -> AsyncIterator[iii_trio.Engine]:
    """An engine with these bounds, whose calendar begins at `wall` and goes with the virtual clock."""
    began = trio.current_time()
    environment = Environment(run_blocking=inline, wall_clock=lambda: wall + trio.current_time() - began)
    config = EngineConfig(modules={"queue": QueueConfig(**bounds)})  # type: ignore[arg-type]
    stores = {"queue": store or MemoryStore()}
    async with iii_trio.open_engine(config, stores=stores, environment=environment) as engine:
        yield engine


async def come_and_go(engine: iii_trio.Engine, function_id: str = "shop::on_order", seconds: float = 0) -> list[int]:
    """Subscribe to `orders`, take what there is for a while, and leave without unsubscribing."""
    seen: list[int] = []
    async with engine.open_worker("shop") as worker:

        @worker.subscribe("orders", function_id=function_id)
        async def on_order(n: int) -> None:
            seen.append(n)

        await worker.wait_registered()
        await trio.sleep(seconds)
    return seen


async def publish(worker: iii_trio.Worker, *numbers: int) -> None:
    for n in numbers:
        await worker.trigger("iii::durable::publish", {"topic": "orders", "data": {"n": n}})


def warnings(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if word in record.getMessage()]


async def test_Q34_a_subscription_ends_when_its_subscriber_is_away_for_too_long(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "iii_trio")
    store = MemoryStore()
    async with engine_with(store, max_away_seconds=2 * DAY) as engine, engine.open_worker("w") as worker:
        await come_and_go(engine)
        await publish(worker, 1, 2, 3)
        await trio.sleep(2 * DAY - 10)
        assert (await rows(worker))["orders"]["depth"] == 3
        await trio.sleep(20)
        assert "orders" not in await rows(worker)
        [line] = warnings(caplog, "max_away_seconds")
        assert line.startswith("the subscription of shop::on_order to orders has ended, because it was away for 2 days")
        assert "3 messages" in line
        assert await come_and_go(engine, seconds=5) == []
    assert store.load().jobs == []


async def test_Q34_a_subscriber_that_comes_back_in_time_is_never_forgotten(autojump_clock: Clock) -> None:
    async with engine_with(max_away_seconds=DAY) as engine, engine.open_worker("w") as worker:
        await come_and_go(engine)
        await trio.sleep(DAY - 10)
        await publish(worker, 1)
        assert await come_and_go(engine, seconds=3 * DAY) == [1], "it is here for longer than it may be away"
        await publish(worker, 2)
        await trio.sleep(DAY - 10)
        assert await come_and_go(engine, seconds=5) == [2]


async def test_Q34_an_absence_goes_on_over_a_restart_with_an_hour_to_come_back(autojump_clock: Clock) -> None:
    store = MemoryStore()
    async with engine_with(store, max_away_seconds=10 * DAY) as engine, engine.open_worker("w") as worker:
        await come_and_go(engine)
        await publish(worker, 1)
        await trio.sleep(4 * DAY)
    # The engine is away for so long that the absence is over, and then for a moment only.
    for days_later, seconds_left in ((20, 3600.0), (5, 5 * DAY)):
        async with engine_with(store, 1_700_000_000.0 + days_later * DAY, max_away_seconds=10 * DAY) as engine:
            async with engine.open_worker("w") as worker:
                await trio.sleep(seconds_left - 10)
                assert (await rows(worker))["orders"]["depth"] == 1
                if days_later == 5:
                    await trio.sleep(20)
                    assert "orders" not in await rows(worker)


async def test_Q34_a_clock_that_jumps_ends_no_absence_early_and_lengthens_none(autojump_clock: Clock) -> None:
    store = MemoryStore()
    store.write([Remember("orders", "default", "shop::on_order", b'{"topic":"orders"}', 1_700_000_000_000)])
    async with engine_with(store, 1_600_000_000.0, max_away_seconds=DAY) as engine, engine.open_worker("w") as worker:
        await trio.sleep(DAY - 10)
        assert "orders" in await rows(worker)
        await trio.sleep(20)
        assert "orders" not in await rows(worker)


async def test_Q34_the_bound_can_be_taken_away_and_set_while_the_engine_runs(autojump_clock: Clock) -> None:
    async with engine_with(max_away_seconds=None) as engine, engine.open_worker("w") as worker:
        await come_and_go(engine)
        await trio.sleep(4 * DAY)
        assert "orders" in await rows(worker)
        await engine.reload(EngineConfig(listeners=(), modules={"queue": QueueConfig(max_away_seconds=5 * DAY)}))
        await trio.sleep(DAY / 2)
        assert "orders" in await rows(worker)
        await trio.sleep(DAY)
        assert "orders" not in await rows(worker)


async def test_Q34_the_oldest_messages_give_way_where_an_absent_subscriber_has_a_bound(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "iii_trio")
    async with engine_with(max_away_jobs=3) as engine, engine.open_worker("w") as worker:
        await come_and_go(engine)
        await publish(worker, *range(1, 9))
        row = (await rows(worker))["orders"]
        assert (row["depth"], row["subscribers"][0]["dropped"]) == (3, 5)
        [line] = warnings(caplog, "max_away_jobs")
        assert (
            line
            == "3 messages of orders wait for shop::on_order, which is away; the oldest give way to new ones (max_away_jobs)"
        )
        assert await come_and_go(engine, seconds=5) == [6, 7, 8]
        await publish(worker, *range(9, 14))
        assert len(warnings(caplog, "max_away_jobs")) == 2, "once each time that it is away"
        assert await come_and_go(engine, seconds=5) == [11, 12, 13]


async def test_Q34_an_absent_subscriber_with_a_bound_keeps_no_message_from_others(autojump_clock: Clock) -> None:
    async with engine_with(max_away_jobs=2) as engine, engine.open_worker("w") as worker:
        await come_and_go(engine, "shop::renamed")
        seen: list[int] = []

        @worker.subscribe("orders", function_id="shop::new")
        async def on_order(n: int) -> None:
            seen.append(n)

        await worker.wait_registered()
        await publish(worker, *range(10))
        await trio.sleep(5)
        assert seen == list(range(10))


async def test_Q34_without_that_bound_new_messages_are_refused_as_before(autojump_clock: Clock) -> None:
    async with engine_with() as engine, engine.open_worker("w") as worker:
        async with engine.open_worker("shop") as shop:
            config = {"topic": "orders", "queue_config": {"maxJobs": 2}}

            @shop.function("shop::on_order")
            async def on_order(n: int) -> None: ...

            shop.register_trigger("durable:subscriber", "shop::on_order", config=config)
            await shop.wait_registered()
        await publish(worker, 1, 2)
        with pytest.raises(CallError, match=r"queue_full.*unsubscribe it or purge its jobs"):
            await publish(worker, 3)
