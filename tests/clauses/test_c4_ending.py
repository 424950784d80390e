"""C4: how streams end, and in which order a session's end takes effect."""

from __future__ import annotations

import contextlib
import itertools
import socket

import pytest
import trio

from iii_trio.core.channel import ChannelEvent
from iii_trio.core.effects import EndChannel, SealPipe, Send
from iii_trio.core.hub import Hub
from iii_trio.core.session import WorkerSession
from iii_trio.transport.frames import close_payload, frame
from iii_trio.transport.socket import Socket
from iii_trio.wire import (
    FEATURE,
    CancelInvocation,
    ChannelEnded,
    InvocationResult,
    InvokeFunction,
    Reattach,
    RegisterFunction,
    decode,
    encode,
)
from tests.helpers.clause_world import (
    BINARY,
    CLOSE,
    IN_PROCESS,
    MASK,
    TEXT,
    WEBSOCKET,
    Clock,
    Direction,
    EngineConfig,
    RawPeer,
    World,
    attach_target,
    error_of,
    put_all,
    take_all,
    to_raw,
    write_until_broken,
)

# --- C4.1: the clean end


@pytest.mark.parametrize("size", [10, 300_000])
async def test_C4_1_a_reader_that_takes_slowly_gets_all_that_was_written_before_the_end(
    autojump_clock: Clock, world: World, writing: str, reading: str, size: int
) -> None:
    """Items that wait at the reader's side when its channel ends are not lost with the connection."""
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer, reader = await world.writer(writing, wref, owner), await world.reader(reading, rref, owner)
    items: list[bytes | str] = [bytes([n]) * size for n in range(6)]

    async def write() -> None:
        await put_all(writer, items)
        await writer.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for item in items:
            await trio.sleep(1000)
            assert await reader.take() == item
        await trio.sleep(1000)
        with pytest.raises(trio.EndOfChannel):
            await reader.take()
    assert await world.outcome() == ("completed", "")


