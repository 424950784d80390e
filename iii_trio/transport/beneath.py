"""The stream that trio-websocket sees: the handshake, then control frames; data frames stay beneath.

Reading is done by trio-websocket's reader task, inside `receive_some`. All reads go into one buffer for all connections:
nothing waits between a read and the end of its scanning, and what cannot be understood yet (under 140 bytes) is the
scanner's `tail`. What is beneath goes to the connection's handler; a full handler (`wait_ready`) stops the reading.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import trio

from ..errors import FrameError, PeerError
from .frames import split_controls
from .http1 import Refusal, plain_acceptance, read_refusal
from .socket import Buffer, reads_now

if TYPE_CHECKING:
    from .websocket import WebSocket

READ_BYTES: Final = 262_144
"""The most that is read at once: the read-ahead of clause C3.2."""
_SLACK: Final = 256  # before what is read: room for the tail of what was read before
_LEAST_BYTES: Final = 4096
_HEAD_BYTES: Final = 16_384
_LATE_BYTES: Final = 16 * 1024 * 1024
"""What may still come behind our Close: more than is ever on its way. A peer that sends more does not read: a writer on
the Rust SDK, say, hears of the end by a reset, and by nothing else."""
_UNSENT_PONGS: Final = 16 * 1024  # bytes; a peer that pings and never reads gets no more pongs


async def end_writing(stream: trio.abc.Stream) -> bool:
    """Log the peer, behind all that was written, that nothing more comes; whether this stream can. Raises as `send_eof`.

    Under TLS it is the transport's end that tells: TLS itself cannot half close, and what is complete is said above it.
    """
    beneath = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if not isinstance(beneath, trio.abc.HalfCloseableStream):
        return False
    await beneath.send_eof()
    return True


def choose_read_size(n: int, messages: int, most: int) -> int:
    """How many bytes to read at once for some `most` messages, if they are as large as these, which came in `n` bytes.

    A connection has the loop to itself for one read and what it leads to: many small messages would make that long.
    """
    return min(max(n * most // messages, _LEAST_BYTES), READ_BYTES) if messages else READ_BYTES


@final
class ReadBuffer:
    """The one buffer that all connections of an engine, or of a worker, read into."""

    def __init__(self, size: int = READ_BYTES) -> None:
        self._view = memoryview(bytearray(_SLACK + size))
        self.free = self._view[_SLACK:]

    def filled(self, tail: bytes, n: int) -> memoryview:
        """The `n` bytes just read into `free`, with `tail` before them."""
        start = _SLACK - len(tail)
        self._view[start:_SLACK] = tail
        return self._view[start : _SLACK + n]


def read_at_once(stream: trio.abc.Stream, buffer: ReadBuffer) -> bytes:
    """Some of what is there to be read now; nothing if nothing is, or if this stream cannot tell without waiting.

    Raises trio.BrokenResourceError, trio.ClosedResourceError.
    """
    now = reads_now(stream)
    return bytes(buffer.free[: now.read_now(buffer.free[:_HEAD_BYTES]) or 0]) if now is not None else b""


@final
class Beneath(trio.abc.Stream):
    """What trio-websocket takes for its stream: the handshake, then control frames, one at a time."""

    refusal: Refusal | None = None
    problem: str = ""
    given_up: Callable[[], object]

    def __init__(self, websocket: WebSocket, head: bytes | None = None, rest: bytes = b"") -> None:
        self._websocket = websocket
        self._stream = websocket.stream
        self._now = reads_now(self._stream)
        self._head = head  # a server's: to be replayed
        self._awaits_answer = head is None
        self._request = b""  # a client's: what it asked
        self._rest = rest  # read beyond the head, and not scanned yet
        self._controls: deque[bytes] = deque()
        self._begun = trio.Event()
        self._deaf = False  # the peer's framing is broken: bytes mean nothing any more
        self._stopped = trio.Event()  # trio-websocket reads no more
        self._pongs = 0
        self._pongs_end = 0

    def begin(self) -> None:
        """The handler is there: frames may be read."""
        self._begun.set()

    @property
    def begun(self) -> bool:
        """Whether the handshake is done, and frames are read."""
        return self._begun.is_set()

    async def wait_stopped(self) -> None:
        """Wait until the library reads no more: then it has answered what it was given."""
        if not self._stopped.is_set():
            await self._stopped.wait()

    async def linger(self) -> None:
        """End our side, and read until the peer ends its own: closing with unread input would send a reset."""
        try:
            await end_writing(self._stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        if not self._at_end:
            await self.wait_stopped()
            if not self._at_end:
                await self._throw_away()

    _at_end = False
    _late = 0  # bytes that came behind our Close
    _drained: bool | None = None  # the last read took all there was: another would most likely find nothing

    # --- reading

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        if self._awaits_answer:
            self._awaits_answer = False
            return await self._receive_answer()
        if not self._begun.is_set():
            await self._begun.wait()
        websocket, handler = self._websocket, self._websocket.handler
        while True:
            while self._controls:
                control = self._controls.popleft()
                closing = control[0] & 15 == 8
                if closing or not websocket.discarding:  # a ping behind our own Close would crash the library
                    return control
            if websocket.closed:  # the Close was passed up, and has been answered
                return self._stop()
            if self._deaf:
                await self._throw_away()
                return self._stop()
            await handler.wait_ready()
            try:
                data = await self._read()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                websocket.lost(str(error))
                return self._stop(at_end=True)
            if data is None:
                websocket.lost("the connection ended without a Close", by_fin=True)
                return self._stop(at_end=True)
            controls, how = handler.feed(data)
            if controls:
                self._controls.extend(split_controls(controls))
            if how is not None:
                self._deaf = isinstance(how, FrameError)
                websocket.peer_ended(how)
            if websocket.discarding and self._too_late(len(data)):
                websocket.lost("it went on sending, long after it was told the end")
                return self._stop(at_end=True)

    async def _read(self) -> memoryview | None:
        """What comes next, behind the scanner's `tail`: good until somebody reads again. None at the end of the stream."""
        now, tail = self._now, self._websocket.handler.unparsed
        if self._rest:
            data, self._rest = self._rest, b""
            return memoryview(data)
        if now is None:
            received = await self._stream.receive_some(READ_BYTES)
            return memoryview(tail + received) if received else None
        buffer, wanted = self._websocket.buffer, self._websocket.read_size
        if self._drained:
            await now.wait_readable()
        elif self._drained is False:
            await trio.lowlevel.checkpoint()  # there is more, most likely: others have their turn first
        while (n := now.read_now(buffer.free[:wanted])) is None:
            await now.wait_readable()
        self._drained = n < wanted
        return buffer.filled(tail, n) if n else None

    async def _receive_answer(self) -> bytes:
        """A client's: the answer to its upgrade."""
        data = bytearray()
        try:
            while (end := data.find(b"\r\n\r\n")) < 0:
                more = await self._stream.receive_some(READ_BYTES)
                if not more or len(data) > READ_BYTES:
                    self.problem = "the connection ended before an answer to the upgrade"
                    break
                data += more
            else:
                if data.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 101\r")):
                    accepted = plain_acceptance(self._request, bytes(data[:end]))
                    self._rest = bytes(data[end + 4 :])
                    return accepted
                self.refusal = await read_refusal(self._stream, bytes(data))
        except (PeerError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.problem = str(error)
        self.given_up()
        return b""

    async def _throw_away(self) -> None:
        try:
            while (data := await self._stream.receive_some(READ_BYTES)) and not self._too_late(len(data)):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._at_end = True

    def _too_late(self, n: int) -> bool:
        """Whether so much has come behind our Close that nobody there can be reading."""
        self._late += n
        return self._late > _LATE_BYTES

    def _stop(self, *, at_end: bool = False) -> bytes:
        self._at_end = self._at_end or at_end
        self._stopped.set()
        self._websocket.leave()
        return b""

    # --- writing

    async def send_all(self, data: Buffer) -> None:
        """Never waits, and is no checkpoint: the library takes a lock around it, which is one."""
        websocket, outbox = self._websocket, self._websocket.outbox
        if outbox.over:
            raise trio.BrokenResourceError("the connection is over")
        if self.begun:
            opcode = data[0] & 15
            if opcode == 10 and not self._may_pong(len(data)):
                return
            outbox.put(data)
            if opcode == 8:
                websocket.close_is_put()
        else:
            self._request = bytes(data)
            outbox.put(data)
        outbox.flush()

    def _may_pong(self, n: int) -> bool:
        outbox = self._websocket.outbox
        if outbox.written_bytes >= self._pongs_end:
            self._pongs = 0
        if self._pongs > _UNSENT_PONGS:
            return False
        self._pongs += n
        self._pongs_end = outbox.written_bytes + outbox.waiting_bytes + n
        return True

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """The library believes that it owns the stream, and is done with it; we are not."""
        if not self.begun:
            self.given_up()
        self._stopped.set()
        self._websocket.leave()
