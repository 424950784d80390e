"""C3: what passes through a channel, and when."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from iii_trio.transport.frames import close_payload, frame, frame_head
from iii_trio.transport.websocket import READ_BYTES
from tests.helpers.clause_world import (
    BINARY,
    CLOSE,
    CONTINUATION,
    ENDS,
    IN_PROCESS,
    MASK,
    MIB,
    PING,
    PONG,
    TEXT,
    Clock,
    Peer,
    RawPeer,
    ReadingEnd,
    World,
    WritingEnd,
    attach_target,
    error_of,
    put_all,
    take_all,
    write_until_broken,
)

PYTHON_SDK = ("User-Agent", "Python/3.11 websockets/17.4")
ITEMS: list[bytes | str] = [
    b"a" * 100, "hé", b"", "", b"z" * 3_000_000, "ü" * 600_000, *(b"%d" % n for n in range(500)), "x" * 125, b"y" * 126,
    b"v" * 65535, b"w" * 65536, "\U0001f600", b"\xff\xfe",
]  # fmt: skip


async def test_C3_1_items_arrive_in_order_once_unchanged(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer, reader = await world.writer(writing, wref, owner), await world.reader(reading, rref, owner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all, writer, ITEMS)
        got = await take_all(reader)
    assert [type(item) for item in got] == [type(item) for item in ITEMS]
    assert got == ITEMS
    assert await world.outcome() == ("completed", "")


async def test_C3_1_a_foreign_reader_gets_the_same(autojump_clock: Clock, world: World, writing: str) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer, raw = await world.writer(writing, wref, owner), await world.raw(rref)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all, writer, ITEMS)
        while not raw.received.endswith(b"\x88\x02\x03\xe8"):
            await raw.read_some()
        await raw.close()
    whole = raw.messages()
    assert whole == [(TEXT, i.encode()) if isinstance(i, str) else (BINARY, i) for i in ITEMS]
    assert await world.outcome() == ("completed", "")


async def test_C3_1_messages_above_1_MiB_are_cut_anew_for_an_unaware_python_reader(
    autojump_clock: Clock, world: World, writing: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw = await world.raw(rref, PYTHON_SDK)
    writer = await world.writer(writing, wref, owner)
    items: list[bytes | str] = [b"1" * MIB, bytes(range(256)) * 14_000, b"", "t" * MIB, b"end"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all, writer, items)
        while not raw.received.endswith(b"\x88\x02\x03\xe8"):
            await raw.read_some()
        await raw.close()
    got = raw.messages()
    assert all(len(payload) <= MIB for _, payload in got)
    assert got[0] == (BINARY, b"1" * MIB)  # at the limit: untouched
    assert got[-3:] == [(BINARY, b""), (TEXT, b"t" * MIB), (BINARY, b"end")]
    assert b"".join(payload for _, payload in got[1:-3]) == items[1]
    assert (await world.outcome())[0] == "completed"


@pytest.mark.parametrize("who", ["another SDK", "ours"])
async def test_C3_1_nobody_else_gets_messages_cut(autojump_clock: Clock, world: World, who: str) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw = await world.raw(rref, *([PYTHON_SDK, owner.header] if who == "ours" else [("User-Agent", "node")]))
    writer = await world.writer(IN_PROCESS, wref, owner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all, writer, [b"1" * (MIB + 1), "t" * (MIB + 1)])
        while not raw.closes():
            await raw.read_some()
        await raw.close()
    assert raw.messages() == [(BINARY, b"1" * (MIB + 1)), (TEXT, b"t" * (MIB + 1))]
    await world.settle()


async def test_C3_1_a_text_above_1_MiB_aborts_for_both_where_it_cannot_be_cut(
    autojump_clock: Clock, world: World, writing: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw = await world.raw(rref, PYTHON_SDK)
    writer = await world.writer(writing, wref, owner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raw.read_to_the_end)
        await writer.put("t" * (MIB + 1))
        end = await writer.wait_ended()
        assert end.outcome == "aborted" and "1 MiB" in end.reason
    assert raw.received.endswith(b"\x83\x00") and raw.messages() == []
    outcome, reason = await world.outcome()
    assert outcome == "aborted" and "1 MiB" in reason


# --- C3.2: bounds


@pytest.mark.parametrize("reading", ["nobody", *ENDS])
@pytest.mark.parametrize("size", [10, 50_000, 40_000_000])
async def test_C3_2_the_engine_keeps_no_more_than_the_bound_and_one_read_ahead(
    autojump_clock: Clock, world: World, reading: str, size: int
) -> None:
    """The writer's stream has no room of its own, so that what it took is what the engine keeps."""
    owner = await world.worker()
    wref, rref = await owner.create_channel(buffer_size=1024)
    ours, theirs = trio.testing.lockstep_stream_pair()
    raw = await RawPeer.connect(world.connect(ours, theirs), attach_target(wref))
    if reading == IN_PROCESS:
        await world.reader(IN_PROCESS, rref, owner)
    elif reading != "nobody":
        idle, theirs = trio.testing.lockstep_stream_pair()
        await RawPeer.connect(world.connect(idle, theirs), attach_target(rref))
    message = frame(BINARY, bytes(size), mask=MASK)
    taken = 0

    async def write() -> None:
        nonlocal taken
        while True:
            for at in range(0, len(message), 65536):
                piece = message[at : at + 65536]
                await ours.send_all(piece)
                taken += len(piece)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.sleep(100)
        kept = taken
        await trio.sleep(100)
        assert taken == kept, "the engine goes on reading"
        assert kept <= MIB + READ_BYTES + 65536, kept
        (view,) = world.engine.channels()
        assert view.bytes_peak <= MIB + READ_BYTES
        if size == 10:
            assert kept <= (1024 * 16) + READ_BYTES + 65536
        nursery.cancel_scope.cancel()
    await raw.drop()