@pytest.mark.parametrize("code", [1000, None])
async def test_C4_1_a_clean_close_lets_the_reader_have_everything_queued_and_then_1000(
    autojump_clock: Clock, world: World, code: int | None
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer = await world.raw(wref)
    for n in range(10):
        await writer.send(TEXT, b"%d" % n)
    await writer.close(code)
    await writer.read_to_the_end()
    assert writer.closes() in ([(code or 1005, "")], [(1000, "")])  # answered, before any reader
    reader = await world.raw(rref)
    while not reader.closes():
        await reader.read_some()
    assert [payload for _, payload in reader.messages()] == [b"%d" % n for n in range(10)]
    assert reader.closes() == [(1000, "")]
    assert trio.current_time() == 0
    await reader.close(code)
    await reader.read_to_the_end()
    assert reader.at_end == "fin"
    assert await world.outcome() == ("completed", "")


@pytest.mark.parametrize("code", [1000, 1001, 4000, 4001])
async def test_C4_1_a_writers_close_is_answered_at_once_whatever_its_code(
    autojump_clock: Clock, world: World, reading: str, code: int
) -> None:
    owner = await world.worker()
    for attempt in range(10):  # whichever task of the engine comes first
        wref, rref = await owner.create_channel()
        ours, theirs = map(Socket, socket.socketpair())  # real ones are closed sooner than simulated ones
        raw = await RawPeer.connect(world.connect(ours, theirs), attach_target(wref))
        if attempt % 2:
            await world.reader(reading, rref, owner)
        await raw.close(code)
        await raw.read_to_the_end()
        assert [opcode for opcode, _, _ in raw.frames()] == [CLOSE]
        assert raw.at_end == "fin"
    assert trio.current_time() == 0


@pytest.mark.parametrize("how", ["close", "fin", "reset"])
async def test_C4_1_completed_means_that_the_reader_answered_our_close(
    autojump_clock: Clock, world: World, how: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    reader, writer = await world.raw(rref), await world.writer(IN_PROCESS, wref, owner)
    await put_all(writer, [b"x"])
    await trio.sleep(1000)  # no timer decides an outcome
    assert len(world.engine.channels()) == 1
    if how == "reset":  # what is unread makes a close a reset
        await reader.drop()
        assert (await world.outcome())[0] == "reader_lost"
        return
    while not reader.closes():
        await reader.read_some()
    if how == "close":
        await reader.close()
    else:
        assert isinstance(reader.stream, trio.abc.HalfCloseableStream)
        await reader.stream.send_eof()
    assert await world.outcome() == ("completed", "")


async def test_C4_1_a_reader_that_closes_before_it_could_see_our_close_has_cancelled(
    autojump_clock: Clock, world: World
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    reader, writer = await world.raw(rref), await world.writer(IN_PROCESS, wref, owner)
    await writer.put(b"x" * 500_000)
    await writer.close()
    await world.settle()
    await reader.close()
    assert (await world.outcome())[0] == "reader_cancelled"


async def test_C4_1_a_peer_that_never_answers_our_close_is_dropped_after_its_time_and_the_outcome_is_settled_before(
    autojump_clock: Clock,
    world: World,
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer, reader = await world.raw(wref), await world.reader(IN_PROCESS, rref, owner)
    reader.cancel("enough")
    assert await world.outcome() == ("reader_cancelled", "enough")
    await writer.read_frames(1)
    assert writer.closes() == [(4003, "enough")]
    assert trio.current_time() == 0 and world.engine.statistics().connections == 1
    await trio.sleep(4.9)
    assert world.engine.statistics().connections == 1
    await trio.sleep(0.2)
    assert world.engine.statistics().connections == 0


# --- C4.2: everything else is not clean

CUTS = {
    "1001": frame(CLOSE, close_payload(1001), mask=MASK),
    "1008": frame(CLOSE, close_payload(1008, "policy"), mask=MASK),
    "1011": frame(CLOSE, close_payload(1011), mask=MASK),
    "3000": frame(CLOSE, close_payload(3000), mask=MASK),
    "4000": frame(CLOSE, close_payload(4000), mask=MASK),
    "4001 with code and reason": frame(CLOSE, close_payload(4001, "no_space: the disk is full"), mask=MASK),
    "1000 within a message": frame(BINARY, b"ab", fin=False, mask=MASK) + frame(CLOSE, close_payload(1000), mask=MASK),
    "no code within a message": frame(BINARY, b"ab", fin=False, mask=MASK) + frame(CLOSE, b"", mask=MASK),
    "nothing": b"",
    "nothing, within a frame": frame(BINARY, bytes(1000), mask=MASK)[:500],
    "nothing, within a head": frame(BINARY, bytes(1000), mask=MASK)[:3],
    "nothing, within a Close": frame(CLOSE, close_payload(1000), mask=MASK)[:7],
    "a broken rule": b"\xff\xff\xff",
}


@pytest.mark.parametrize("half_close", [True, False])
@pytest.mark.parametrize("cut", CUTS)
async def test_C4_2_a_truncated_stream_never_looks_complete(
    autojump_clock: Clock, world: World, reading: str, cut: str, half_close: bool
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw, reader, foreign_refs = (
        await world.raw(wref),
        await world.reader(reading, rref, owner),
        await owner.create_channel(),
    )
    foreign_writer, foreign = await world.raw(foreign_refs[0]), await world.raw(foreign_refs[1])
    for writer in (raw, foreign_writer):
        await writer.send(BINARY, b"first")
        await world.settle()
        await writer.stream.send_all(CUTS[cut])
        if half_close:
            assert isinstance(writer.stream, trio.abc.HalfCloseableStream)
            await writer.stream.send_eof()
        else:
            await writer.drop()
    lost = cut.startswith("nothing") or cut == "a broken rule"
    error = await error_of(take_all, reader)
    assert error.outcome == ("writer_lost" if lost else "aborted")
    if cut.startswith("4001"):
        assert (error.reason, error.code) == ("the disk is full", "no_space")
    # to whom our codes mean nothing it is loud, too
    await foreign.read_to_the_end()
    assert foreign.received.endswith(b"\x83\x00") and not foreign.closes() and foreign.at_end == "fin"
    await world.settle()
    assert [ended.outcome for ended in world.engine.ended_channels()] == [error.outcome] * 2


# --- C4.3, C4.4: abort and cancel


async def test_C4_3_an_abort_overtakes_what_is_in_the_pipe(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer, reader = await world.writer(writing, wref, owner), await world.reader(reading, rref, owner)
    items = [b"%06d" % n * 5000 for n in range(40)]
    got: list[bytes | str] = []
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            with contextlib.suppress(trio.BrokenResourceError):  # its own abort
                for item in items:
                    await writer.put(item)

        nursery.start_soon(write)
        for _ in range(3):
            got.append(await reader.take())
        await world.settle()
        began = trio.current_time()
        writer.abort("no good")
        nursery.cancel_scope.cancel()
    await world.settle()
    with pytest.raises(trio.BrokenResourceError):
        while True:
            got.append(await reader.take())
    assert len(got) < len(items) and got == items[: len(got)]
    assert trio.current_time() == began
    assert (await world.outcome())[0] == "aborted"


@pytest.mark.parametrize("writer_is", ["idle", "blocked", "closing"])
async def test_C4_4_the_readers_end_takes_effect_on_a_writer_whatever_it_does(
    autojump_clock: Clock, world: World, writing: str, reading: str, writer_is: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel(buffer_size=1)
    writer, reader = await world.writer(writing, wref, owner), await world.reader(reading, rref, owner)
    if writer_is == "closing" and writing == IN_PROCESS:
        await put_all(writer, [b"x" * 300_000])
        reader.cancel("enough")
        assert await world.outcome() == ("reader_cancelled", "enough")
        return
    began = trio.current_time()
    errors = []

    async def write() -> None:
        if writer_is == "idle":
            errors.append(broken := await writer.wait_ended())
            assert broken.outcome == "reader_cancelled"
        elif writer_is == "blocked":
            errors.append(error := await write_until_broken(writer, b"x" * 300_000, 20))
            assert (error.outcome, error.reason) == ("reader_cancelled", "enough")
        else:
            errors.append(error := await error_of(put_all, writer, [b"x" * 900_000] * 3))
            assert (error.outcome, error.reason) == ("reader_cancelled", "enough")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await world.settle()
        assert not errors
        reader.cancel("enough")
    assert errors and trio.current_time() == began


# --- C4.5: a session's end is one step


def hub_with_sessions(n: int) -> tuple[Hub, list[WorkerSession]]:
    ids = itertools.count(1)
    hub = Hub(EngineConfig(), lambda: f"00000000-0000-4000-8000-{next(ids):012x}")
    sessions = []
    for number in range(n):
        session, _ = hub.connected(0.0, 0, peer=None, in_process=False)
        call = InvokeFunction("engine::workers::register", data=to_raw({"features": [FEATURE], "name": f"w{number}"}))
        hub.received(session, encode(call), 0.0)
        sessions.append(session)
    return hub, sessions


def test_C4_5_the_effects_of_a_sessions_end_come_in_their_order() -> None:
    """Driven purely: all of it is what one call of one function gives back, so nothing can come between."""
    hub, (leaving, other) = hub_with_sessions(2)

    def channel(owner: WorkerSession, writer: WorkerSession, reader: WorkerSession) -> str:
        made = hub.channels.create(owner, 0.0, buffer_size=None, max_bytes=None, expires_after_seconds=300)
        for holder, direction in ((writer, Direction.WRITE), (reader, Direction.READ)):
            ref = made.ref(direction)
            hub.attach(made.id, ref.access_key, direction, 0.0, holder)
        return made.id

    writes = channel(other, leaving, other)
    reads = channel(other, other, leaving)
    owns = channel(leaving, other, other)
    all_three = channel(leaving, leaving, leaving)
    for session in (leaving, other):
        hub.received(session, encode(RegisterFunction(f"of::{session.info.name}")), 0.0)
    answering, calling = "00000000-0000-4000-9000-000000000001", "00000000-0000-4000-9000-000000000002"
    hub.received(other, encode(InvokeFunction("of::w0", answering)), 0.0)
    hub.received(leaving, encode(InvokeFunction("of::w1", calling)), 0.0)
    effects = hub.disconnected(leaving, "it went home", 1.0)
    ends = [(effect.channel, str(effect.outcome)) for effect in effects if isinstance(effect, EndChannel)]
    assert sorted(ends[:2]) == sorted([(writes, "writer_lost"), (all_three, "writer_lost")])
    assert ends[2:] == [(reads, "reader_lost"), (owns, "owner_lost")]
    told = [decode(effect.message) for effect in effects if isinstance(effect, Send) and effect.session == other.id]
    kinds = [type(message) for message in told]
    assert kinds == [ChannelEnded, ChannelEnded, ChannelEnded, InvocationResult, CancelInvocation]
    assert not any(isinstance(effect, Send) and effect.session == leaving.id for effect in effects)
    # and all of it is gone
    assert [channel.id for channel in hub.channels] == []
    assert hub.registry.find("default", "of::w0") is None and hub.registry.find("default", "of::w1") is not None
    assert (
        not hub.calls.made_by(other)
        and not hub.calls.given_to(other)
        and not other.held_readers
        and not other.held_writers
    )
    assert hub.disconnected(leaving, "again", 1.0) == []


@pytest.mark.parametrize("reader_came", [True, False])
def test_C4_5_a_stream_that_was_finished_outlives_its_owner(reader_came: bool) -> None:
    hub, (leaving, other) = hub_with_sessions(2)
    made = hub.channels.create(leaving, 0.0, buffer_size=None, max_bytes=None, expires_after_seconds=300)
    hub.attach(made.id, made.write_key, Direction.WRITE, 0.0, leaving)
    if reader_came:
        hub.attach(made.id, made.read_key, Direction.READ, 0.0, other)
    assert hub.channel_event(made.id, ChannelEvent.WRITER_CLOSED, "", 0.0) == [SealPipe(made.id)]
    assert not [e for e in hub.disconnected(leaving, "done", 1.0) if isinstance(e, EndChannel)]
    if reader_came:
        (end, *_) = hub.channel_event(made.id, ChannelEvent.READER_FINISHED, "", 2.0)
    else:
        assert hub.tick(299.0) == []
        (end, *_) = hub.tick(301.5)
    assert isinstance(end, EndChannel) and end.outcome == ("completed" if reader_came else "expired")


async def test_C4_5_a_finished_stream_is_still_fetched_when_its_owner_is_gone(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    owner, other = await world.worker(writing), await world.worker()
    wref, rref = await owner.create_channel()
    await put_all(await world.writer(writing, wref, owner), ["kept", b"whole"])
    owner.link.close("done")
    await world.settle()
    assert world.engine.statistics().sessions == 1
    reader = await world.reader(reading, rref, other)
    assert await take_all(reader) == ["kept", b"whole"]
    assert await world.outcome() == ("completed", "")


async def test_C4_5_no_other_sessions_message_is_handled_in_between(autojump_clock: Clock, world: World) -> None:
    """Whoever hears of the first effect, and acts at once, already finds everything done."""
    leaving, other = await world.worker(), await world.worker()
    leaving.link.send(encode(RegisterFunction("of::leaving")))
    refs = [await leaving.create_channel() for _ in range(5)]
    for wref, _ in refs:
        await world.writer(IN_PROCESS, wref, other)
    leaving.link.close("gone")
    # within the same step: nothing of it is left for a message that comes now
    other.link.send(encode(InvokeFunction("of::leaving", world.new_id())))
    await world.settle()
    assert [outcome for _, outcome in other.ended()] == ["owner_lost"] * 5
    results = [m for m in other.heard if isinstance(m, InvocationResult)]
    assert b"function_not_found" in bytes(results[-1].error)
    assert other.heard.index(results[-1]) > max(n for n, m in enumerate(other.heard) if isinstance(m, ChannelEnded))


async def test_C4_6_without_a_grace_a_lost_workers_channels_end_at_once(autojump_clock: Clock, world: World) -> None:
    old, other = await world.worker(WEBSOCKET), await world.worker()
    wref, rref = await old.create_channel()
    writer, reader = await world.writer(WEBSOCKET, wref, old), await world.reader(IN_PROCESS, rref, other)
    new = await world.worker(WEBSOCKET)
    token = world.shell.hub.sessions[old.identity.worker_id].reattach_token
    new.link.send(encode(Reattach(old.identity.worker_id, "a wrong token")))
    await writer.put(b"still")
    assert await reader.take() == b"still"
    new.link.send(encode(Reattach(old.identity.worker_id, token)))
    assert (await reader.wait_ended()).outcome == "writer_lost"
    assert trio.current_time() == 0
