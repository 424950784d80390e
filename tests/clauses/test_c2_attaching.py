"""C2: attaching the two ends."""

from __future__ import annotations

import json

import attrs
import msgspec
import pytest
import trio

from iii_trio.config import ChannelDefaults
from iii_trio.errors import AttachRefused, ChannelBroken
from iii_trio.wire import Ref
from tests.helpers.clause_world import (
    BINARY,
    ENDS,
    IN_PROCESS,
    PING,
    WEBSOCKET,
    Clock,
    Direction,
    EngineConfig,
    Open,
    World,
    attach_target,
    error_of,
    put_all,
    take_all,
)


async def refusal(world: World, kind: str, ref: Ref, direction: str | None = None) -> int:
    """The status with which an end is refused, told to a client over a socket and to one in process alike."""
    asked = attrs.evolve(ref, direction=Direction(direction or ref.direction))
    if kind == WEBSOCKET:
        return (await world.raw(attach_target(asked))).status
    attach = world.reader if asked.direction == "read" else world.writer
    with pytest.raises(AttachRefused) as caught:
        await attach(kind, asked)
    return caught.value.status


@pytest.mark.parametrize("claiming", ENDS)
async def test_C2_1_an_end_is_attached_at_most_once_and_no_claimant_disturbs_it(
    autojump_clock: Clock, world: World, writing: str, reading: str, claiming: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer = await world.writer(writing, wref, owner)
    await writer.put("one")
    assert await refusal(world, claiming, wref) == 409
    assert await refusal(world, claiming, rref, "write") == 403
    assert await refusal(world, claiming, wref, "read") == 403
    assert await refusal(world, claiming, attrs.evolve(wref, access_key="guessed")) == 404
    assert await refusal(world, claiming, attrs.evolve(wref, channel_id="unknown")) == 404
    reader = await world.reader(reading, rref, owner)
    assert await refusal(world, claiming, rref) == 409
    await writer.put("two")
    assert [await reader.take(), await reader.take()] == ["one", "two"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.close)
        assert await take_all(reader) == []
    assert await world.outcome() == ("completed", "")


async def test_C2_1_a_target_without_key_or_direction_is_400(autojump_clock: Clock, world: World) -> None:
    owner = await world.worker()
    wref, _ = await owner.create_channel()
    path = f"/ws/channels/{wref.channel_id}"
    for query in ("", "?dir=write", f"?key={wref.access_key}", f"?key={wref.access_key}&dir=up", "?key=&dir=write"):
        assert (await world.raw(path + query)).status == 400, query
    assert (await world.raw(f"{path}?x=1&key={wref.access_key}&dir=write&y")).status == 101


async def test_C2_1_a_claimant_with_a_wrong_secret_is_403_and_attaches_nothing(
    autojump_clock: Clock, world: World
) -> None:
    owner = await world.worker()
    wref, _ = await owner.create_channel()
    worker_id = owner.identity.worker_id
    for said in (f"{worker_id} wrong", worker_id, f"nobody {owner.identity.channel_secret}", ""):
        assert (await world.raw(wref, ("Iii-Session", said))).status == 403, said
    with pytest.raises(AttachRefused, match="403"):
        await world.nursery.start(
            world.address(IN_PROCESS).attach_writer,
            wref,
            msgspec.structs.replace(owner.identity, channel_secret="wrong"),
        )
    assert await world.writer(WEBSOCKET, wref, owner)


@pytest.mark.parametrize("late", ENDS)
async def test_C2_1_a_late_comer_is_told_how_the_channel_ended(autojump_clock: Clock, world: World, late: str) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer = await world.writer(IN_PROCESS, wref, owner)
    writer.abort("the disk is full", "no_space")
    answer = await world.raw(rref)
    assert answer.status == 410
    told = json.loads(answer.body)
    assert (told["outcome"], told["reason"]) == ("aborted", "the disk is full")
    with pytest.raises(trio.BrokenResourceError) as caught:
        await world.reader(late, rref, owner)
    assert isinstance(caught.value, ChannelBroken)
    assert (caught.value.outcome, caught.value.reason, caught.value.code) == ("aborted", "the disk is full", "no_space")
    # only with the right key
    assert (await world.raw(attrs.evolve(rref, access_key="guessed"))).status == 404


async def test_C2_1_the_list_of_ended_channels_is_bounded(autojump_clock: Clock, opening: Open) -> None:
    async with opening(EngineConfig(channels=ChannelDefaults(ended_remembered=2))) as world:
        owner = await world.worker()
        refs = []
        for _ in range(3):
            wref, rref = await owner.create_channel()
            (await world.writer(IN_PROCESS, wref, owner)).abort("no")
            refs.append(rref)
        assert [(await world.raw(ref)).status for ref in refs] == [404, 410, 410]
        assert len(world.engine.ended_channels()) == 2


async def test_C2_2_what_is_written_before_the_reader_comes_is_delivered_first(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer = await world.writer(writing, wref, owner)
    for n in range(5):
        await writer.put(f"early {n}")
    await world.settle()
    reader = await world.reader(reading, rref, owner)
    for n in range(5):
        await writer.put(f"late {n}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.close)
        assert await take_all(reader) == [f"{when} {n}" for when in ("early", "late") for n in range(5)]


async def test_C2_3_a_half_attached_writer_is_told_that_its_channel_expired(
    autojump_clock: Clock, world: World, writing: str
) -> None:
    owner = await world.worker()
    wref, _ = await owner.create_channel()
    writer = await world.writer(writing, wref, owner)
    began = trio.current_time()
    end = await writer.wait_ended()
    assert (end.outcome, trio.current_time() - began) == ("expired", 300)
    assert (await error_of(writer.put, b"x")).outcome == "expired"
    assert await world.outcome() == ("expired", "no reader came within 300 s")


async def test_C2_3_a_half_attached_reader_is_told_that_its_channel_expired(
    autojump_clock: Clock, world: World, reading: str
) -> None:
    owner = await world.worker()
    _, rref = await owner.create_channel(expires_after_ms=1500)
    reader = await world.reader(reading, rref, owner)
    began = trio.current_time()
    assert (await error_of(reader.take)).outcome == "expired"
    assert trio.current_time() - began == 1.5


async def test_C2_3_a_finished_stream_that_nobody_fetches_expires(
    autojump_clock: Clock, world: World, writing: str
) -> None:
    owner = await world.worker()
    wref, _ = await owner.create_channel()
    writer = await world.writer(writing, wref, owner)
    await put_all(writer, [b"x"])
    await trio.sleep(299)
    assert len(world.engine.channels()) == 1
    await trio.sleep(2)
    assert (await world.outcome())[0] == "expired"


async def test_C2_3_null_means_never(autojump_clock: Clock, world: World, writing: str) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel(expires_after_ms=None)
    writer = await world.writer(writing, wref, owner)
    await trio.sleep(50_000)
    assert writer.ended is None
    reader = await world.reader(IN_PROCESS, rref, owner)
    await writer.put("still there")
    assert await reader.take() == "still there"
    writer.abort("done")


async def test_C2_3_a_passing_message_is_activity_and_a_ping_is_none(autojump_clock: Clock, world: World) -> None:
    owner = await world.worker()
    wref, _ = await owner.create_channel()
    raw = await world.raw(wref)
    began = trio.current_time()
    for _ in range(5):
        await trio.sleep(200)
        await raw.send(BINARY, b"x")
        await world.settle()
    for _ in range(29):
        await trio.sleep(10)
        await raw.send(PING)
    assert len(world.engine.channels()) == 1
    await raw.read_to_the_end()
    assert (await world.outcome())[0] == "expired"
    assert world.engine.ended_channels()[-1].ended_at - began == 1300


async def test_C2_3_only_half_attached_channels_expire(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    owner = await world.worker()
    untouched, _ = await owner.create_channel()
    wref, rref = await owner.create_channel()
    writer, reader = await world.writer(writing, wref, owner), await world.reader(reading, rref, owner)
    await trio.sleep(10_000)
    assert len(world.engine.channels()) == 2  # one with no end attached, one with both
    await writer.put("awake")
    assert await reader.take() == "awake"
    # the clock of a half-attached one starts when its end comes
    late = await world.writer(writing, untouched, owner)
    await trio.sleep(299)
    assert late.ended is None
    await trio.sleep(2)
    assert late.ended is not None and late.ended.outcome == "expired"
    writer.abort("done")


@pytest.mark.parametrize("reader_first", [True, False])
async def test_C2_4_a_writer_that_writes_nothing_delivers_a_clean_empty_stream_at_once(
    autojump_clock: Clock, world: World, writing: str, reading: str, reader_first: bool
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    began = trio.current_time()
    reader = await world.reader(reading, rref, owner) if reader_first else None
    writer = await world.writer(writing, wref, owner)
    await writer.close()
    reader = reader or await world.reader(reading, rref, owner)
    assert await take_all(reader) == []
    await world.settle()
    assert await world.outcome() == ("completed", "")
    assert trio.current_time() == began
