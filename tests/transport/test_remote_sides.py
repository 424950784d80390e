"""A worker's link and channel ends over a socket, as the handlers of a connection: bounds, frames and reasons, exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from iii_trio.errors import ChannelBroken, FrameError
from iii_trio.transport.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    TEXT,
    CloseFrame,
    MessageScanner,
    ReservedOpcode,
    close_payload,
    frame,
)
from iii_trio.transport.link import EndReason
from iii_trio.transport.remote_ends import RemoteReader, RemoteWriter
from iii_trio.transport.remote_link import RemoteLink
from iii_trio.transport.websocket import Lost
from iii_trio.wire import Close, Outcome

MASK = b"\1\2\3\4"


@attrs.define(eq=False)
class FakeOutbox:
    """An outbox whose bytes stay until `take`."""

    put_frames: list[bytes] = attrs.field(factory=list)
    waiting_bytes: int = 0
    calls: list[str] = attrs.field(factory=list)
    emptied: trio.Event = attrs.field(factory=trio.Event)

    def put(self, data: Any) -> None:
        self.put_frames.append(bytes(data) if not isinstance(data, list) else b"".join(data))
        self.waiting_bytes += len(data)

    def flush(self) -> None:
        self.calls.append("flush")

    def gather(self) -> None:
        self.calls.append("gather")

    def drop_unbegun(self) -> None:
        self.calls.append("drop")

    async def wait_empty(self) -> None:
        await self.emptied.wait()

    def take(self) -> None:
        self.waiting_bytes = 0
        self.emptied.set()


@attrs.define(eq=False)
class FakeWebSocket:
    """The connection of a handler."""

    outbox: FakeOutbox = attrs.field(factory=FakeOutbox)
    talking: bool = True
    closes: list[tuple[Any, ...]] = attrs.field(factory=list)

    def close(self, code: int, reason: str = "", *, timeout: float | None = None) -> None:
        self.closes.append((int(code), reason, timeout))

    def lost(self, cause: str, *, by_fin: bool = False) -> None:
        self.closes.append(("lost", cause))


@attrs.define(eq=False)
class Brackets:
    """Notes the reads of a link."""

    seen: list[str]

    def begin(self) -> None:
        self.seen.append("begin")

    def end(self) -> None:
        self.seen.append("end")


def messages(frames: list[bytes]) -> list[tuple[int, bytes]]:
    """Return the messages in a client's frames."""
    scanner = MessageScanner(1 << 30, masked=True)
    return [(kind, bytes(payload)) for kind, payload in scanner.scan(memoryview(b"".join(frames)))[0]]


def opened(handler: Any) -> FakeWebSocket:
    websocket = FakeWebSocket()
    handler.on_open(websocket)
    return websocket


async def waits(run: Callable[[], Any]) -> bool:
    """Whether a coroutine function has not returned once everything else waits."""
    with trio.move_on_after(math.inf) as scope:
        async with trio.open_nursery() as nursery:
            done = False

            async def body() -> None:
                nonlocal done
                await run()
                done = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(body)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    return not done


MIB = 1024 * 1024


async def test_a_link_has_room_up_to_a_mebibyte_that_was_not_taken() -> None:
    link = RemoteLink(lambda: MASK)
    assert link.has_room and not await waits(link.wait_room), "there is no connection yet"
    outbox = opened(link).outbox
    for waiting, room in [(0, True), (MIB, True), (MIB + 1, False)]:
        outbox.waiting_bytes = waiting
        assert link.has_room is room and await waits(link.wait_room) is not room
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.wait_room)
        await trio.testing.wait_all_tasks_blocked()
        outbox.take()


async def test_a_link_reads_on_while_it_keeps_no_more_than_a_mebibyte() -> None:
    link = RemoteLink(lambda: MASK)
    websocket = opened(link)
    link.feed(memoryview(frame(TEXT, bytes(MIB))))
    assert not await waits(link.wait_ready)
    link.feed(memoryview(frame(TEXT, b"x")))
    assert await waits(link.wait_ready)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.wait_ready)
        await trio.testing.wait_all_tasks_blocked()
        assert await link.receive() == bytes(MIB)
    # The counted bytes are exactly those that wait.
    link.feed(memoryview(frame(TEXT, bytes(MIB - 1))))
    assert not await waits(link.wait_ready)
    link.feed(memoryview(frame(TEXT, b"y")))
    assert await waits(link.wait_ready)
    # A connection that ends waits for nobody.
    websocket.talking = False
    assert not await waits(link.wait_ready)


