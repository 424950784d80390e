"""The checks of chapter 3, passing items."""

from __future__ import annotations

from typing import Final

import trio

from ..transport.frames import BINARY, CONTINUATION, PING, PONG, TEXT, frame, frame_head
from .bench import QUIET, Bench, Broken, expect, soon
from .peer import Frame, Message, Peer, as_frame

MIB: Final = 1024 * 1024
_MASK: Final = b"\x01\x02\x03\x04"


async def C3_1_items_arrive_in_order_once_and_unchanged(bench: Bench) -> None:
    writer, reader = await bench.pair()
    items: list[Message] = [b"", "", "é" * 100, bytes(range(256)), "x" * 70_000, b"y" * 200_000]
    items += [f"item {n}" if n % 3 else n.to_bytes(4, "big") for n in range(500)]
    bench.nursery.start_soon(writer.send, *items)
    async with soon("the arrival of 506 items", 5):
        got = await reader.take(len(items))
    for n, (sent, came) in enumerate(zip(items, got, strict=False)):
        expect(sent == came, f"item {n} was sent as {_short(sent)} and arrived as {_short(came)}")
    expect(len(got) == len(items), f"of {len(items)} items {len(got)} arrived")
    await writer.close()
    seen = await bench.last_seen(reader, "the end of the stream")
    expect(not seen.messages, f"behind the last item the reader saw {seen}")


async def C3_1_a_message_sent_in_fragments_is_one_item(bench: Bench) -> None:
    writer, reader = await bench.pair()
    await writer.say(TEXT, "é".encode()[:1], fin=False)
    await bench.round_trip(writer)
    await writer.say(CONTINUATION, "é".encode()[1:] + b"!")
    await writer.send(b"next")
    async with soon("the arrival of a message in two fragments"):
        got = await reader.take(2)
    expect(got == ["é!", b"next"], f"a message in two fragments, and one behind it, arrived as {got}")


async def C3_1_large_messages_are_cut_for_pythons_websockets_alone(bench: Bench) -> None:
    writer_ref, reader_ref = await (await bench.session()).create_channel()
    writer = await bench.attach(writer_ref)
    reader = await bench.attach(reader_ref, {"User-Agent": "Python/3.11 websockets/15.0"})
    large = bytes(range(256)) * 10_000
    bench.nursery.start_soon(writer.send, large, b"end")
    pieces: list[Message] = []
    async with soon("the arrival of 2.5 MB", 5):
        # How an engine cuts the message is its own choice, so only the last item marks the end.
        while pieces[-1:] != [b"end"]:
            came = await reader.take(1)
            expect(came, "the stream ended at a message of 2.5 MB")
            pieces += came
    largest = max(map(len, pieces))
    expect(largest <= MIB, f"the reader got a message of {largest} bytes, at which its client ends silently")
    expect(b"".join(p for p in pieces[:-1] if isinstance(p, bytes)) == large, "the pieces are not the message")


async def C3_2_a_full_pipe_stops_the_writer_and_nothing_is_lost(bench: Bench) -> None:
    writer_ref, reader_ref = await (await bench.session()).create_channel()
    writer = await bench.attach(writer_ref)
    sent = 0
    total = 1024
    piece = b"z" * (64 * 1024 - 4)
    moved = trio.current_time()

    async def flood() -> None:
        nonlocal sent, moved
        for n in range(total):
            await writer.send_raw(as_frame(n.to_bytes(4, "big") + piece))
            sent += 1
            moved = trio.current_time()

    bench.nursery.start_soon(flood)
    while sent < total and trio.current_time() < moved + QUIET:  # noqa: ASYNC110 (nothing tells that it waits)
        await trio.sleep(QUIET / 5)
    # Sockets have room of their own on both sides, some 10 MB at most.
    expect(sent * 65_536 <= 24 * MIB, f"without a reader the engine took {sent * 65_536 // MIB} MiB from a writer")
    reader = await bench.attach(reader_ref)
    async with soon("the arrival of 64 MiB", 10):
        for n in range(total):
            came = await reader.next_message()
            expect(isinstance(came, bytes) and came[:4] == n.to_bytes(4, "big"), f"item {n} of the flood did not come")


async def C3_3_a_slow_reader_is_not_dropped(bench: Bench) -> None:
    writer, reader = await bench.pair()
    items = [b"%8d" % n * 1000 for n in range(300)]

    async def write() -> None:
        await writer.send(*items)
        await writer.close()

    bench.nursery.start_soon(write)
    await trio.sleep(1)
    seen = await bench.last_seen(reader, "the end of a stream that was read after a second", 5)
    expect(list(seen.messages) == items and seen.code == 1000, f"a reader that waited for a second saw {seen}")


async def C3_3_the_engine_sends_no_pings_to_the_ends(bench: Bench) -> None:
    writer, reader = await bench.pair()
    for name, end in (("writer", writer), ("reader", reader)):
        with trio.move_on_after(0.75):
            raise Broken(f"an idle {name} was sent {await end.next_frame()}")


async def C3_3_a_writer_is_sent_nothing_before_its_close(bench: Bench) -> None:
    writer, reader = await bench.pair()
    await writer.send(*(f"item {n}" for n in range(50)))
    await reader.take(50)
    with trio.move_on_after(QUIET):
        raise Broken(f"a writer was sent {await writer.next_frame()}")
    await writer.close()
    seen = await bench.last_seen(writer, "the answer to a writer's Close")
    expect(not seen.messages and not seen.others and seen.close, f"a writer that closed saw {seen}")