async def test_C3_2_send_waits_while_the_pipe_is_full_and_goes_on_when_there_is_room(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel(buffer_size=2)
    writer, reader = await world.writer(writing, wref, owner), await world.reader(reading, rref, owner)
    items: list[bytes | str] = [bytes([n]) * 200_000 for n in range(30)]
    done = trio.Event()

    async def write() -> None:
        for item in items:
            await writer.put(item)
        done.set()
        await writer.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.sleep(1000)
        assert not done.is_set()
        assert await take_all(reader) == items


async def test_C3_2_the_engine_reads_192_kib_ahead_of_a_full_pipe_and_on_once_half_of_it_has_gone(
    autojump_clock: Clock, world: World
) -> None:
    """The writer's stream has no room of its own. Frames of 1,024 bytes come one a read."""
    owner = await world.worker()
    wref, rref = await owner.create_channel(buffer_size=4)
    ours, theirs = trio.testing.lockstep_stream_pair()
    raw = await RawPeer.connect(world.connect(ours, theirs), attach_target(wref))
    message = frame(BINARY, bytes(1016), mask=MASK)
    assert len(message) == 1024
    sent = 0

    async def write() -> None:
        nonlocal sent
        while True:
            await ours.send_all(message)
            sent += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.sleep(10)
        assert sent == 4 + 192
        (attached,) = world.shell.attached_channels.values()
        assert 192 * 1020 <= attached.memory.used_bytes <= 192 * 1024 + 8192
        reader = await world.reader(IN_PROCESS, rref, owner)
        for _ in range(95):
            await reader.take()
        await trio.sleep(10)
        assert sent == 4 + 192  # a fast writer is read in large pieces
        await reader.take()
        await trio.sleep(10)
        assert sent == 96 + 4 + 192
        reader.cancel("enough")
        nursery.cancel_scope.cancel()
    await raw.drop()
    await world.settle()
    assert world.shell.memory.used_bytes == 0


# --- C3.3: slow is not dead


async def test_C3_3_a_slow_reader_is_not_dropped(autojump_clock: Clock, world: World, writing: str) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer, raw = await world.writer(writing, wref, owner), await world.raw(rref)
    items: list[bytes | str] = [b"x" * 100_000] * 40
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all, writer, items)
        for _ in range(5):
            await trio.sleep(5_000)
            await raw.read_some()
        while not raw.closes():
            await raw.read_some()
        await trio.sleep(5_000)  # nor for the time it takes to answer the Close
        await raw.close()
    assert len(raw.messages()) == 40
    assert await world.outcome() == ("completed", "")