async def test_a_listener_gets_what_waited_and_what_comes_in_order() -> None:
    link = RemoteLink(lambda: MASK)
    opened(link)
    got: list[bytes] = []
    link.feed(memoryview(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(TEXT, bytes(MIB))))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.listen, got.append)
        await trio.testing.wait_all_tasks_blocked()
        assert got == [b"1", b"2", bytes(MIB)] and not await waits(link.wait_ready)
        link.feed(memoryview(frame(TEXT, b"3")))
        assert got[3:] == [b"3"] and not await waits(link.wait_ready)
        link.on_close(Lost("gone"))
    assert link.ended == EndReason(None, "gone") and await link.receive() is None
    await link.listen(got.append)
    assert got[4:] == []


def test_a_link_sends_whole_masked_messages_while_it_can() -> None:
    link = RemoteLink(lambda: MASK)
    link.send(b"too early")
    link.flush_output()
    websocket = opened(link)
    link.send(b"hello")
    assert websocket.outbox.put_frames == [frame(TEXT, b"hello", mask=MASK)] and websocket.outbox.calls == ["flush"]
    websocket.talking = False
    link.send(b"too late")
    assert len(websocket.outbox.put_frames) == 1


def test_held_output_is_written_together() -> None:
    link = RemoteLink(lambda: MASK)
    websocket = opened(link)
    link.hold_output()
    link.send(b"one")
    link.send(b"two")
    assert len(websocket.outbox.put_frames) == 2 and websocket.outbox.calls == []
    link.flush_output()
    link.send(b"three")
    assert websocket.outbox.calls == ["flush", "flush"] and len(websocket.outbox.put_frames) == 3


async def test_a_link_brackets_what_one_read_brought() -> None:
    link = RemoteLink(lambda: MASK)
    opened(link)
    seen: list[str] = []
    link.bracket(Brackets(seen))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.listen, lambda message: seen.append(message.decode()))
        await trio.testing.wait_all_tasks_blocked()
        link.feed(memoryview(frame(TEXT, b"1") + frame(TEXT, b"2")))
        link.feed(memoryview(frame(TEXT, b"3")[:1]))  # no message yet, so nothing to be bracketed
        link.feed(memoryview(frame(TEXT, b"3")))
        link.on_close(Lost("gone"))
    assert seen == ["begin", "1", "2", "end", "begin", "3", "end"]


@pytest.mark.parametrize(
    ("how", "reason", "code"),
    [
        (CloseFrame(1000, ""), "the engine closed with 1000", "1000"),
        (CloseFrame(1012, "restarting"), "the engine closed with 1012 (restarting)", "1012"),
        (FrameError(1002, "a reserved bit is set"), "the engine broke the protocol: a reserved bit is set", None),
        (Lost("reset"), "reset", None),
    ],
)
def test_a_link_says_why_it_ended(how: Any, reason: str, code: str | None) -> None:
    link = RemoteLink(lambda: MASK)
    assert link.ended is None
    websocket = opened(link)
    link.on_close(how)
    assert link.ended == EndReason(None, reason, code)
    link.close("later")
    assert websocket.closes == []


@pytest.mark.parametrize(("given", "told"), [("bye", "bye"), ("", "it closed")])
def test_a_link_that_was_closed_here_says_so_whatever_came_then(given: str, told: str) -> None:
    link = RemoteLink(lambda: MASK)
    link.close("too early")
    websocket = opened(link)
    link.close(given)
    assert websocket.closes == [(1000, given, None)]
    link.on_close(Lost("reset"))
    assert link.ended == EndReason(None, told)


def test_what_comes_behind_broken_frames_is_told() -> None:
    for make in (
        lambda: RemoteLink(lambda: MASK),
        lambda: RemoteWriter(lambda: MASK),
        lambda: RemoteReader(knows_our_codes=True),
    ):
        handler: Any = make()
        opened(handler)
        controls, how = handler.feed(memoryview(frame(9, b"p") + frame(CLOSE, close_payload(1001, "x"))))
        assert controls.startswith(frame(9, b"p")) and how == CloseFrame(1001, "x")
        handler = make()
        opened(handler)
        assert handler.feed(memoryview(b"\x82"))[1] is None and handler.unparsed == b"\x82"
        assert isinstance(handler.feed(memoryview(b"\xf2\0"))[1], FrameError)


BOUND = 256 * 1024


