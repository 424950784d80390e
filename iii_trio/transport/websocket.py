"""One WebSocket connection. trio-websocket makes it, data frames are read here, and wsproto speaks the control frames.

Theory of operation. The opening handshake is trio-websocket's (`handshake.py`). After it the connection's one task reads the
stream. It gives the data frames to the connection's *frame handler* (a worker's session, or a channel's end), and has the
control frames answered (`control_frames.py`). The handler decides by `wait_ready` when to read on. All writing goes through
the outbox. Whoever closes puts the Close there and sets the deadline of the connection's scope. The task then reads on until
the peer has closed, too, and sees to an orderly end of the stream.

The handler is told of the end exactly once, by `on_close`, at the place in the order of bytes where the end happened.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, final

import msgspec
import trio

from ..errors import ConnectionFailed, FrameError, PeerError
from ..state_machine import StateMachine
from .connection_state import CONNECTION, ConnectionEvent, ConnectionState
from .control_frames import answer, close_frame, ping_frame
from .frames import PING, CloseFrame, split_controls
from .handshake import accept_upgrade, request_upgrade
from .http1 import Head
from .lost_connections import LostConnections
from .outbox import Outbox
from .reading import READ_BYTES, ReadBuffer, StreamInput, choose_read_size
from .socket import Buffer, Socket, drop, end_writing
from .tls import TlsStream
from .upgrade import Refusal

_UNSENT_PONGS: Final = 16 * 1024  # bytes; a peer that pings and never reads gets no more pongs
_PONGS_AT_ONCE: Final = 16  # each takes 20 µs, and one read may have 40,000 pings


class Lost(msgspec.Struct, frozen=True):
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


@final
class WebSocket:
    """One connection over `stream`, which it owns. `serve` or `connect` is its whole life. No other method waits."""

    outbox: Outbox
    start_soon: Callable[[Callable[[], Awaitable[object]]], object]
    """Starts a task that lives no longer than the connection."""
    _scope: trio.CancelScope | None = None
    _close_put_at: int | None = None  # where our Close ends in the outbox's stream of bytes
    _output_ended: trio.Event | None = None  # of the task that ends the stream behind the last output
    _pong_bytes = 0
    _pongs_end = 0  # where the last pong ends in the outbox's stream of bytes

    def __init__(
        self,
        stream: trio.abc.Stream,
        handler: FrameHandler,
        *,
        buffer: ReadBuffer,
        lost_connections: LostConnections | None = None,
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
        self._lost_connections = lost_connections
        self._handshake_seconds = handshake_seconds
        self._goodbye_seconds = goodbye_seconds
        self._stalled_seconds = stalled_seconds
        self._ping_seconds = ping_seconds
        self._is_client = False
        self._problem = ""  # why there was no handshake
        self._end_reported = False  # to the handler

    # --- a connection's whole life

    def serve(self, head: Head, headers: Sequence[tuple[bytes, bytes]] = ()) -> Awaitable[object]:
        """Accept the upgrade with this head, empty its headers, and serve the connection until it is over.

        Accepting waits for nothing, because the head is here, and has no deadline.
        Returns the coroutine that does so, because each one that waits costs memory of every open connection.
        If cancelled: the connection is dropped, and the handler is told.
        """
        request = head.plain_upgrade()
        self.input.rest = head.rest
        head.headers.clear()  # read, and the callers keep the head for the connection's life
        return self._live(lambda nursery: accept_upgrade(nursery, request, headers, self._send))

    async def connect(
        self, host: str, target: str, headers: Sequence[tuple[bytes, bytes]], opened: Callable[[], None]
    ) -> Refusal | None:
        """Ask for the upgrade, call `opened` once granted, and serve the connection until it is over.

        Returns the peer's answer if that was not 101. Raises ConnectionFailed if there was none in time.
        If cancelled: the connection is dropped, and the handler is told.
        """
        refusal: Refusal | None = None

        async def shake(nursery: trio.Nursery) -> None:
            nonlocal refusal
            try:
                with trio.fail_after(self._handshake_seconds):
                    answered = await request_upgrade(nursery, self.stream, host, target, headers, self._send)
            except trio.TooSlowError:
                self._fail("it took too long")
                return
            except (PeerError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._fail(str(error))
                return
            if isinstance(answered, Refusal):
                refusal = answered
                self._fail("it was refused")
            else:
                self.input.rest = answered.rest

        self._is_client = True
        failure = await self._live(shake, opened)
        if refusal is None and failure is not None:
            raise ConnectionFailed(failure)
        return refusal

    # --- ending it, without waiting

    def close(self, code: int, reason: str = "", *, timeout: float | None = None) -> None:
        """Send Close behind the frames put before, discard input, and drop the connection after `timeout` seconds.

        The default is `goodbye_seconds`. Harmless when the connection is ending already.
        """
        if self._leave(ConnectionEvent.WE_CLOSED, self._goodbye_seconds if timeout is None else timeout):
            self._send_close(close_frame(int(code), reason, is_client=self._is_client))

    def cut(self, last_frame: bytes = b"") -> None:
        """Send `last_frame` behind the frames put before, then FIN, and drop the connection without a closing handshake."""
        if self._leave(ConnectionEvent.WE_CUT, self._goodbye_seconds):
            if last_frame:
                # FIN follows at once where nothing waits. One packet for both takes the kernel 7 µs, and two take 11.
                if isinstance(self.stream, Socket) and self.outbox.is_written:
                    self.stream.hold_output()
                self.outbox.put(last_frame)
            self.outbox.flush()
            self._start_ending_output()

    def lost(self, cause: str) -> None:
        """Drop the connection, which is of no use any more. Harmless when it is over already."""
        self._lose(Lost(cause))
        if self._scope is not None:
            self._scope.cancel()

    @property
    def shaking(self) -> bool:
        """Whether the handshake is under way."""
        return self.state.current is ConnectionState.CONNECTING

    @property
    def discarding(self) -> bool:
        """Whether further input is thrown away."""
        return not self.talking

    @property
    def close_written(self) -> bool:
        """Whether our Close has been written in full (clause C4.1 and the outcome `completed`)."""
        if self._close_put_at is None or self.outbox.written_bytes < self._close_put_at:
            return False
        return self.outbox.waiting_bytes > 0 or self.outbox.is_written  # TLS may hold ciphertext back

    def _leave(self, event: ConnectionEvent, seconds: float) -> bool:
        """Start to end the connection, and limit the time for it. Return whether there is anything to send."""
        if not self.state.can(event):
            return False
        self._advance(event)
        if self._scope is None:
            return False
        # There is nobody to talk to before the handshake.
        if self.state.current is ConnectionState.LOST:
            self._scope.cancel()
            return False
        if seconds != math.inf:  # setting a deadline costs, also the same
            self._scope.deadline = trio.current_time() + seconds
        return True

    def _lose(self, how: Lost) -> None:
        """Note that the connection is of no use any more. Its task is to leave."""
        if self.state.can(ConnectionEvent.LOST):  # first, so that nothing more is sent in reaction
            self._advance(ConnectionEvent.LOST)
        self._report_end(how)

    def _fail(self, problem: str) -> None:
        """Note why there is no handshake."""
        if self.shaking:
            self._problem = self._problem or problem
            self._advance(ConnectionEvent.LOST)

    def _advance(self, event: ConnectionEvent) -> None:
        self.talking = self.state.advance(event) is ConnectionState.OPEN

    def _report_end(self, how: CloseFrame | FrameError | Lost) -> None:
        if not self._end_reported:
            self._end_reported = True
            self.handler.on_close(how)

    # --- inside: the connection's task

    async def _live(
        self, shake: Callable[[trio.Nursery], Awaitable[None]], opened: Callable[[], None] = lambda: None
    ) -> str | None:
        """Run the whole connection. Return why the handshake failed, if it did."""
        # One scope for all deadlines, the nursery's own: another one for each costs more than what happens in it.
        is_open, failure = False, None
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                self.start_soon = nursery.start_soon
                self.outbox = Outbox(self.stream, nursery.start_soon, self._unwritable, self._stalled_seconds)
                try:
                    await shake(nursery)
                    del shake  # it holds the request, which nothing needs for the connection's life
                    if self.shaking:
                        is_open = True
                        self._advance(ConnectionEvent.ACCEPTED)
                        self.handler.on_open(self)
                        if self._ping_seconds is not None:
                            nursery.start_soon(self._ping, self._ping_seconds)
                        opened()
                        await self._read()
                        await self._part()
                finally:
                    # Here, within the nursery: a handler may start tasks in reaction, and no closed nursery takes them.
                    if not is_open:
                        failure = self._problem or "the connection ended"
                    self._lose(Lost(f"no handshake: {failure}" if failure else "the connection was dropped"))
                    self.outbox.abandon()
                    # It has been told the end. Without these circles nothing waits for the cycle collector.
                    del self.handler
                    self.outbox.forget_connection()
                    if nursery.child_tasks:
                        nursery.cancel_scope.cancel()
        finally:
            await drop(self.stream)  # noqa: ASYNC102 - it never waits
        return failure

    async def _read(self) -> None:
        """Give the peer's frames to the handler until the peer's stream has ended."""
        handler, incoming = self.handler, self.input
        while True:
            await handler.wait_ready()
            try:
                data = await incoming.read(handler.unparsed)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                incoming.at_end = True
                return self._lose(Lost(str(error)))
            if self._end_reported:
                return None  # it was lost while these bytes were on their way to us
            if data is None:
                incoming.at_end = True
                return self._lose(Lost("the connection ended without a Close", by_fin=True))
            controls, how = handler.feed(data)
            if how is not None:
                # These pongs are written after the end has been reported. A peer that closed and is gone would else count as
                # lost. They are few, because a ping that comes together with the end needs no answer.
                frames = split_controls(controls)
                self._put_pongs(_pings_among(frames)[:_PONGS_AT_ONCE])
                return self._peer_ended(how, frames)
            if controls:
                await self._answer_pings(_pings_among(split_controls(controls)))
            if not self.talking and incoming.too_late(len(data)):
                incoming.at_end = True
                return self._lose(Lost("it went on sending, long after it was told the end"))

    def _peer_ended(self, how: CloseFrame | FrameError, controls: list[bytes]) -> None:
        """End the peer's stream, in the order of its bytes. A Close is the last of the control frames."""
        awaits_answer = False
        if isinstance(how, CloseFrame):
            if self.state.can(ConnectionEvent.PEER_CLOSED):
                awaits_answer = self.talking
                self._advance(ConnectionEvent.PEER_CLOSED)
        elif self.talking:
            self.cut(close_frame(how.code, how.reason, is_client=self._is_client))
        elif self._output_ended is None:
            self._start_ending_output()  # an answer to our Close could not be found in broken frames
        self._report_end(how)  # its effects may not change how this connection ends
        if awaits_answer:
            self._send_close(answer(controls[-1], is_client=self._is_client))

    async def _part(self) -> None:
        """Let the peer have the last output before the stream goes. Reads on, because unread input would send a reset."""
        if self.state.current is ConnectionState.LOST:
            if self._lost_connections is not None:
                await self._lost_connections.wait_turn()
            return
        assert self._scope is not None
        # Nearly always all is said, and a stream that can tell has no unread input.
        if self._output_ended is None and self.outbox.is_written and self._nothing_unread():
            return
        if self._scope.deadline == math.inf:
            self._scope.deadline = trio.current_time() + self._goodbye_seconds
        if self._output_ended is None:
            await self.outbox.wait_empty()
            if self._nothing_unread():
                return
            await self._end_output()
        if not self.input.at_end:
            await self.input.discard()
        if self._output_ended is not None:
            await self._output_ended.wait()

    def _nothing_unread(self) -> bool:
        return isinstance(self.stream, Socket | TlsStream) and self.stream.nothing_unread()

    def _start_ending_output(self) -> None:
        """End the stream behind the output, by a task if that has to wait. The connection's task reads on meanwhile."""
        self._output_ended = trio.Event()
        if not isinstance(self.stream, Socket) or not self.outbox.is_written:
            self.start_soon(self._end_output)
            return
        self.outbox.abandon()
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # reading tells of it, too
            self.stream.end_writing()
        self._output_ended.set()

    async def _end_output(self) -> None:
        await self.outbox.wait_empty()
        self.outbox.abandon()  # nothing may follow our FIN
        try:
            await end_writing(self.stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.input.at_end = True
        if self._output_ended is not None:
            self._output_ended.set()

    async def _ping(self, seconds: float) -> None:
        """Send a ping every so often while nothing else waits to be written, so that no proxy finds us idle."""
        while True:
            await trio.sleep(seconds)
            if self.talking and self.outbox.empty:
                self.outbox.put(ping_frame(is_client=self._is_client))
                self.outbox.flush()

    # --- inside: writing

    def _send(self, data: Buffer) -> None:
        """Send the library's output. Raises trio.BrokenResourceError after the end."""
        if self.outbox.over:
            raise trio.BrokenResourceError("the connection is over")
        self.outbox.put(data)
        self.outbox.flush()

    def _send_close(self, close: bytes) -> None:
        outbox = self.outbox
        if not outbox.over:
            outbox.put(close)
            self._close_put_at = outbox.written_bytes + outbox.waiting_bytes
            outbox.flush()

    async def _answer_pings(self, pings: list[bytes]) -> None:
        """Answer these pings, and let other tasks have their turn between many of them."""
        for at in range(0, len(pings), _PONGS_AT_ONCE):
            if at:
                await trio.lowlevel.checkpoint()
            self._put_pongs(pings[at : at + _PONGS_AT_ONCE])
            self.outbox.flush()

    def _put_pongs(self, pings: list[bytes]) -> None:
        """Put the answers to these pings, as long as pongs may follow."""
        for ping in pings:
            if self.talking:
                pong = answer(ping, is_client=self._is_client)
                if self._may_pong(len(pong)):
                    self.outbox.put(pong)

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

    def _unwritable(self, cause: str) -> None:
        """End the connection, because nothing can be written any more."""
        if self.shaking:
            self._problem = self._problem or cause
        self.lost(cause)


def _pings_among(controls: list[bytes]) -> list[bytes]:
    return [control for control in controls if control[0] & 15 == PING]


__all__ = ["READ_BYTES", "FrameHandler", "Lost", "ReadBuffer", "WebSocket", "choose_read_size"]
