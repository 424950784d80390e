"""C1: making a channel."""

from __future__ import annotations

import attrs
import msgspec
import pytest
import trio

from iii_trio.config import Limits
from iii_trio.transport.frames import frame
from iii_trio.wire import InvokeFunction, RegisterFunction, encode
from tests.helpers.clause_world import (
    BINARY,
    IN_PROCESS,
    MASK,
    MIB,
    WEBSOCKET,
    Clock,
    EngineConfig,
    Open,
    World,
    attach_target,
    put_all,
    take_all,
)


async def test_C1_1_creating_a_channel_opens_no_connection(autojump_clock: Clock, world: World) -> None:
    owner = await world.worker(WEBSOCKET)
    before = len(world.opened)
    for _ in range(10):
        await owner.create_channel()
    assert len(world.opened) == before
    assert world.held()["connections"] == 1 and not world.shell.attached_channels


async def test_C1_1_the_ends_connect_in_either_order(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    owner = await world.worker()
    for reader_first in (False, True):
        wref, rref = await owner.create_channel()
        if reader_first:
            reader = await world.reader(reading, rref, owner)
            writer = await world.writer(writing, wref, owner)
        else:
            writer = await world.writer(writing, wref, owner)
            reader = await world.reader(reading, rref, owner)
        await writer.put("hello")
        assert await reader.take() == "hello"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.close)
            assert await take_all(reader) == []


async def test_C1_2_the_two_refs_share_the_id_and_carry_different_keys(autojump_clock: Clock, world: World) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    assert wref.channel_id == rref.channel_id
    assert wref.access_key != rref.access_key
    assert (wref.direction, rref.direction) == ("write", "read")


async def test_C1_2_a_key_opens_its_own_direction_only(autojump_clock: Clock, world: World) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    for ref, other in ((wref, rref), (rref, wref)):
        refused = await world.raw(attach_target(attrs.evolve(ref, direction=other.direction)))
        assert refused.status == 403


async def test_C1_3_refs_are_plain_json_and_are_forwarded_untouched(autojump_clock: Clock, world: World) -> None:
    owner, callee = await world.worker(), await world.worker(WEBSOCKET)
    callee.link.send(encode(RegisterFunction("app::take")))
    told = await owner.call("engine::channels::create")
    assert set(told["writer"]) == set(told["reader"]) == {"channel_id", "access_key", "direction"}
    text = b'{"reader" :{"direction":"read","access_key":"nobody\'s","channel_id":"none", "x":1.0},"n":1E2}'
    owner.link.send(encode(InvokeFunction("app::take", world.new_id(), data=msgspec.Raw(text))))
    while not (calls := [m for m in callee.heard if isinstance(m, InvokeFunction)]):
        await world.news.park()
    assert bytes(calls[0].data).startswith(text[:-1])  # but for who called, which is put behind