async def test_a_writer_waits_from_256_KiB_on_that_were_not_taken() -> None:
    writer = RemoteWriter(lambda: MASK)
    outbox = opened(writer).outbox
    for waiting, room in [(0, True), (BOUND - 1, True), (BOUND, False)]:
        outbox.waiting_bytes = waiting
        assert await waits(writer.wait_room) is not room
    # The end of the channel lets it go.
    with pytest.raises(ExceptionGroup) as failed:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.put, b"x")
            await trio.testing.wait_all_tasks_blocked()
            writer.told(EndReason(Outcome.READER_LOST, "it crashed", "c"))
    error = failed.value.exceptions[0]
    assert isinstance(error, ChannelBroken) and (error.outcome, error.reason, error.code) == (
        "reader_lost",
        "it crashed",
        "c",
    )
    assert outbox.put_frames == []


@pytest.mark.parametrize(
    ("size", "call", "pieces"),
    [
        (0, "gather", [0]),
        (4096, "gather", [4096]),
        (4097, "flush", [4097]),
        (BOUND, "flush", [BOUND]),
        (BOUND + 1, "flush", [BOUND, 1]),
        (2 * BOUND, "flush", [BOUND, BOUND]),
        (2 * BOUND + 5, "flush", [BOUND, BOUND, 5]),
    ],
)
@pytest.mark.parametrize("kind", [TEXT, BINARY])
async def test_a_large_item_goes_in_pieces_of_256_KiB_and_a_small_one_is_gathered(
    kind: int, size: int, call: str, pieces: list[int]
) -> None:
    writer = RemoteWriter(lambda: MASK)
    outbox = opened(writer).outbox
    item = bytes(index % 127 for index in range(size))
    with trio.testing.assert_checkpoints():
        await writer.put(item.decode() if kind == TEXT else item)
    assert messages(outbox.put_frames) == [(kind, item)] and outbox.calls == [call]
    opcodes = [data[0] & 15 for data in outbox.put_frames]
    assert opcodes == [kind, *[CONTINUATION] * (len(pieces) - 1)]
    assert [len(messages([b"%c" % (0x80 | kind) + data[1:]])[0][1]) for data in outbox.put_frames] == pieces


async def test_a_writer_that_closed_or_aborted_takes_nothing_more() -> None:
    writer = RemoteWriter(lambda: MASK)
    websocket = opened(writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.close)
        await trio.testing.wait_all_tasks_blocked()
        assert websocket.closes == [(1000, "", math.inf)]
        with pytest.raises(trio.ClosedResourceError):
            await writer.put(b"x")
        writer.on_close(CloseFrame(1000, ""))
    assert writer.ended == EndReason(Outcome.COMPLETED)
    with pytest.raises(trio.ClosedResourceError):
        await writer.put(b"x")
    writer.abort("too late")
    assert writer.ended == EndReason(Outcome.COMPLETED) and len(websocket.closes) == 1
    writer = RemoteWriter(lambda: MASK)
    websocket = opened(writer)
    websocket.talking = False
    with pytest.raises(trio.ClosedResourceError):
        await writer.wait_room()


async def test_an_abort_drops_what_waits_and_tells_the_engine() -> None:
    writer = RemoteWriter(lambda: MASK)
    websocket = opened(writer)
    writer.abort("why", "my_code")
    writer.abort("again")
    assert writer.ended == EndReason(Outcome.ABORTED, "why", "my_code") == await writer.wait_ended()
    assert websocket.outbox.calls == ["drop"]
    assert [(code, timeout) for code, _, timeout in websocket.closes] == [(int(Close.ABORTED), None)]
    assert "why" in websocket.closes[0][1] and "my_code" in websocket.closes[0][1]


async def test_a_close_that_is_cancelled_is_an_abort_by_a_cut() -> None:
    writer = RemoteWriter(lambda: MASK)
    websocket = opened(writer)
    assert await waits(writer.close)
    reason = "the writer was cancelled while closing"
    assert websocket.closes[1:] == [("lost", reason)] and writer.ended == EndReason(Outcome.ABORTED, reason)


async def test_a_close_that_the_engine_answers_otherwise_raises() -> None:
    writer = RemoteWriter(lambda: MASK)
    opened(writer)
    with pytest.raises(ExceptionGroup) as failed:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.close)
            await trio.testing.wait_all_tasks_blocked()
            writer.on_close(Lost("reset"))
    assert isinstance(failed.value.exceptions[0], ChannelBroken)


