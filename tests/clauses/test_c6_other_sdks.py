"""C6: with other people's SDKs, byte by byte."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from iii_trio.wire import CLOSE_OF, Outcome
from tests.helpers.clause_world import (
    BINARY,
    CLOSE,
    IN_PROCESS,
    PING,
    TEXT,
    Clock,
    Peer,
    World,
    WritingEnd,
    error_of,
    put_all,
)

MIB = 1 << 20

Cause = Callable[[World, Peer, WritingEnd], Awaitable[None]]


async def abort(world: World, owner: Peer, writer: WritingEnd) -> None:
    writer.abort("the disk is full", "no_space")


async def end_owners_session(world: World, owner: Peer, writer: WritingEnd) -> None:
    owner.link.close("went home")


async def close_engine(world: World, owner: Peer, writer: WritingEnd) -> None:
    world.shell.close("going down")


CAUSES: dict[str, tuple[Cause, Outcome]] = {
    "aborted": (abort, Outcome.ABORTED),
    "owner lost": (end_owners_session, Outcome.OWNER_LOST),
    "engine closed": (close_engine, Outcome.ENGINE_CLOSED),
}


async def test_C6_1_a_python_reader_sees_the_whole_stream_and_then_a_clean_close(
    autojump_clock: Clock, world: World, writing: str
) -> None:
    """What the SDK sends: no headers of ours, pings of its own, a Close without reason in answer to ours."""
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw = await world.raw(rref, ("User-Agent", "Python/3.11 websockets/15.0"))
    writer = await world.writer(writing, wref, owner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all, writer, [b"one", "two"])
        await raw.read_frames(2)
        await raw.send(PING, b"keepalive")
        while not raw.closes():
            await raw.read_some()
        await raw.close(1000)
    assert raw.messages() == [(BINARY, b"one"), (TEXT, b"two")]
    assert raw.closes() == [(1000, "")]
    assert (await world.outcome())[0] == "completed"


@pytest.mark.parametrize("dies", ["closes with 1011", "drops"])
async def test_C6_1_a_reader_that_dies_by_its_own_keepalive_is_never_reported_as_completed(
    autojump_clock: Clock, world: World, writing: str, dies: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw = await world.raw(rref)
    writer = await world.writer(writing, wref, owner)
    async with trio.open_nursery() as nursery:
        errors = []

        async def write() -> None:
            errors.append(await error_of(put_all, writer, [b"x" * 500_000] * 5))

        nursery.start_soon(write)
        await trio.sleep(40)
        if dies == "drops":
            await raw.drop()
        else:
            await raw.close(1011, "keepalive ping timeout")
    assert errors[0].outcome == ("reader_lost" if dies == "drops" else "reader_cancelled")
    assert (await world.outcome())[0] == errors[0].outcome


async def test_C6_1_a_python_writer_that_dies_by_its_own_keepalive_has_aborted(
    autojump_clock: Clock, world: World, reading: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw, reader = await world.raw(wref), await world.reader(reading, rref, owner)
    await raw.send(BINARY, b"x")
    assert await reader.take() == b"x"
    await raw.close(1011, "keepalive ping timeout")
    error = await error_of(reader.take)
    assert error.outcome == "aborted" and "keepalive ping timeout" in error.reason


@pytest.mark.parametrize("cause", CAUSES)
async def test_C6_2_to_an_unaware_reader_an_abort_is_a_reserved_opcode_and_then_fin(
    autojump_clock: Clock, world: World, writing: str, cause: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw, writer = await world.raw(rref), await world.writer(writing, wref)
    await writer.put(b"first")
    await raw.read_frames(1)
    await CAUSES[cause][0](world, owner, writer)
    await raw.read_to_the_end()
    assert raw.received == b"\x82\x05first\x83\x00"
    assert raw.at_end == "fin"
    assert trio.current_time() == 0


async def test_C6_2_what_a_reader_says_before_it_reads_the_abort_does_not_turn_fin_into_a_reset(
    autojump_clock: Clock, world: World
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw, writer = await world.raw(rref), await world.writer(IN_PROCESS, wref, owner)
    await writer.put(b"x" * 30_000)
    await raw.send(PING, b"a")
    await world.settle()
    writer.abort("no")
    for _ in range(20):
        await raw.send(PING, b"b" * 100)
    await raw.read_to_the_end()
    assert raw.received.endswith(b"\x83\x00") and raw.at_end == "fin"


async def test_C6_2_an_abort_waits_for_a_frame_that_is_being_written_and_for_nothing_else(
    autojump_clock: Clock, world: World
) -> None:
    """Behind a reader that lags, the torn frame is completed; what was not begun is dropped."""
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw, writer = await world.raw(rref), await world.writer(IN_PROCESS, wref, owner)
    for n in range(3):
        await writer.put(bytes([n]) * 300_000)
    await world.settle()
    writer.abort("no")
    await raw.read_to_the_end()
    assert raw.received.endswith(b"\x83\x00")
    assert raw.messages() == [(BINARY, bytes(300_000))]


@pytest.mark.parametrize("ends", ["reader cancels", "reader is lost", "owner", "engine", "expires"])
async def test_C6_2_to_an_unaware_writer_any_end_but_its_own_is_a_4000_close_with_a_reason(
    autojump_clock: Clock, world: World, reading: str, ends: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw = await world.raw(wref)
    await raw.send(BINARY, b"x")
    scope = trio.CancelScope()
    if ends != "expires":
        reader = await world.reader(reading, rref, None, scope)
        assert await reader.take() == b"x"
    if ends == "reader cancels":
        reader.cancel("seen enough")
    elif ends == "reader is lost":
        scope.cancel()
    elif ends == "owner":
        owner.link.close("went home")
    elif ends == "engine":
        world.shell.close("going down")
    await raw.read_to_the_end()
    ((code, reason),) = raw.closes()
    outcome, why = await world.outcome()
    assert code == CLOSE_OF[outcome] and 4000 <= code < 5000
    assert reason and reason == why[:123]
    assert [opcode for opcode, _, _ in raw.frames()] == [CLOSE]


async def test_C6_2_a_writer_that_never_reads_is_told_by_a_reset_long_before_the_time_for_its_close_is_over(
    autojump_clock: Clock, world: World
) -> None:
    """As the Rust SDK's: it would stream on into nothing, and believe that everything had been taken."""
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw, reader = await world.raw(wref), await world.reader(IN_PROCESS, rref, owner)
    reader.cancel("enough")
    sent = 0
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await raw.send(BINARY, bytes(65_536))
            sent += 65_536 + 14  # with its head: the engine counts bytes, and drops the writer within the same read
    assert 16 * MIB < sent < 32 * MIB
    assert trio.current_time() < 1
    assert await world.outcome() == ("reader_cancelled", "enough")
    await trio.testing.wait_all_tasks_blocked()
    assert world.engine.statistics().connections == 0


