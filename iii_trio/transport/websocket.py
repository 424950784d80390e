"""One WebSocket connection, whose data frames stay ours and whose control frames trio-websocket sees.

Theory of operation. trio-websocket does the handshake, answers pings and speaks the closing handshake. It reads from, and
writes to, `_Beneath`: a stream that gives it the handshake and the control frames only. The data frames of each read go
to the connection's *occupant* (a worker's session, a channel's end), who decides by `settle` when to read on.

Reading is done by trio-websocket's reader task, inside `_Beneath.receive_some`. All reads go into one buffer for all
connections: nothing waits between a read and the end of its scanning, and what cannot be understood yet (under 140
bytes) is the scanner's `tail`. Writing is the outbox's. The connection owns its stream, its nursery and its deadlines,
because the library leaves streams open, and waits for ever, in several places.

The occupant is told of the end exactly once, by `done`, at the place in the order of bytes where it happened.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Final, Protocol, final

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream, wrap_server_stream

from ..errors import ConnectionFailed, FrameError, PeerError
from ..lifecycle import Lifecycle, Table
from .frames import CloseFrame, split_controls
from .http1 import Head, Refusal, read_refusal
from .outbox import Outbox
from .socket import Buffer, ReadsNow, Socket

READ_BYTES: Final = 262_144
"""The most that is read at once: the read-ahead of clause C3.2."""
_SLACK: Final = 256  # before what is read: room for the tail of what was read before
_TURNS: Final = 16  # reads in a row before other tasks get a turn
_UNSENT_PONGS: Final = 16 * 1024  # bytes; a peer that pings and never reads gets no more pongs


class Phase(Enum):
    """Where a connection is in its life."""

    SHAKING = auto()
    OPEN = auto()
    CLOSING = auto()  # our Close is on its way; what the peer still sends is thrown away
    CLOSED = auto()  # both have said Close
    CUT = auto()  # there will be no closing handshake


class Cue(Enum):
    """What happened to a connection."""

    SHAKEN = auto()
    WE_CLOSED = auto()
    PEER_CLOSED = auto()
    LOST = auto()


CONNECTION: Final[Table[Phase, Cue]] = {
    Phase.SHAKING: {Cue.SHAKEN: Phase.OPEN, Cue.WE_CLOSED: Phase.CUT, Cue.LOST: Phase.CUT},
    Phase.OPEN: {Cue.WE_CLOSED: Phase.CLOSING, Cue.PEER_CLOSED: Phase.CLOSED, Cue.LOST: Phase.CUT},
    Phase.CLOSING: {Cue.PEER_CLOSED: Phase.CLOSED, Cue.LOST: Phase.CUT},
    Phase.CLOSED: {},
    Phase.CUT: {},
}


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


@attrs.frozen
class Lost:
    """A connection that ended without a Close. `by_fin`: the peer ended it in order, by an end of its stream."""

    cause: str
    by_fin: bool = False


class Occupant(Protocol):
    """What a connection is for."""

    def opened(self, websocket: WebSocket) -> None:
        """The handshake is done; from here on frames may come and go."""

    @property
    def tail(self) -> bytes:
        """What was read before and could not be understood yet."""

    def scan(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        """Take the data frames; give back the control frames as they came, and how the peer's stream ended, if it did.

        Once the connection is `discarding`, data frames are thrown away.
        """

    async def settle(self) -> None:
        """Wait until there is room for more; not a checkpoint if there is, or once the connection is `discarding`."""

    def done(self, how: CloseFrame | FrameError | Lost) -> None:
        """The peer's stream is over: its Close, a rule it broke, or the cause of the loss. Called once."""


@attrs.frozen
class _Goodbye:
    """How we end a connection: with a Close, or with a farewell and FIN."""

    seconds: float
    code: int | None = None
    reason: str = ""
    farewell: bytes = b""