async def C3_4_a_readers_pings_are_answered(bench: Bench) -> None:
    _, reader_ref = await (await bench.session()).create_channel()
    reader = await bench.attach(reader_ref)
    await _pinged(reader, "a reader's ping, before the writer came,")
    _, reader = await bench.pair()
    await _pinged(reader, "a reader's ping, while the writer was idle,")


async def C3_4_a_readers_pings_are_answered_within_a_writers_frame(bench: Bench) -> None:
    writer, reader = await bench.pair()
    await writer.send_raw(frame_head(BINARY, 500_000, mask=_MASK) + bytes(1000))
    await _pinged(reader, "a reader's ping, while a frame was half there,")


async def C3_4_a_writers_pings_are_answered(bench: Bench) -> None:
    writer, _ = await bench.pair()
    await _pinged(writer, "a writer's ping")


async def C3_4_a_frame_that_is_not_wholly_here_is_passed_on(bench: Bench) -> None:
    writer, reader = await bench.pair()
    body = bytes(500_000)
    await writer.send_raw(frame_head(BINARY, len(body), mask=_MASK) + body[:100_000])
    async with soon("the passing on of a frame of which a fifth was there"):
        first = await reader.next_frame()
    expect(first is not None and first.opcode == BINARY and not first.fin, f"of a frame half there came {first}")
    assert first is not None
    whole = frame(BINARY, body, mask=_MASK)
    bench.nursery.start_soon(writer.send_raw, whole[len(whole) - 400_000 :])
    size, last = len(first.payload), first
    async with soon("the rest of the frame"):
        # An engine may pass the rest on in any number of fragments.
        while not last.fin:
            came = await reader.next_frame()
            expect(came is not None and came.opcode == CONTINUATION, f"within a message came {came}")
            assert came is not None
            size, last = size + len(came.payload), came
    expect(size == len(body), f"a message of {len(body)} bytes arrived with {size}")


async def _abort(writer: Peer) -> None:
    await writer.close(4001, "abort")


async def C3_5_what_happens_at_one_end_is_seen_at_the_other(bench: Bench) -> None:
    limit = 0.5
    # An engine has a path of its own for each way to end, and any of them may lag.
    for what, act in (("a close", Peer.close), ("an abort", _abort), ("a reset", Peer.reset)):
        writer, reader = await bench.pair()
        await act(writer)
        await bench.last_seen(reader, f"the effect of {what} of the writer on the reader", limit, answer=False)
    for what, act in (("a close", Peer.close), ("a reset", Peer.reset)):
        writer, reader = await bench.pair()
        await act(reader)
        await bench.last_seen(writer, f"the effect of {what} of the reader on the writer", limit, answer=False)


async def C3_6_who_breaks_a_rule_is_told_which(bench: Bench) -> None:
    bystanders = await bench.pair()
    # Each broken rule ends its channel, so each needs a new one.
    for what, wrong, code in _WRONG:
        writer, reader = await bench.pair()
        await writer.send_raw(wrong)
        told = await bench.last_seen(writer, f"the Close for a writer that sent {what}", answer=False)
        expect(told.code == code, f"a writer that sent {what} saw {told}, where {code} was due")
        seen = await bench.last_seen(reader, f"the end for the reader of one that sent {what}")
        expect(not seen.looks_complete, f"the reader of a writer that sent {what} saw {seen}")
    await bystanders[0].send("undisturbed")
    async with soon("an item of an undisturbed channel"):
        expect(await bystanders[1].take(1) == ["undisturbed"], "another channel was disturbed")


_WRONG: Final = (
    ("a frame without a mask", frame(BINARY, b"naked"), 1002),
    ("a reserved bit", b"\xf2\x80" + _MASK, 1002),
    ("a reserved opcode", frame(11, b"", mask=_MASK), 1002),
    ("a continuation of nothing", frame(CONTINUATION, b"?", mask=_MASK), 1002),
    ("a ping of 126 bytes", frame(PING, bytes(126), mask=_MASK), 1002),
    ("a text that is not UTF-8", frame(TEXT, b"\xff\xfe", mask=_MASK), 1007),
    ("a message of 2 TiB", frame_head(BINARY, 2 << 40, mask=_MASK) + bytes(100), 1009),
)


async def _pinged(end: Peer, what: str) -> None:
    async with soon(f"the pong to {what}"):
        await end.say(PING, b"are you there")
        came = await end.next_frame()
        # Data that was sent before may arrive ahead of the pong.
        while came is not None and came.opcode in (CONTINUATION, TEXT, BINARY):
            came = await end.next_frame()
    expect(came == Frame(PONG, b"are you there"), f"{what} was answered with {came}")


def _short(message: Message) -> str:
    return repr(message) if len(message) < 30 else f"{type(message).__name__} of {len(message)}"


CHECKS = (
    C3_1_items_arrive_in_order_once_and_unchanged,
    C3_1_a_message_sent_in_fragments_is_one_item,
    C3_1_large_messages_are_cut_for_pythons_websockets_alone,
    C3_2_a_full_pipe_stops_the_writer_and_nothing_is_lost,
    C3_3_a_slow_reader_is_not_dropped,
    C3_3_the_engine_sends_no_pings_to_the_ends,
    C3_3_a_writer_is_sent_nothing_before_its_close,
    C3_4_a_readers_pings_are_answered,
    C3_4_a_readers_pings_are_answered_within_a_writers_frame,
    C3_4_a_writers_pings_are_answered,
    C3_4_a_frame_that_is_not_wholly_here_is_passed_on,
    C3_5_what_happens_at_one_end_is_seen_at_the_other,
    C3_6_who_breaks_a_rule_is_told_which,
)