@pytest.mark.parametrize("cause", CAUSES)
async def test_C6_3_an_aware_reader_gets_the_outcomes_code_and_the_reason(
    autojump_clock: Clock, world: World, writing: str, cause: str
) -> None:
    owner, holder = await world.worker(), await world.worker()
    wref, rref = await owner.create_channel()
    raw = await world.raw(rref, holder.header)
    writer = await world.writer(writing, wref, holder)
    await CAUSES[cause][0](world, owner, writer)
    await raw.read_frames(1)
    ((code, reason),) = raw.closes()
    outcome, why = await world.outcome()
    assert (outcome, code) == (CAUSES[cause][1], CLOSE_OF[CAUSES[cause][1]])
    assert reason == ("no_space: the disk is full" if cause == "aborted" else why)
    await raw.close(code)
    await raw.read_to_the_end()
    assert raw.at_end == "fin"


async def test_C6_4_ends_of_peers_that_name_no_session_are_held_by_nobody(autojump_clock: Clock, world: World) -> None:
    owner, other = await world.worker(), await world.worker()
    wref, rref = await owner.create_channel()
    writer, reader = await world.raw(wref), await world.raw(rref)
    (view,) = world.engine.channels()
    assert (view.owner, view.writer, view.reader) == (owner.identity.worker_id, None, None)
    assert not any(s.held_writers or s.held_readers for s in world.shell.hub.sessions.values())
    other.link.close("it has nothing to do with it")
    await world.settle()
    await writer.send(BINARY, b"on")
    assert await reader.read_frames(1) == [(BINARY, True, b"on")]
    owner.link.close("but this has")
    await reader.read_to_the_end()
    assert (await world.outcome())[0] == "owner_lost"