async def test_C3_3_the_engine_sends_no_pings_on_a_channel_socket(autojump_clock: Clock, world: World) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer, reader = await world.raw(wref), await world.raw(rref)
    with trio.move_on_after(10_000):
        await writer.read_to_the_end()
    with trio.move_on_after(10_000):
        await reader.read_to_the_end()
    assert not writer.received and not reader.received and not writer.at_end and not reader.at_end
    await writer.close(4001)
    await reader.read_to_the_end()
    await writer.read_to_the_end()
    assert [opcode for opcode, _, _ in writer.frames()] == [CLOSE]


async def test_C3_3_a_writer_gets_nothing_before_its_close_but_the_pongs_it_asked_for(
    autojump_clock: Clock, world: World, reading: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw, reader = await world.raw(wref), await world.reader(reading, rref, owner)
    for n in range(200):
        await raw.send(BINARY, b"x" * 1000)
        assert await reader.take() == b"x" * 1000
        if n == 100:
            await raw.send(PING, b"are you there")
    await world.settle()
    await raw.close()
    assert await take_all(reader) == []
    await raw.read_to_the_end()
    assert raw.frames() == [(PONG, True, b"are you there"), (CLOSE, True, close_payload(1000))]


# --- C3.4: control frames


async def test_C3_4_a_readers_pings_are_answered_while_the_writer_is_idle(
    autojump_clock: Clock, world: World, writing: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw = await world.raw(rref)
    await raw.send(PING, b"nobody there yet")
    assert await raw.read_frames(1) == [(PONG, True, b"nobody there yet")]
    writer = await world.writer(writing, wref, owner)
    await trio.sleep(1000)
    await raw.send(PING, b"")
    await raw.read_frames(2)
    await writer.put(b"x")
    await raw.read_frames(3)
    await raw.send(PING, b"a" * 125)
    assert (await raw.read_frames(4))[1:] == [(PONG, True, b""), (BINARY, True, b"x"), (PONG, True, b"a" * 125)]
    await raw.drop()


async def test_C3_4_a_writers_ping_is_answered_as_soon_as_it_can_be_read(autojump_clock: Clock, world: World) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel(buffer_size=2)
    raw = await world.raw(wref)
    # the bound is reached within the same read that brings the ping
    await raw.stream.send_all(b"".join(frame(BINARY, b"x", mask=MASK) for _ in range(5)) + frame(PING, b"1", mask=MASK))
    assert await raw.read_frames(1) == [(PONG, True, b"1")]
    await raw.send(PING, b"2")
    await world.settle()
    reader = await world.reader(IN_PROCESS, rref, owner)
    for _ in range(5):
        assert await reader.take() == b"x"
    assert await raw.read_frames(2) == [(PONG, True, b"1"), (PONG, True, b"2")]
    await raw.drop()


@pytest.mark.parametrize("each_second", [1, 20])
async def test_C3_4_the_pings_of_a_writer_of_small_messages_are_answered_while_a_reader_pauses(
    autojump_clock: Clock, world: World, each_second: int
) -> None:
    """As the Python SDK does: 100 bytes now and then, a ping every 20 s, and an end of its own if 20 s bring no answer."""
    owner = await world.worker()
    wref, rref = await owner.create_channel(buffer_size=4)
    raw = await world.raw(wref)
    pongs = 0
    for second in range(90):
        for n in range(each_second):
            await raw.send(BINARY, bytes([second, n]) * 50)
        if second % 20 == 19:
            await raw.send(PING, bytes([second]))
            await raw.read_frames(pongs + 1)
            pongs += 1
            assert raw.frames()[-1] == (PONG, True, bytes([second]))
        await trio.sleep(1)
    (view,) = world.engine.channels()
    assert view.items_waiting == 4
    assert world.shell.memory.used_bytes <= 192 * 1024 + 8192
    await raw.close()
    reader = await world.reader(IN_PROCESS, rref, owner)
    assert await take_all(reader) == [bytes([second, n]) * 50 for second in range(90) for n in range(each_second)]
    assert await world.outcome() == ("completed", "")


async def test_C3_4_a_writers_abort_is_read_behind_a_full_pipe(autojump_clock: Clock, world: World) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel(buffer_size=1)
    raw, reader = await world.raw(wref), await world.reader(IN_PROCESS, rref, owner)
    for _ in range(100):
        await raw.send(BINARY, b"x")
        await world.settle()
    await raw.close(4001, "changed my mind")
    await world.settle()
    assert await world.outcome() == ("aborted", "changed my mind")
    assert (await error_of(reader.take)).reason == "changed my mind"


async def test_C3_4_a_readers_close_takes_effect_at_once_behind_a_full_pipe(
    autojump_clock: Clock, world: World, writing: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel(buffer_size=1)
    raw = await world.raw(rref)
    writer = await world.writer(writing, wref, owner)
    async with trio.open_nursery() as nursery:
        errors = []

        async def write() -> None:
            errors.append(await write_until_broken(writer, b"x" * 300_000, 20))

        nursery.start_soon(write)

        await world.settle()
        assert not errors
        await raw.close(1000, "seen enough")
    assert errors[0].outcome == "reader_cancelled" and errors[0].reason == "seen enough"
    await raw.read_to_the_end()
    # what is on its way is whole frames, and the Close is answered
    assert raw.closes() == [(1000, "seen enough")]


@pytest.mark.parametrize("kind", [BINARY, TEXT])
async def test_C3_4_a_frame_that_is_not_wholly_here_is_passed_on_as_fragments(
    autojump_clock: Clock, world: World, kind: int
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer, reader = await world.raw(wref), await world.raw(rref)
    payload = ("é" * 300_000).encode()
    whole = frame(kind, payload, mask=MASK)
    await writer.stream.send_all(whole[:60_001])
    await world.settle()
    await reader.read_frames(1)
    assert {opcode for opcode, _, _ in reader.frames()} <= {kind, CONTINUATION}
    assert not any(fin for _, fin, _ in reader.frames())
    assert sum(len(part) for _, _, part in reader.frames()) == 60_001 - len(frame_head(kind, len(payload), mask=MASK))
    before = len(reader.frames())
    await reader.send(PING, b"between")
    assert (await reader.read_frames(before + 1))[-1] == (PONG, True, b"between")
    await writer.stream.send_all(whole[60_001:])
    await writer.close()
    while not reader.closes():
        await reader.read_some()
    await reader.close()
    assert reader.messages() == [(kind, payload)]
    assert reader.closes() == [(1000, "")]
    assert await world.outcome() == ("completed", "")


async def test_C3_4_an_abort_within_a_frame_leaves_whole_frames_and_its_close(
    autojump_clock: Clock, world: World
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer, reader = await world.raw(wref), await world.raw(rref, owner.header)
    await writer.stream.send_all(frame(BINARY, bytes(900_000), mask=MASK)[:500_000])
    await world.settle()
    await writer.drop()
    await reader.read_to_the_end()
    assert reader.closes()[0][0] == 4002
    assert sum(len(frame_head(o, len(p))) + len(p) for o, _, p in reader.frames()) == len(reader.received)
    assert not any(fin for opcode, fin, _ in reader.frames() if opcode != CLOSE)


# --- C3.5: time


async def test_C3_5_what_happens_at_one_end_takes_no_time_to_reach_the_other(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    began = trio.current_time()

    async def pair() -> tuple[WritingEnd, ReadingEnd, trio.CancelScope, trio.CancelScope, Peer]:
        owner = await world.worker()
        wref, rref = await owner.create_channel()
        scopes = trio.CancelScope(), trio.CancelScope()
        writer, reader = (
            await world.writer(writing, wref, owner, scopes[0]),
            await world.reader(reading, rref, owner, scopes[1]),
        )
        return writer, reader, *scopes, owner

    writer, reader, *_ = await pair()
    writer.abort("a")
    assert (await reader.wait_ended()).outcome == "aborted"
    writer, reader, *_ = await pair()
    reader.cancel("b")
    assert (await writer.wait_ended()).outcome == "reader_cancelled"
    writer, reader, scope, _, _ = await pair()
    scope.cancel()
    assert (await reader.wait_ended()).outcome == "writer_lost"
    writer, reader, _, scope, _ = await pair()
    scope.cancel()
    assert (await writer.wait_ended()).outcome == "reader_lost"
    writer, reader, _, _, owner = await pair()
    owner.link.close("leaves")
    assert (await writer.wait_ended()).outcome == "writer_lost"
    assert (await reader.wait_ended()).outcome == "writer_lost"
    writer, reader, *_ = await pair()
    await writer.put(b"x")
    assert await reader.take() == b"x"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.close)
        assert await take_all(reader) == []
    assert trio.current_time() == began
