"""One WebSocket connection. Data frames stay here, and trio-websocket sees the handshake and the control frames only.

Theory of operation. trio-websocket does the handshake, answers pings and speaks the closing handshake, over a
`ControlStream`. Its reader task calls `_receive`, which reads the real stream. There the data frames go to the
connection's *frame handler* (a worker's session, or a channel's end), and the control frames to the library. The handler
decides by `wait_ready` when to read on. All writing goes through the outbox. The connection owns its stream, its nursery
and its deadlines, because the library leaves streams open, and waits without a limit in several places.

The handler is told of the end exactly once, by `on_close`, at the place in the order of bytes where the end happened.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, final

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream, wrap_server_stream

from ..errors import ConnectionFailed, FrameError, PeerError
from ..state_machine import StateMachine
from .connection_state import CONNECTION, ConnectionEvent, ConnectionState
from .control_stream import ControlStream
from .frames import CLOSE, PING, PONG, CloseFrame, close_payload, frame, split_controls
from .http1 import Head
from .outbox import Outbox
from .reading import READ_BYTES, ReadBuffer, StreamInput, choose_read_size
from .socket import Buffer, Socket, drop, end_writing
from .tls import TlsStream
from .upgrade import Refusal, read_answer

_UNSENT_PONGS: Final = 16 * 1024  # bytes; a peer that pings and never reads gets no more pongs
_NO_MASK: Final = bytes(4)
"""Of the frames that a client builds here. They carry nothing that a peer could have chosen (RFC 6455 section 10.3)."""


@attrs.frozen
class Lost:
    """The end of a connection without a Close. `by_fin` tells that the peer ended its stream in order."""

    cause: str
    by_fin: bool = False


class FrameHandler(Protocol):
    """The user of a connection, which takes the data frames and learns of the end."""

    def on_open(self, websocket: WebSocket) -> None:
        """Learn that the handshake is done, and that frames may come and go."""

    @property
    def unparsed(self) -> bytes:
        """The bytes of the last read that could not be used yet."""

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        """Take the data frames. Return the control frames as they came, and the end of the peer's stream, if it ended.

        Once the connection is `discarding`, data frames are to be thrown away.
        """

    async def wait_ready(self) -> None:
        """Wait until there is room for more. Not a checkpoint if there is, nor once the connection is `discarding`."""

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        """Learn that the peer's stream ended with its Close, a broken rule or a loss. Called exactly once."""


@attrs.frozen
class _Goodbye:
    """Our way to end a connection, by a Close, or by a last frame and FIN."""

    seconds: float
    code: int | None = None
    reason: str = ""