@pytest.mark.parametrize(
    ("how", "closing", "end"),
    [
        (CloseFrame(1000, ""), True, (Outcome.COMPLETED, "")),
        (CloseFrame(1000, ""), False, (Outcome.READER_LOST, "the engine closed with 1000")),
        (CloseFrame(1001, "bye"), True, (Outcome.READER_LOST, "the engine closed with 1001 (bye)")),
        (CloseFrame(int(Close.READER_CANCELLED), "enough"), False, (Outcome.READER_CANCELLED, "enough")),
        (CloseFrame(int(Close.READER_CANCELLED), "enough"), True, (Outcome.READER_CANCELLED, "enough")),
        (FrameError(1002, "odd"), False, (Outcome.WRITER_LOST, "the engine broke the protocol: odd")),
        (Lost("reset"), True, (Outcome.WRITER_LOST, "the connection to the engine is gone: reset")),
    ],
)
async def test_how_a_writer_ended(how: Any, closing: bool, end: tuple[Outcome, str]) -> None:
    writer = RemoteWriter(lambda: MASK)
    opened(writer)
    writer._closing = closing
    assert writer.ended is None
    writer.on_close(how)
    assert writer.ended is not None and (writer.ended.outcome, writer.ended.reason) == end
    writer.on_close(Lost("again"))
    assert (writer.ended.outcome, writer.ended.reason) == end, "the first word counts"
    assert not await waits(writer.wait_ready)


@pytest.mark.parametrize(
    ("how", "ours", "within", "end"),
    [
        (CloseFrame(1000, ""), True, False, (Outcome.COMPLETED, "")),
        (CloseFrame(1000, ""), False, False, (Outcome.COMPLETED, "")),
        (CloseFrame(1005, ""), False, False, (Outcome.COMPLETED, "")),
        (CloseFrame(1005, ""), True, False, (Outcome.ABORTED, "the engine closed with 1005, which is not a clean end")),
        (CloseFrame(1000, ""), True, True, (Outcome.ABORTED, "the engine closed with 1000, which is not a clean end")),
        (CloseFrame(1011, "oops"), True, False, (Outcome.READER_LOST, "the engine closed with 1011 (oops)")),
        (CloseFrame(int(Close.WRITER_LOST), "gone"), True, False, (Outcome.WRITER_LOST, "gone")),
        (ReservedOpcode(3), True, False, (Outcome.ABORTED, "the stream was cut by the engine")),
        (FrameError(1002, "odd"), True, False, (Outcome.READER_LOST, "the engine broke the protocol: odd")),
        (Lost("reset"), True, False, (Outcome.READER_LOST, "the connection to the engine is gone: reset")),
    ],
)
async def test_how_a_reader_ended(how: Any, ours: bool, within: bool, end: tuple[Outcome, str]) -> None:
    reader = RemoteReader(knows_our_codes=ours)
    opened(reader)
    reader.feed(memoryview(frame(TEXT, b"one") + frame(BINARY, b"part", fin=not within)))
    reader.on_close(how)
    assert reader.ended is not None and (reader.ended.outcome, reader.ended.reason) == end
    # Only a clean end leaves what came before it.
    if end[0] is Outcome.COMPLETED:
        assert [await reader.take(), await reader.take()] == ["one", b"part"]
        with pytest.raises(trio.EndOfChannel):
            await reader.take()
    else:
        with pytest.raises(ChannelBroken, match=r"oops|gone|cut|odd|clean|reset"):
            await reader.take()


async def test_a_reader_reads_on_when_all_its_items_were_taken() -> None:
    reader = RemoteReader(knows_our_codes=True)
    websocket = opened(reader)
    assert not await waits(reader.wait_ready) and await waits(reader.take)
    reader.feed(memoryview(frame(TEXT, b"1") + frame(TEXT, b"2")))
    async with trio.open_nursery() as nursery:
        ready = trio.Event()

        async def wait() -> None:
            await reader.wait_ready()
            ready.set()

        nursery.start_soon(wait)
        with trio.testing.assert_checkpoints():
            assert await reader.take() == "1"
        await trio.testing.wait_all_tasks_blocked()
        assert not ready.is_set()
        assert await reader.take() == "2"
        await trio.testing.wait_all_tasks_blocked()
        assert ready.is_set()
    reader.feed(memoryview(frame(TEXT, b"3")))
    reader.cancel("enough", "c")
    reader.cancel("again")
    assert reader.ended == EndReason(Outcome.READER_CANCELLED, "enough", "c")
    assert [code for code, *_ in websocket.closes] == [int(Close.READER_CANCELLED)] and "enough" in websocket.closes[0][
        1
    ]
    assert not await waits(reader.wait_ready)
    with pytest.raises(ChannelBroken):
        await reader.take()


async def test_the_engines_word_of_a_clean_end_waits_for_the_close() -> None:
    for end in (RemoteWriter(lambda: MASK), RemoteReader(knows_our_codes=True)):
        opened(end)
        end.told(EndReason(Outcome.COMPLETED))
        assert end.ended is None
        end.told(EndReason(Outcome.ABORTED, "why"))
        assert end.ended == EndReason(Outcome.ABORTED, "why")