@final
class WebSocket:
    """One connection over `stream`, which it owns. `serve` or `converse` is its whole life; the rest never waits."""

    outbox: Outbox

    def __init__(
        self,
        stream: trio.abc.Stream,
        occupant: Occupant,
        *,
        buffer: ReadBuffer,
        handshake_seconds: float = 10.0,
        goodbye_seconds: float = 5.0,
        stalled_seconds: float = math.inf,
    ) -> None:
        self.stream = stream
        self.occupant = occupant
        self.buffer = buffer
        self.life = Lifecycle(CONNECTION, Phase.SHAKING)
        self._handshake_seconds = handshake_seconds
        self._goodbye_seconds = goodbye_seconds
        self._stalled_seconds = stalled_seconds
        self._goodbye: _Goodbye | None = None
        self._told = False  # the occupant, of the end
        self._attention = trio.Event()  # something to do for the main task: say goodbye, or leave

    # --- a connection's whole life

    async def serve(self, head: Head, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Accept the upgrade whose head was read already, and serve the connection until it is over.

        If cancelled: the connection is dropped; the occupant is told.
        """

        async def shake(nursery: trio.Nursery, beneath: _Beneath) -> WebSocketConnection | None:
            request = await wrap_server_stream(nursery, beneath, max_message_size=1, receive_buffer_size=READ_BYTES)
            try:
                return await request.accept(extra_headers=list(headers))
            except ConnectionClosed:
                return None

        await self._live(_Beneath(self, head.raw, head.rest), shake)

    async def converse(
        self, host: str, target: str, headers: Sequence[tuple[bytes, bytes]], opened: Callable[[], None]
    ) -> Refusal | None:
        """Ask for the upgrade, call `opened` once granted, and talk until the connection is over.

        Gives back the engine's answer if that was not 101. Raises ConnectionFailed if there was none in time.
        If cancelled: the connection is dropped; the occupant is told.
        """

        async def shake(nursery: trio.Nursery, beneath: _Beneath) -> WebSocketConnection | None:
            return await wrap_client_stream(
                nursery,
                beneath,  # type: ignore[arg-type]
                host,
                target,
                extra_headers=list(headers),
                max_message_size=1,
                receive_buffer_size=READ_BYTES,
            )

        beneath = _Beneath(self)
        failure = await self._live(beneath, shake, opened)
        if beneath.refusal is None and failure is not None:
            raise ConnectionFailed(failure)
        return beneath.refusal

    # --- ending it, without waiting

    def close(self, code: int, reason: str = "", *, patience: float | None = None) -> None:
        """Say Close behind what was put before; throw away what comes; drop the connection after `patience` seconds.

        The default is `goodbye_seconds`. Harmless when the connection is ending already.
        """
        self._say(_Goodbye(self._goodbye_seconds if patience is None else patience, int(code), reason))

    def cut(self, farewell: bytes = b"") -> None:
        """Write `farewell` behind what was put before, then FIN, and drop the connection soon: no closing handshake."""
        self._say(_Goodbye(self._goodbye_seconds, farewell=farewell))

    def lost(self, cause: str, *, by_fin: bool = False) -> None:
        """The connection is no more: drop it. Harmless when it is over already."""
        self._tell(Lost(cause, by_fin))
        if self.life.accepts(Cue.LOST):
            self.life.take(Cue.LOST)
        self._attention.set()

    @property
    def shaking(self) -> bool:
        """Whether the handshake is under way."""
        return self.life.phase is Phase.SHAKING

    @property
    def talking(self) -> bool:
        """Whether data may be sent."""
        return self.life.phase is Phase.OPEN

    @property
    def discarding(self) -> bool:
        """Whether what the peer still sends is thrown away."""
        return self.life.phase is not Phase.OPEN

    @property
    def close_written(self) -> bool:
        """Whether our Close has been written in full (clause C4.1 and the outcome `completed`)."""
        return self._close_put_at is not None and self.outbox.written_bytes >= self._close_put_at

    _close_put_at: int | None = None

    # --- inside

    async def _live(
        self,
        beneath: _Beneath,
        shake: Callable[..., object],
        opened: Callable[[], None] = lambda: None,
    ) -> str | None:
        """The whole life; gives back why the handshake failed, if it did."""
        failure: str | None = None
        try:
            async with trio.open_nursery() as nursery:
                self.outbox = Outbox(self.stream, nursery.start_soon, self.lost, self._stalled_seconds)
                connection: WebSocketConnection | None = None
                with trio.move_on_after(self._handshake_seconds) as shaking:
                    beneath.given_up = shaking.cancel
                    connection = await shake(nursery, beneath)  # type: ignore[misc]
                if connection is None or self.life.phase is not Phase.SHAKING:
                    in_time = trio.current_time() < shaking.deadline
                    failure = beneath.problem or "the connection ended" if in_time else "it took too long"
                    self.lost(f"no handshake: {failure}")
                else:
                    self.life.take(Cue.SHAKEN)
                    self.occupant.opened(self)
                    beneath.begin()
                    opened()
                    await self._attention.wait()
                    await self._part(connection, beneath)
                nursery.cancel_scope.cancel()
        finally:
            self.lost("the connection was dropped")
            self.outbox.abandon()
            await trio.aclose_forcefully(self.stream)
        return failure

    async def _part(self, connection: WebSocketConnection, beneath: _Beneath) -> None:
        """Say what is to be said, and let the peer have it before the stream goes."""
        goodbye = self._goodbye
        with trio.move_on_after(self._goodbye_seconds if goodbye is None else goodbye.seconds):
            if goodbye is None:
                pass
            elif goodbye.code is None:
                self.outbox.put(goodbye.farewell)
            elif self.life.phase is Phase.CLOSING:
                await connection.aclose(goodbye.code, goodbye.reason or None)
            if self.life.phase is Phase.CUT or self.outbox.over:
                return
            await self.outbox.wait_empty()
            if self.life.phase is Phase.CLOSED and isinstance(self.stream, Socket) and self.stream.nothing_unread():
                return
            await beneath.linger()

    def _say(self, goodbye: _Goodbye) -> None:
        if self._goodbye is None and self.life.accepts(Cue.WE_CLOSED):
            self._goodbye = goodbye
            self.life.take(Cue.WE_CLOSED)
            self._attention.set()

    def _tell(self, how: CloseFrame | FrameError | Lost) -> None:
        if not self._told:
            self._told = True
            self.occupant.done(how)

    def peer_ended(self, how: CloseFrame | FrameError) -> None:
        """The peer's stream is over, in the order of its bytes."""
        self._tell(how)
        if isinstance(how, FrameError):
            self.close(how.code, how.reason)
        elif self.life.accepts(Cue.PEER_CLOSED):
            self.life.take(Cue.PEER_CLOSED)

    def leave(self) -> None:
        """Nothing more will be read."""
        self._attention.set()

    def close_is_put(self) -> None:
        """Our Close is in the outbox, as the last thing."""
        self._close_put_at = self.outbox.written_bytes + self.outbox.waiting_bytes


@final
class _Beneath(trio.abc.Stream):
    """What trio-websocket takes for its stream: the handshake, then control frames, one at a time."""

    refusal: Refusal | None = None
    problem: str = ""
    given_up: Callable[[], object]

    def __init__(self, websocket: WebSocket, head: bytes | None = None, rest: bytes = b"") -> None:
        self._websocket = websocket
        self._stream = websocket.stream
        self._now = self._stream if isinstance(self._stream, ReadsNow) else None
        self._head = head  # a server's: to be replayed
        self._awaits_answer = head is None
        self._rest = rest  # read beyond the head, and not scanned yet
        self._controls: deque[bytes] = deque()
        self._begun = trio.Event()
        self._deaf = False  # the peer's framing is broken: bytes mean nothing any more
        self._stopped = trio.Event()  # trio-websocket reads no more
        self._pongs = 0
        self._pongs_end = 0

    def begin(self) -> None:
        """The occupant is there: frames may be read."""
        self._begun.set()

    async def linger(self) -> None:
        """End our side, and read until the peer ends its own: closing with unread input would send a reset."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            try:
                await self._stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
        if not self._at_end:
            if not self._stopped.is_set():
                await self._stopped.wait()
            if not self._at_end:
                await self._throw_away()

    _at_end = False

    # --- reading

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        if self._awaits_answer:
            self._awaits_answer = False
            return await self._receive_answer()
        await self._begun.wait()
        websocket = self._websocket
        turns = 0
        while True:
            while self._controls:
                control = self._controls.popleft()
                closing = control[0] & 15 == 8
                if closing or not websocket.discarding:  # a ping behind our own Close would crash the library
                    return control
            if websocket.life.phase is Phase.CLOSED:  # the Close was passed up, and has been answered
                return self._stop()
            if self._deaf:
                await self._throw_away()
                return self._stop()
            await websocket.occupant.settle()
            turns += 1
            if turns % _TURNS == 0:
                await trio.lowlevel.checkpoint()
            try:
                if not await self._read():
                    websocket.lost("the connection ended without a Close", by_fin=True)
                    return self._stop(at_end=True)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                websocket.lost(str(error))
                return self._stop(at_end=True)

    async def _read(self) -> bool:
        """Read once and scan it; False at the end of the stream."""
        websocket, now = self._websocket, self._now
        occupant = websocket.occupant
        if self._rest:
            data = memoryview(self._rest)
            self._rest = b""
        elif now is not None:
            buffer = websocket.buffer
            while (n := now.read_now(buffer.free)) is None:
                await now.wait_readable()
            if not n:
                return False
            data = buffer.filled(occupant.tail, n)
        else:
            received = await self._stream.receive_some(READ_BYTES)
            if not received:
                return False
            data = memoryview(occupant.tail + received)
        controls, how = occupant.scan(data)
        if controls:
            self._controls.extend(split_controls(controls))
        if how is not None:
            self._deaf = isinstance(how, FrameError)
            websocket.peer_ended(how)
        return True

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
                    self._rest = bytes(data[end + 4 :])
                    return bytes(data[: end + 4])
                self.refusal = await read_refusal(self._stream, bytes(data))
        except (PeerError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.problem = str(error)
        self.given_up()
        return b""

    async def _throw_away(self) -> None:
        try:
            while await self._stream.receive_some(READ_BYTES):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._at_end = True

    def _stop(self, *, at_end: bool = False) -> bytes:
        self._at_end = self._at_end or at_end
        self._stopped.set()
        self._websocket.leave()
        return b""

    # --- writing

    async def send_all(self, data: Buffer) -> None:
        websocket, outbox = self._websocket, self._websocket.outbox
        await trio.lowlevel.checkpoint()
        if outbox.over:
            raise trio.BrokenResourceError("the connection is over")
        if self._begun.is_set():
            opcode = data[0] & 15
            if opcode == 10 and not self._may_pong(len(data)):
                return
            outbox.put(data)
            if opcode == 8:
                websocket.close_is_put()
        else:
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
        if not self._begun.is_set():
            self.given_up()
        self._stopped.set()
        self._websocket.leave()
        await trio.lowlevel.checkpoint()