@pytest.mark.parametrize("size", [100, 20_000, 300_000])
async def test_C1_4_the_pipe_is_bounded_by_items_and_by_bytes(
    autojump_clock: Clock, world: World, writing: str, size: int
) -> None:
    owner = await world.worker()
    wref, _ = await owner.create_channel()
    writer = await world.writer(writing, wref, owner)
    put = 0

    async def write() -> None:
        nonlocal put
        while True:
            await writer.put(b"x" * size)
            put += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await world.settle()
        (view,) = world.engine.channels()
        bound = min(64, -(-MIB // size))
        if writing == IN_PROCESS or bound == 64:
            assert view.items_waiting == bound and view.bytes_waiting == bound * size
        else:  # a frame that is not wholly here counts by what is here
            assert view.items_waiting <= bound and MIB <= view.bytes_waiting <= MIB + size
        assert view.bytes_peak <= MIB + size
        assert view.waiting == "writer for reader"
        nursery.cancel_scope.cancel()
    if writing == IN_PROCESS:
        assert put == bound


async def test_C1_4_a_message_larger_than_the_bound_still_passes(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel(max_bytes=1000, buffer_size=1)
    writer = await world.writer(writing, wref, owner)
    items = [b"a" * 3_000_000, "b" * 70_000, b"c", b"d" * 1001]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all, writer, items)
        await world.settle()
        reader = await world.reader(reading, rref, owner)
        assert await take_all(reader) == items


@pytest.mark.parametrize(("asked", "given"), [(None, 64), (0, 1), (1, 1), (7, 7), (1024, 1024), (5000, 1024)])
async def test_C1_4_the_bound_of_items_is_between_1_and_1024(
    autojump_clock: Clock, world: World, asked: int | None, given: int
) -> None:
    owner = await world.worker()
    wref, _ = await owner.create_channel(**({} if asked is None else {"buffer_size": asked}))
    writer = await world.writer(IN_PROCESS, wref, owner)
    with trio.move_on_after(1):
        while True:
            await writer.put(b"")
    assert world.engine.channels()[0].items_waiting == given


async def test_C1_5_a_session_has_so_many_open_channels_and_no_more(autojump_clock: Clock, opening: Open) -> None:
    async with opening(EngineConfig(limits=Limits(channels_per_session=3, channels=8))) as world:
        owner, other, module = await world.worker(WEBSOCKET), await world.worker(WEBSOCKET), await world.worker()
        refs = [await owner.create_channel() for _ in range(3)]
        assert (await owner.call("engine::channels::create"))["code"] == "channel_limit_reached"
        # nothing else suffers, and a module in process is exempt
        await other.create_channel()
        for _ in range(4):
            await module.create_channel()
        # but not from the limit of all
        assert (await module.call("engine::channels::create"))["code"] == "channel_limit_reached"
        assert len(world.engine.channels()) == 8
        # an end makes room
        reader = await world.reader(IN_PROCESS, refs[0][1], owner)
        reader.cancel("enough")
        await owner.create_channel()


async def test_C1_4_the_bytes_that_a_channel_may_ask_for_are_bounded(autojump_clock: Clock, opening: Open) -> None:
    async with opening(EngineConfig(limits=Limits(channel_bytes=2 * MIB))) as world:
        owner = await world.worker(WEBSOCKET)
        await owner.create_channel(max_bytes=2 * MIB)
        for max_bytes in (2 * MIB + 1, 2**50):
            error = await owner.call("engine::channels::create", max_bytes=max_bytes)
            assert error["message"].endswith(f"at most {2 * MIB} (limits.channel_bytes), got {max_bytes}")
        assert len(world.engine.channels()) == 1
    with pytest.raises(ValueError, match=r"channels.max_bytes.*limits.channel_bytes"):
        EngineConfig(limits=Limits(channel_bytes=MIB - 1))


async def test_C1_5_the_last_eighth_is_kept_for_sessions_that_own_few(autojump_clock: Clock, opening: Open) -> None:
    async with opening(EngineConfig(limits=Limits(channels=64))) as world:
        greedy, other, module = await world.worker(WEBSOCKET), await world.worker(WEBSOCKET), await world.worker()
        refs = [await greedy.create_channel() for _ in range(56)]
        error = await greedy.call("engine::channels::create")
        assert error["code"] == "channel_limit_reached"
        assert "The last 8 are kept for workers that own fewer than 32; this one owns 56" in error["message"]
        await module.create_channel()  # in the engine's process: exempt
        for _ in range(7):
            await other.create_channel()
        assert "64 open channels" in (await other.call("engine::channels::create"))["message"]
        for _, rref in refs[:9]:
            (await world.reader(IN_PROCESS, rref, greedy)).cancel("enough")
        await greedy.create_channel()  # 55 were open, one below the last eighth


async def test_C1_6_items_are_counted_by_the_channel_not_by_the_run(autojump_clock: Clock, world: World) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel(buffer_size=3)
    raw = await world.raw(wref)
    await raw.stream.send_all(b"".join(frame(BINARY, bytes([n]), mask=MASK) for n in range(10)))
    await world.settle()
    assert world.engine.channels()[0].items_waiting == 3  # the rest of the run is read ahead, and waits
    await raw.close()
    reader = await world.reader(IN_PROCESS, rref, owner)
    assert await take_all(reader) == [bytes([n]) for n in range(10)]
    assert (await world.outcome())[0] == "completed"


async def test_C1_6_a_run_is_cut_where_the_bound_of_bytes_is_reached(autojump_clock: Clock, world: World) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel(max_bytes=2500)
    raw = await world.raw(wref)
    await raw.stream.send_all(b"".join(frame(BINARY, bytes(1000), mask=MASK) for _ in range(10)))
    await world.settle()
    assert world.engine.channels()[0].bytes_waiting == 3000
    await raw.close(None)
    reader = await world.reader(WEBSOCKET, rref, owner)
    assert await take_all(reader) == [bytes(1000)] * 10
