"""The same bytes, read by us and read by plain trio-websocket: the same messages, the same pongs, the same end.

Our two ways with data frames (whole messages for a session, runs of frames for a channel) are compared with the
library's own `get_message`, which the product does not use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed, wrap_server_stream

from iii_trio.errors import FrameError
from iii_trio.transport.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    BatchScanner,
    CloseFrame,
    MessageScanner,
    close_payload,
    frame,
)
from iii_trio.transport.http1 import read_head
from iii_trio.transport.websocket import Lost, ReadBuffer, WebSocket

MASK: Final = b"\xa1\xb2\xc3\xd4"
MAX: Final = 1000
BUFFER: Final = ReadBuffer()
REQUEST: Final = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
Message = str | bytes


@attrs.frozen
class Seen:
    """What came of a conversation: messages in order, the code that tells how it ended; what was said to the client."""

    messages: list[Message]
    told: list[int]
    pongs: list[bytes]
    close: int | None


# --- three ways to read


async def plainly(server: trio.abc.Stream, got: list[Message], told: list[int]) -> None:
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, server, max_message_size=MAX)
        connection = await request.accept()
        try:
            while True:
                got.append(await connection.get_message())
        except ConnectionClosed as error:
            assert error.reason is not None
            told.append(error.reason.code)
        with trio.move_on_after(1):
            await connection.aclose()
        await server.aclose()
        nursery.cancel_scope.cancel()


class _Handler:
    def __init__(self, got: list[Message], told: list[int]) -> None:
        self.got = got
        self.told = told

    def on_open(self, websocket: WebSocket) -> None:
        self.websocket = websocket

    async def wait_ready(self) -> None:
        pass

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        self.told.append(1006 if isinstance(how, Lost) else how.code)

    def take(self, messages: list[tuple[int, bytes | bytearray]]) -> None:
        if not self.websocket.discarding:
            self.got += [bytes(data).decode() if kind == TEXT else bytes(data) for kind, data in messages]


class AsSession(_Handler):
    """Whole messages."""

    def __init__(self, got: list[Message], told: list[int]) -> None:
        super().__init__(got, told)
        self._scanner = MessageScanner(MAX, masked=True)

    @property
    def unparsed(self) -> bytes:
        return self._scanner.tail

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        messages, controls = self._scanner.scan(data)
        self.take(messages)
        return controls, self._scanner.error or self._scanner.closed


class AsChannel(_Handler):
    """Runs of frames, as they would go to a reader, read as a reader would."""

    def __init__(self, got: list[Message], told: list[int]) -> None:
        super().__init__(got, told)
        self._scanner = BatchScanner(MAX)
        self._reader = MessageScanner(MAX, masked=False)
        self._unread = b""

    @property
    def unparsed(self) -> bytes:
        return self._scanner.tail

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        batch, controls = self._scanner.scan(data)
        if batch is not None:
            messages, _ = self._reader.scan(memoryview(self._reader.tail + b"".join(batch.parts)))
            assert self._reader.error is None
            self.take(messages)
        return controls, self._scanner.error or self._scanner.closed


Way = Callable[[trio.abc.Stream, list[Message], list[int]], Awaitable[None]]


def ours(handler: Callable[[list[Message], list[int]], _Handler]) -> Way:
    async def read(server: trio.abc.Stream, got: list[Message], told: list[int]) -> None:
        head = await read_head(server, 10_000)
        assert head is not None
        await WebSocket(server, handler(got, told), buffer=BUFFER).serve(head)  # type: ignore[arg-type]

    return read


def seen_by(read: Way, pieces: list[bytes]) -> Seen:
    """What one way of reading makes of these bytes, which come in these pieces and end with the stream."""
    got: list[Message] = []
    told: list[int] = []
    said = bytearray()

    async def main() -> None:
        client, server = trio.testing.memory_stream_pair()
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, server, got, told)
                await client.send_all(REQUEST)
                while b"\r\n\r\n" not in said:
                    said.extend(await client.receive_some())
                for piece in pieces:
                    await trio.testing.wait_all_tasks_blocked()
                    try:
                        await client.send_all(piece)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        break
                await trio.testing.wait_all_tasks_blocked()
                try:
                    await client.send_eof()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                async for data in client:
                    said.extend(data)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return _what_was_said(bytes(said).partition(b"\r\n\r\n")[2], got, told)


def _what_was_said(frames: bytes, got: list[Message], told: list[int]) -> Seen:
    pongs: list[bytes] = []
    close: int | None = None
    while frames:
        opcode, size = frames[0] & 15, frames[1]
        payload, frames = frames[2 : 2 + size], frames[2 + size :]
        if opcode == PONG:
            pongs.append(payload)
        else:
            assert opcode == CLOSE and close is None, opcode
            close = int.from_bytes(payload[:2], "big") if payload else 1005
    return Seen(got, told, pongs, close)


# --- conversations


def masked(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    return frame(opcode, payload, fin=fin, mask=MASK)


pings = st.lists(st.binary(max_size=125).map(lambda data: masked(PING, data)), max_size=2).map(b"".join)


@st.composite
def whole_messages(draw: st.DrawFn) -> bytes:
    """A valid message: in one frame or several, with pings between them."""
    if draw(st.booleans()):
        opcode, data = TEXT, draw(st.text(st.characters(codec="utf-8"), max_size=60)).encode()
    else:
        opcode, data = BINARY, draw(st.binary(max_size=60) | st.sampled_from([b"x" * 125, b"x" * 126, b"x" * MAX]))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    said = draw(pings)
    for n, (a, b) in enumerate(zip([0, *cuts], [*cuts, len(data)], strict=True)):
        said += masked(CONTINUATION if n else opcode, data[a:b], fin=n == len(cuts)) + draw(pings)
    return said


closes = st.one_of(
    st.just(masked(CLOSE, b"")),
    st.builds(
        lambda code, reason: masked(CLOSE, close_payload(code, reason)),
        st.sampled_from([1000, 1001, 1003, 1007, 1011, 1012, 1013, 3000, 4001, 4999]),
        st.text(st.characters(codec="utf-8"), max_size=20),
    ),
)
BROKEN: Final = [
    masked(3, b""),
    masked(11, b""),
    masked(CONTINUATION, b"of nothing"),
    masked(TEXT, b"\xff"),
    masked(TEXT, b"\xc3"),
    masked(TEXT, b"\xed\xa0\x80"),
    masked(TEXT, b"\xc3", fin=False) + masked(CONTINUATION, b"\x28"),
    masked(TEXT, b"a", fin=False) + masked(TEXT, b"b"),
    masked(BINARY, b"x" * (MAX + 1)),
    masked(BINARY, b"x" * MAX, fin=False) + masked(CONTINUATION, b"x"),
    masked(PING, b"x" * 126),
    masked(PING, b"x", fin=False),
    frame(TEXT, b"no mask"),
    b"\xc1" + masked(TEXT, b"")[1:],
    b"\x82\xfe\x00\x05" + MASK + b"12345",
    b"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x7e" + MASK + b"x" * 126,
    masked(CLOSE, b"\x03"),
    masked(CLOSE, b"\x03\xed"),
    masked(CLOSE, b"\x03\xee"),
    masked(CLOSE, b"\x00\x00"),
    masked(CLOSE, b"\x07\xd0"),
    masked(CLOSE, b"\x03\xe8\xff"),
    masked(CLOSE, b"\x03\xe8" + b"x" * 124),
]


@st.composite
def in_pieces(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> list[bytes]:
    whole = draw(data)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) if a < b]


valid = st.lists(whole_messages(), max_size=5).map(b"".join)


@settings(max_examples=60, deadline=None)
@given(in_pieces(st.builds(lambda talk, close: talk + close, valid, closes | st.just(b""))))
def test_a_valid_conversation_means_the_same_to_all(pieces: list[bytes]) -> None:
    plain = seen_by(plainly, pieces)
    for handler in (AsSession, AsChannel):
        seen = seen_by(ours(handler), pieces)
        if seen.close is not None:  # a ping that comes together with a Close need not be answered
            plain = attrs.evolve(plain, pongs=plain.pongs[: len(seen.pongs)])
        assert seen == plain


@settings(max_examples=150, deadline=None)
@given(
    in_pieces(
        st.builds(
            # Behind a message that is too large the library goes on to judge what follows; we are deaf.
            lambda talk, broken, more: talk + broken + (more if len(broken) < MAX else b""),
            valid,
            st.sampled_from(BROKEN),
            st.binary(max_size=20),
        )
    )
)
@example([BROKEN[0]])
def test_a_broken_conversation_means_the_same_up_to_where_it_breaks(pieces: list[bytes]) -> None:
    plain = seen_by(plainly, pieces)
    for handler in (AsSession, AsChannel):
        seen = seen_by(ours(handler), pieces)
        assert (seen.messages, seen.told) == (plain.messages, plain.told)
        assert [seen.close] == seen.told, "who broke a rule is told which, where the library only hangs up"
        assert plain.pongs[: len(seen.pongs)] == seen.pongs


@settings(max_examples=40, deadline=None)
@given(valid, st.data())
def test_a_conversation_that_is_cut_off_means_the_same_to_all(talk: bytes, data: st.DataObject) -> None:
    pieces = data.draw(in_pieces(st.just(talk[: data.draw(st.integers(0, len(talk)))])))
    plain = seen_by(plainly, pieces)
    assert seen_by(ours(AsSession), pieces) == plain
    assert seen_by(ours(AsChannel), pieces) == plain
