"""Our channels keep the contract that the kit checks, in every mixture; one that does not is found out."""

from __future__ import annotations

import itertools
import logging

import pytest
import trio

import iii_trio
from iii_trio.testing import World, simulate
from iii_trio.testing.contracts import check_channel, check_reading_end
from iii_trio.testing.world import Over


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize(("writes", "reads"), list(itertools.product(("memory", "network"), repeat=2)))
def test_our_channels_keep_it(writes: Over, reads: Over) -> None:
    async def scenario(world: World) -> None:
        async with world.open_worker("writer", writes) as one, world.open_worker("reader", reads) as other:

            async def make() -> tuple[iii_trio.ChannelWriter, iii_trio.ChannelReader]:
                refs = await one.trigger("engine::channels::create", {})
                return one.open_writer(refs["writer"]), other.open_reader(refs["reader"])

            await check_channel(make)

    simulate(scenario)


def test_a_reader_that_loses_what_it_took_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def careless(reader: iii_trio.ChannelReader) -> bytes | str:
        item = await receive(reader)
        await trio.lowlevel.checkpoint()
        return item

    receive = iii_trio.ChannelReader.receive
    monkeypatch.setattr(iii_trio.ChannelReader, "receive", careless)

    async def scenario(world: World) -> None:
        async with world.open_worker("a") as worker:

            async def make() -> tuple[iii_trio.ChannelWriter, iii_trio.ChannelReader]:
                refs = await worker.trigger("engine::channels::create", {})
                return worker.open_writer(refs["writer"]), worker.open_reader(refs["reader"])

            with pytest.raises(AssertionError, match="loses nothing"):
                await check_reading_end(make)

    simulate(scenario)
