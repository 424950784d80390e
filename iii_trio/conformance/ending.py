"""The checks of chapter 4, ending."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from ..transport.frames import BINARY, frame, frame_head
from .bench import QUIET, SOON, Bench, expect, soon
from .peer import Peer

_MASK: Final = b"\x05\x06\x07\x08"
_ITEMS: Final = ("one", b"two", "three")


async def C4_1_a_clean_close_gives_everything_and_then_1000(bench: Bench) -> None:
    # A Close without a code is as clean an end as one with 1000 (clause C4.1).
    for code in (1000, None):
        for before in (True, False):
            writer_ref, reader_ref = await (await bench.session()).create_channel()
            writer = await bench.attach(writer_ref)
            reader = await bench.attach(reader_ref) if before else None
            await writer.send(*_ITEMS)
            await writer.close(code)
            await bench.round_trip(writer) if not before else None
            reader = reader or await bench.attach(reader_ref)
            seen = await bench.last_seen(reader, "the end of a stream that was closed")
            how = "without code" if code is None else f"with {code}"
            expect(
                seen.messages == _ITEMS and seen.code == 1000, f"of three items and a Close {how} the reader saw {seen}"
            )


async def C4_1_a_writers_close_is_answered_at_once(bench: Bench) -> None:
    writer_ref, reader_ref = await (await bench.session()).create_channel()
    writer = await bench.attach(writer_ref)
    await writer.send(*_ITEMS)
    await writer.close()
    seen = await bench.last_seen(writer, "the answer to a writer's Close, before any reader came,")
    expect(seen.close is not None, f"a writer that closed before any reader came saw {seen}")
    await bench.last_seen(
        await bench.attach(reader_ref), "the end of a finished stream"
    )  # else it stays, to be fetched


async def _close_1001(writer: Peer) -> None:
    await writer.close(1001, "the tab goes away")


async def _close_1011(writer: Peer) -> None:
    await writer.close(1011)


async def _close_4000(writer: Peer) -> None:
    await writer.close(4000)


async def _close_within_a_message(writer: Peer) -> None:
    await writer.say(BINARY, b"begun", fin=False)
    await writer.close()


async def _break_the_protocol(writer: Peer) -> None:
    await writer.send_raw(frame(BINARY, b"no mask"))


async def _end_within_a_frame(writer: Peer) -> None:
    await writer.send_raw(frame_head(BINARY, 1000, mask=_MASK) + bytes(10))
    await writer.fin()


_CUTS: Final[tuple[tuple[str, Callable[[Peer], Awaitable[None]]], ...]] = (
    ("a Close with 1001", _close_1001),
    ("a Close with 1011", _close_1011),
    ("a Close with 4000", _close_4000),
    ("a Close within a message", _close_within_a_message),
    ("no Close, but the end of the connection", Peer.fin),
    ("no Close, but a reset", Peer.reset),
    ("a broken rule", _break_the_protocol),
    ("the end of the connection within a frame", _end_within_a_frame),
)


async def C4_2_a_cut_stream_never_looks_complete(bench: Bench) -> None:
    wrong = []
    for what, cut in _CUTS:
        writer, reader = await bench.pair()
        await writer.send(*_ITEMS)
        async with soon("the arrival of three items"):
            await reader.take(len(_ITEMS))
        await cut(writer)
        seen = await bench.last_seen(reader, f"the end of a stream cut by {what}")
        # All cuts are tried before the verdict, because the report should name every one that fails.
        if seen.looks_complete:
            wrong.append(f"of a stream cut by {what} the reader saw {seen}")
    expect(not wrong, "; ".join(wrong))


async def C4_2_a_stream_cut_before_its_reader_came_never_looks_complete(bench: Bench) -> None:
    for what, cut in _CUTS:
        writer_ref, reader_ref = await (await bench.session()).create_channel()
        writer = await bench.attach(writer_ref)
        await writer.send(*_ITEMS)
        await bench.round_trip(writer)
        await cut(writer)
        with trio.move_on_after(QUIET):
            # A connection that this side has reset can show nothing more.
            if cut is not Peer.reset:
                await writer.watch()
        reader = await bench.claim(reader_ref)
        # A refusal is right as well, because the channel may have been forgotten by then.
        if reader.status == 101:
            seen = await bench.last_seen(reader, f"the end of a stream cut, before its reader came, by {what}")
            expect(not seen.looks_complete, f"of a stream cut, before it came, by {what} the reader saw {seen}")


async def C4_3_an_abort_drops_what_waits_and_what_came_is_a_prefix(bench: Bench) -> None:
    writer, reader = await bench.pair(buffer_size=1000)
    items = [b"%8d" % n * 4000 for n in range(200)]
    # The reader takes nothing, so the writing blocks as soon as all buffers are full.
    with trio.move_on_after(QUIET):
        await writer.send_raw(b"".join(frame(BINARY, item, mask=_MASK) for item in items))
    await writer.reset()
    seen = await bench.last_seen(reader, "the end of a stream that was cut while its reader lagged", 5)
    expect(
        list(seen.messages) == items[: len(seen.messages)], "what came before the cut is not a prefix of what was sent"
    )
    expect(not seen.looks_complete, f"the lagging reader of a stream that was cut saw {seen}")


async def C4_4_a_readers_end_reaches_an_idle_writer(bench: Bench) -> None:
    for what, act in (("Close", Peer.close), ("reset", Peer.reset), ("end without a Close", Peer.fin)):
        writer, reader = await bench.pair()
        await act(reader)
        seen = await bench.last_seen(writer, f"the effect of a reader's {what} on an idle writer")
        expect(seen.code != 1000, f"an idle writer whose reader ended by {what} saw {seen}")


async def C4_4_a_readers_end_reaches_a_blocked_writer(bench: Bench) -> None:
    writer, reader = await bench.pair()

    async def flood() -> None:
        piece = frame(BINARY, bytes(65_000), mask=_MASK)
        try:
            while True:
                await writer.send_raw(piece)
        # The end of this connection is the effect that the check looks for below.
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    bench.nursery.start_soon(flood)
    await trio.sleep(QUIET)
    await reader.reset()
    seen = await bench.last_seen(writer, "the effect of a reader's reset on a writer that is blocked", answer=False)
    expect(seen.code != 1000, f"a blocked writer whose reader was gone saw {seen}")


async def C4_5_what_a_session_owns_ends_with_it(bench: Bench) -> None:
    owner = await bench.session()
    writer_ref, reader_ref = await owner.create_channel()
    writer, reader = await bench.attach(writer_ref), await bench.attach(reader_ref)
    await writer.send(*_ITEMS)
    await owner.peer.drop()
    for name, end in (("writer", writer), ("reader", reader)):
        seen = await bench.last_seen(end, f"the end for the {name} of a channel whose owner is gone")
        expect(not seen.looks_complete, f"the {name} of a channel whose owner was gone saw {seen}")


async def C4_5_a_finished_stream_outlives_its_owner(bench: Bench) -> None:
    owner = await bench.session()
    writer_ref, reader_ref = await owner.create_channel()
    writer = await bench.attach(writer_ref)
    await writer.send(*_ITEMS)
    await writer.close()
    await bench.last_seen(writer, "the answer to a writer's Close")
    await owner.peer.drop()
    await trio.sleep(QUIET)
    seen = await bench.last_seen(await bench.attach(reader_ref), "the end of a stream whose owner is gone")
    expect(seen.messages == _ITEMS and seen.code == 1000, f"of a finished stream whose owner was gone came {seen}")


async def C4_5_the_ends_that_a_session_holds_end_with_it(bench: Bench) -> None:
    # The two ends are lost in different words, so each side needs a channel of its own.
    for side, outcome in ((0, "writer_lost"), (1, "reader_lost")):
        owner, holder = await bench.aware(), await bench.aware()
        refs = await owner.create_channel()
        held = await bench.attach(refs[side], holder.identity)
        other = await bench.attach(refs[1 - side])
        await holder.peer.drop()
        seen = await bench.last_seen(other, f"the end of a channel whose holder is gone ({outcome})")
        expect(not seen.looks_complete, f"the other end of one whose holder was gone saw {seen}")
        await bench.last_seen(held, "the end of what a session held that is gone")
        told = await owner.hear("channelended")
        expect(told.get("outcome") == outcome, f"the owner was told {told.get('outcome')}, where {outcome} was due")


async def C4_7_an_ended_channel_is_forgotten(bench: Bench) -> None:
    owner = await bench.session()
    ids = []
    # An engine may forget after a clean end and leak after a cut, so each way to end is tried.
    for act in (Peer.close, Peer.reset, Peer.fin):
        writer_ref, reader_ref = await owner.create_channel()
        ids.append(writer_ref.channel_id)
        writer, reader = await bench.attach(writer_ref), await bench.attach(reader_ref)
        await writer.send(*_ITEMS)
        await act(writer)
        await bench.last_seen(reader, "the end of a stream")
        for ref in (writer_ref, reader_ref):
            async with soon("the forgetting of an ended channel"):
                status = (await bench.claim(ref)).status
            expect(
                status in (404, 410), f"after the end the {ref.direction} end was claimed again, and answered {status}"
            )
    listed = await owner.call("engine::channels::list")
    left = [channel["id"] for channel in listed["channels"] if channel["id"] in ids]
    expect(not left, f"{len(left)} of {len(ids)} ended channels are still listed")


async def C4_7_the_owner_is_told_the_one_outcome(bench: Bench) -> None:
    for outcome, act in (("completed", Peer.close), ("writer_lost", Peer.reset), ("aborted", _close_1001)):
        owner = await bench.aware()
        writer_ref, reader_ref = await owner.create_channel()
        writer, reader = await bench.attach(writer_ref), await bench.attach(reader_ref)
        await act(writer)
        await bench.last_seen(reader, "the end of a stream")
        told = await owner.hear("channelended")
        expect(told.get("channel_id") == writer_ref.channel_id, f"the owner was told of {told.get('channel_id')}")
        expect(told.get("outcome") == outcome, f"the owner was told {told.get('outcome')}, where {outcome} was due")
        await owner.call("engine::channels::ended", limit=0)
        times = sum(said.get("type") == "channelended" for said in owner.heard)
        expect(times == 1, f"the owner was told {times} times how its channel ended")


async def C4_8_ending_twice_is_harmless(bench: Bench) -> None:
    owner = await bench.session()
    writer_ref, reader_ref = await owner.create_channel()
    writer, reader = await bench.attach(writer_ref), await bench.attach(reader_ref)
    await writer.send(*_ITEMS)
    try:
        await writer.close()
        await writer.close(4001, "again")
        await writer.send("more")
    except trio.BrokenResourceError:
        pass  # it has gone already, and hears nothing of this
    seen = await bench.last_seen(reader, "the end of a stream that was closed twice", SOON)
    expect(seen.messages == _ITEMS and seen.code == 1000, f"of a stream that was closed twice the reader saw {seen}")
    await owner.create_channel()


CHECKS = (
    C4_1_a_clean_close_gives_everything_and_then_1000,
    C4_1_a_writers_close_is_answered_at_once,
    C4_2_a_cut_stream_never_looks_complete,
    C4_2_a_stream_cut_before_its_reader_came_never_looks_complete,
    C4_3_an_abort_drops_what_waits_and_what_came_is_a_prefix,
    C4_4_a_readers_end_reaches_an_idle_writer,
    C4_4_a_readers_end_reaches_a_blocked_writer,
    C4_5_what_a_session_owns_ends_with_it,
    C4_5_a_finished_stream_outlives_its_owner,
    C4_5_the_ends_that_a_session_holds_end_with_it,
    C4_7_an_ended_channel_is_forgotten,
    C4_7_the_owner_is_told_the_one_outcome,
    C4_8_ending_twice_is_harmless,
)