@final
class WebSocket:
    """One connection over `stream`, which it owns. `serve` or `connect` is its whole life. No other method waits."""

    outbox: Outbox
    start_soon: Callable[[Callable[[], Awaitable[object]]], object]
    """Starts a task that lives no longer than the connection."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        handler: FrameHandler,
        *,
        buffer: ReadBuffer,
        handshake_seconds: float = 10.0,
        goodbye_seconds: float = 5.0,
        stalled_seconds: float = math.inf,
        ping_seconds: float | None = None,
    ) -> None:
        self.stream = stream
        self.handler = handler
        self.state = StateMachine(CONNECTION, ConnectionState.CONNECTING)
        self.talking = False
        """Whether data may be sent. It is asked for each message, and so kept beside the state."""
        self.input = StreamInput(stream, buffer)
        """The incoming side. A handler sets its `read_size`, and asks for less while messages are small."""
        self._control = ControlStream(self._receive, self._send)
        self._handshake_seconds = handshake_seconds
        self._goodbye_seconds = goodbye_seconds
        self._stalled_seconds = stalled_seconds
        self._ping_seconds = ping_seconds
        self._handshake: list[bytes] = []  # a server's: the upgrade, to be replayed to the library
        self._request: bytes | None = None  # a client's: its upgrade, until the answer is read
        self._problem = ""  # why there was no answer, or none of use
        self._refusal: Refusal | None = None
        self._controls: list[bytes] = []  # of the last read, the first one last
        self._deaf = False  # the peer's framing is broken: its bytes mean nothing any more
        self._pong_bytes = 0
        self._pongs_end = 0  # where the last pong ends in the outbox's stream of bytes
        self._goodbye: _Goodbye | None = None
        self._end_reported = False  # to the handler
        self._opened: trio.Event | None = trio.Event()  # until the handler is there, and frames may be read
        self._library_is_done = False  # trio-websocket reads no more
        self._library_done: trio.Event | None = None  # for the task that waits for that
        self._attention = trio.Event()  # the main task has something to do: say goodbye, or leave

    # --- a connection's whole life

    def serve(self, head: Head, headers: Sequence[tuple[bytes, bytes]] = ()) -> Awaitable[object]:
        """Accept the upgrade with this head, empty its headers, and serve the connection until it is over.

        Returns the coroutine that does so, because each one that waits costs memory of every open connection.
        If cancelled: the connection is dropped, and the handler is told.
        """

        async def shake(nursery: trio.Nursery) -> WebSocketConnection | None:
            request = await wrap_server_stream(
                nursery, self._control, max_message_size=1, receive_buffer_size=READ_BYTES
            )
            try:
                return await request.accept(extra_headers=list(headers))
            except ConnectionClosed:
                return None

        self._handshake.append(head.plain_upgrade())
        self.input.rest = head.rest
        head.headers.clear()  # read, and the callers keep the head for the connection's life
        return self._live(shake)

    async def connect(
        self, host: str, target: str, headers: Sequence[tuple[bytes, bytes]], opened: Callable[[], None]
    ) -> Refusal | None:
        """Ask for the upgrade, call `opened` once granted, and serve the connection until it is over.

        Returns the peer's answer if that was not 101. Raises ConnectionFailed if there was none in time.
        If cancelled: the connection is dropped, and the handler is told.
        """

        async def shake(nursery: trio.Nursery) -> WebSocketConnection | None:
            return await wrap_client_stream(
                nursery,
                self._control,  # type: ignore[arg-type]
                host,
                target,
                extra_headers=list(headers),
                max_message_size=1,
                receive_buffer_size=READ_BYTES,
            )

        self._mask = _NO_MASK
        self._request = b""
        failure = await self._live(shake, opened)
        if self._refusal is None and failure is not None:
            raise ConnectionFailed(failure)
        return self._refusal

    # --- ending it, without waiting

    def close(self, code: int, reason: str = "", *, timeout: float | None = None) -> None:
        """Send Close behind the frames put before, discard input, and drop the connection after `timeout` seconds.

        The default is `goodbye_seconds`. Harmless when the connection is ending already.
        """
        self._say_goodbye(_Goodbye(self._goodbye_seconds if timeout is None else timeout, int(code), reason))

    def cut(self, last_frame: bytes = b"") -> None:
        """Send `last_frame` behind the frames put before, then FIN, and drop the connection without a closing handshake.

        The frame is put at once, so that `outbox.flush` writes it before the connection's task has its turn.
        """
        if self._say_goodbye(_Goodbye(self._goodbye_seconds)):
            self.outbox.put(last_frame)

    def lost(self, cause: str, *, by_fin: bool = False) -> None:
        """Drop the connection, which is of no use any more. Harmless when it is over already."""
        self._report_end(Lost(cause, by_fin))
        if self.state.can(ConnectionEvent.LOST):
            self._advance(ConnectionEvent.LOST)
        self._attention.set()

    @property
    def shaking(self) -> bool:
        """Whether the handshake is under way."""
        return self.state.current is ConnectionState.CONNECTING

    @property
    def closed(self) -> bool:
        """Whether both sides have sent Close."""
        return self.state.current is ConnectionState.CLOSED

    @property
    def discarding(self) -> bool:
        """Whether further input is thrown away."""
        return not self.talking

    def _advance(self, event: ConnectionEvent) -> None:
        self.talking = self.state.advance(event) is ConnectionState.OPEN

    @property
    def close_written(self) -> bool:
        """Whether our Close has been written in full (clause C4.1 and the outcome `completed`)."""
        if self._close_put_at is None or self.outbox.written_bytes < self._close_put_at:
            return False
        return self.outbox.waiting_bytes > 0 or self.outbox.is_written  # TLS may hold ciphertext back

    _close_put_at: int | None = None
    _mask: bytes | None = None  # of a client's frame

    # --- inside: the main task

    async def _live(
        self,
        shake: Callable[[trio.Nursery], Awaitable[WebSocketConnection | None]],
        opened: Callable[[], None] = lambda: None,
    ) -> str | None:
        """Run the whole connection. Return why the handshake failed, if it did."""
        # One scope for all deadlines, the nursery's own: another one for each costs more than what happens in it.
        failure: str | None = None
        deadline = trio.current_time() + self._handshake_seconds
        try:
            async with trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                scope.deadline = deadline
                self._give_up = scope.cancel
                self.start_soon = nursery.start_soon
                self.outbox = Outbox(self.stream, nursery.start_soon, self._unwritable, self._stalled_seconds)
                try:
                    connection = await shake(nursery)
                    if connection is not None and self.state.current is ConnectionState.CONNECTING:
                        scope.deadline = math.inf
                        self._advance(ConnectionEvent.ACCEPTED)
                        self.handler.on_open(self)
                        self._set_opened()
                        if self._ping_seconds is not None:
                            nursery.start_soon(self._ping, self._ping_seconds)
                        opened()
                        await self._attention.wait()
                        scope.deadline = trio.current_time() + self._seconds_to_part
                        await self._part(connection)
                finally:
                    # Here, within the nursery: a handler may start tasks in reaction, and no closed nursery takes them.
                    if self._opened is not None:
                        in_time = trio.current_time() < deadline
                        failure = self._problem or "the connection ended" if in_time else "it took too long"
                    self.lost(f"no handshake: {failure}" if failure else "the connection was dropped")
                    self.outbox.abandon()
                    if nursery.child_tasks:
                        scope.cancel()
        finally:
            await drop(self.stream)  # noqa: ASYNC102 - it never waits
        return failure

    def _set_opened(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.set()

    @property
    def _seconds_to_part(self) -> float:
        return self._goodbye_seconds if self._goodbye is None else self._goodbye.seconds

    async def _part(self, connection: WebSocketConnection) -> None:
        """Send the goodbye, and let the peer have it before the stream goes. Has no deadline of its own."""
        goodbye = self._goodbye
        if goodbye is not None and goodbye.code is not None and self.state.current is ConnectionState.CLOSING:
            await connection.aclose(goodbye.code, goodbye.reason or None)
        if self.state.current is ConnectionState.CUT or self.outbox.over:
            return
        if self.state.current is ConnectionState.CLOSED:
            await self._wait_library_done()  # it may be about to answer the peer's Close
        await self.outbox.wait_empty()
        if (
            self.state.current is ConnectionState.CLOSED
            and isinstance(self.stream, Socket | TlsStream)
            and self.stream.nothing_unread()
        ):
            return
        self.outbox.abandon()  # nothing may follow our FIN, not even the library's answer to a late Close
        await self._linger()

    async def _linger(self) -> None:
        """End our side, and read until the peer ends its own, because closing with unread input would send a reset."""
        try:
            await end_writing(self.stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        if not self.input.at_end:
            await self._wait_library_done()
            if not self.input.at_end:
                await self.input.discard()

    async def _wait_library_done(self) -> None:
        if not self._library_is_done:
            self._library_done = trio.Event()
            await self._library_done.wait()

    async def _ping(self, seconds: float) -> None:
        """Send a ping every so often while nothing else waits to be written, so that no proxy finds us idle."""
        while True:
            await trio.sleep(seconds)
            if self.talking and self.outbox.empty:
                self.outbox.put(frame(PING, b"", mask=self._mask))
                self.outbox.flush()

    def _unwritable(self, cause: str) -> None:
        """End the connection, because nothing can be written any more."""
        if self._opened is not None:
            # Without the whole request or answer there is no handshake, and the peer may stay silent.
            self._problem = self._problem or cause
            self._give_up()
        self.lost(cause)

    def _say_goodbye(self, goodbye: _Goodbye) -> bool:
        """Start to end the connection. Return False if it is ending already."""
        if self._goodbye is not None or not self.state.can(ConnectionEvent.WE_CLOSED):
            return False
        self._goodbye = goodbye
        self._advance(ConnectionEvent.WE_CLOSED)
        self._attention.set()
        return True

    def _report_end(self, how: CloseFrame | FrameError | Lost) -> None:
        if not self._end_reported:
            self._end_reported = True
            self.handler.on_close(how)

    # --- inside: reading, in the library's task

    async def _receive(self) -> bytes:
        """Return the next bytes for the library. They are the other side's head, then control frames, then nothing."""
        if self._handshake:
            return self._handshake.pop()
        if self._request is not None:
            request, self._request = self._request, None
            return await self._receive_answer(request)
        if self._opened is not None:
            await self._opened.wait()
        handler = self.handler
        while True:
            while self._controls:
                control = self._controls.pop()
                # A ping behind our own Close would crash the library.
                if control[0] & 15 == CLOSE or self.talking:
                    return control
            if not self.talking and self.closed:  # the Close was passed up, and has been answered
                return self._stop_reading()
            if self._deaf:
                await self.input.discard()
                return self._stop_reading()
            await handler.wait_ready()
            try:
                data = await self.input.read(handler.unparsed)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.input.at_end = True
                self.lost(str(error))
                return self._stop_reading()
            if data is None:
                self.input.at_end = True
                self.lost("the connection ended without a Close", by_fin=True)
                return self._stop_reading()
            controls, how = handler.feed(data)
            if controls:
                self._controls = split_controls(controls)
                self._controls.reverse()
            if how is not None:
                self._peer_ended(how)
            if not self.talking and self.input.too_late(len(data)):
                self.input.at_end = True
                self.lost("it went on sending, long after it was told the end")
                return self._stop_reading()

    async def _receive_answer(self, request: bytes) -> bytes:
        """Read the answer to a client's upgrade. Unless it is a fitting 101, give the handshake up."""
        try:
            answer = await read_answer(self.stream, request)
        except (PeerError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._problem = str(error)
        else:
            if not isinstance(answer, Refusal):
                self.input.rest = answer.rest
                return answer.head
            self._refusal = answer
        self._give_up()
        return b""

    def _peer_ended(self, how: CloseFrame | FrameError) -> None:
        """End the peer's stream, in the order of its bytes."""
        if isinstance(how, FrameError):  # an answer to our Close could not be found in broken frames
            self._deaf = True
            self.cut(frame(CLOSE, close_payload(how.code, how.reason), mask=self._mask))
        elif self.state.can(ConnectionEvent.PEER_CLOSED):
            self._advance(ConnectionEvent.PEER_CLOSED)
        self._report_end(how)  # last: its effects may not change how this connection ends

    def _stop_reading(self) -> bytes:
        self._library_is_done = True
        if self._library_done is not None:
            self._library_done.set()
        self._attention.set()
        return b""

    # --- inside: writing, for the library

    def _send(self, data: Buffer | None) -> None:
        """Send the library's output. None notes that it is done. Raises trio.BrokenResourceError after the end."""
        outbox = self.outbox
        if data is None:
            if self._opened is not None:
                self._give_up()
            self._stop_reading()
            return
        if outbox.over:
            raise trio.BrokenResourceError("the connection is over")
        if self._opened is not None:
            if self._request is not None:
                self._request = bytes(data)
            outbox.put(data)
        else:
            opcode = data[0] & 15
            if opcode == PONG and not self._may_pong(len(data)):
                return
            outbox.put(data)
            if opcode == CLOSE:
                self._close_put_at = outbox.written_bytes + outbox.waiting_bytes
        outbox.flush()

    def _may_pong(self, n: int) -> bool:
        """Return whether a pong of `n` bytes may be sent. Pongs that wait are bounded, and count until they are written."""
        outbox = self.outbox
        if outbox.written_bytes >= self._pongs_end:
            self._pong_bytes = 0
        if self._pong_bytes > _UNSENT_PONGS:
            return False
        self._pong_bytes += n
        self._pongs_end = outbox.written_bytes + outbox.waiting_bytes + n
        return True


__all__ = ["READ_BYTES", "FrameHandler", "Lost", "ReadBuffer", "WebSocket", "choose_read_size"]
