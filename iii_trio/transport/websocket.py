"""One WebSocket connection, whose data frames stay ours and whose control frames trio-websocket sees.

Theory of operation. trio-websocket does the handshake, answers pings and speaks the closing handshake, over a stream
that shows it nothing else (`beneath.py`). The data frames go to the connection's *handler* (a worker's session, a
channel's end), who decides by `wait_ready` when to read on. Writing is the outbox's. The connection owns its stream, its
nursery and its deadlines, because the library leaves streams open, and waits for ever, in several places.

The handler is told of the end exactly once, by `on_close`, at the place in the order of bytes where it happened.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from enum import auto
from typing import Final, Protocol, final

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream, wrap_server_stream

from ..errors import ConnectionFailed, FrameError
from ..state_machine import StateMachine, Table, TableEnum
from .beneath import READ_BYTES, Beneath, ReadBuffer, choose_read_size
from .frames import CLOSE, CloseFrame, close_payload, frame
from .http1 import Head, Refusal
from .outbox import Outbox
from .socket import Socket, drop


class ConnectionState(TableEnum):
    """Where a connection is in its life."""

    SHAKING = auto()
    OPEN = auto()
    CLOSING = auto()  # our Close is on its way; what the peer still sends is thrown away
    CLOSED = auto()  # both have said Close
    CUT = auto()  # there will be no closing handshake


class ConnectionEvent(TableEnum):
    """What happened to a connection."""

    SHAKEN = auto()
    WE_CLOSED = auto()
    PEER_CLOSED = auto()
    LOST = auto()


CONNECTION: Final[Table[ConnectionState, ConnectionEvent]] = {
    ConnectionState.SHAKING: {
        ConnectionEvent.SHAKEN: ConnectionState.OPEN,
        ConnectionEvent.WE_CLOSED: ConnectionState.CUT,
        ConnectionEvent.LOST: ConnectionState.CUT,
    },
    ConnectionState.OPEN: {
        ConnectionEvent.WE_CLOSED: ConnectionState.CLOSING,
        ConnectionEvent.PEER_CLOSED: ConnectionState.CLOSED,
        ConnectionEvent.LOST: ConnectionState.CUT,
    },
    ConnectionState.CLOSING: {
        ConnectionEvent.PEER_CLOSED: ConnectionState.CLOSED,
        ConnectionEvent.LOST: ConnectionState.CUT,
    },
    ConnectionState.CLOSED: {},
    ConnectionState.CUT: {},
}


@attrs.frozen
class Lost:
    """A connection that ended without a Close. `by_fin`: the peer ended it in order, by an end of its stream."""

    cause: str
    by_fin: bool = False


class FrameHandler(Protocol):
    """What a connection is for."""

    def on_open(self, websocket: WebSocket) -> None:
        """The handshake is done; from here on frames may come and go."""

    @property
    def unparsed(self) -> bytes:
        """What was read before and could not be understood yet."""

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        """Take the data frames; give back the control frames as they came, and how the peer's stream ended, if it did.

        Once the connection is `discarding`, data frames are thrown away.
        """

    async def wait_ready(self) -> None:
        """Wait until there is room for more; not a checkpoint if there is, or once the connection is `discarding`."""

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        """The peer's stream is over: its Close, a rule it broke, or the cause of the loss. Called once."""


_NO_MASK: Final = bytes(4)
"""Of the one frame that a client builds here; who reads it is about to be left."""


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
    ) -> None:
        self.stream = stream
        self.handler = handler
        self.buffer = buffer
        self.read_size = READ_BYTES
        """How many bytes to read at once; a frame handler asks for less while messages are small (`choose_read_size`)."""
        self.state = StateMachine(CONNECTION, ConnectionState.SHAKING)
        self._handshake_seconds = handshake_seconds
        self._goodbye_seconds = goodbye_seconds
        self._stalled_seconds = stalled_seconds
        self._goodbye: _Goodbye | None = None
        self._told = False  # the handler, of the end
        self._attention = trio.Event()  # something to do for the main task: say goodbye, or leave

    # --- a connection's whole life

    async def serve(self, head: Head, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Accept the upgrade whose head was read already, and serve the connection until it is over.

        If cancelled: the connection is dropped; the handler is told.
        """

        async def shake(nursery: trio.Nursery, beneath: Beneath) -> WebSocketConnection | None:
            request = await wrap_server_stream(nursery, beneath, max_message_size=1, receive_buffer_size=READ_BYTES)
            try:
                return await request.accept(extra_headers=list(headers))
            except ConnectionClosed:
                return None

        await self._live(Beneath(self, head.plain_upgrade(), head.rest), shake)

    async def converse(
        self, host: str, target: str, headers: Sequence[tuple[bytes, bytes]], opened: Callable[[], None]
    ) -> Refusal | None:
        """Ask for the upgrade, call `opened` once granted, and talk until the connection is over.

        Gives back the engine's answer if that was not 101. Raises ConnectionFailed if there was none in time.
        If cancelled: the connection is dropped; the handler is told.
        """

        async def shake(nursery: trio.Nursery, beneath: Beneath) -> WebSocketConnection | None:
            return await wrap_client_stream(
                nursery,
                beneath,  # type: ignore[arg-type]
                host,
                target,
                extra_headers=list(headers),
                max_message_size=1,
                receive_buffer_size=READ_BYTES,
            )

        self._mask = _NO_MASK
        beneath = Beneath(self)
        failure = await self._live(beneath, shake, opened)
        if beneath.refusal is None and failure is not None:
            raise ConnectionFailed(failure)
        return beneath.refusal

    # --- ending it, without waiting

    def close(self, code: int, reason: str = "", *, timeout: float | None = None) -> None:
        """Say Close behind what was put before; throw away what comes; drop the connection after `timeout` seconds.

        The default is `goodbye_seconds`. Harmless when the connection is ending already.
        """
        self._say(_Goodbye(self._goodbye_seconds if timeout is None else timeout, int(code), reason))

    def cut(self, farewell: bytes = b"") -> None:
        """Write `farewell` behind what was put before, then FIN, and drop the connection soon: no closing handshake."""
        self._say(_Goodbye(self._goodbye_seconds, farewell=farewell))

    def lost(self, cause: str, *, by_fin: bool = False) -> None:
        """The connection is no more: drop it. Harmless when it is over already."""
        self._tell(Lost(cause, by_fin))
        if self.state.can(ConnectionEvent.LOST):
            self.state.advance(ConnectionEvent.LOST)
        self._attention.set()

    @property
    def shaking(self) -> bool:
        """Whether the handshake is under way."""
        return self.state.current is ConnectionState.SHAKING

    @property
    def talking(self) -> bool:
        """Whether data may be sent."""
        return self.state.current is ConnectionState.OPEN

    @property
    def closed(self) -> bool:
        """Whether both sides have said Close."""
        return self.state.current is ConnectionState.CLOSED

    @property
    def discarding(self) -> bool:
        """Whether what the peer still sends is thrown away."""
        return self.state.current is not ConnectionState.OPEN

    @property
    def close_written(self) -> bool:
        """Whether our Close has been written in full (clause C4.1 and the outcome `completed`)."""
        return self._close_put_at is not None and self.outbox.written_bytes >= self._close_put_at

    _close_put_at: int | None = None
    _mask: bytes | None = None  # of a client's frame

    # --- inside

    async def _live(
        self,
        beneath: Beneath,
        shake: Callable[[trio.Nursery, Beneath], Awaitable[WebSocketConnection | None]],
        opened: Callable[[], None] = lambda: None,
    ) -> str | None:
        """The whole life; gives back why the handshake failed, if it did."""
        # One scope for all deadlines, the nursery's own: another one for each costs more than what happens in it.
        failure: str | None = None
        deadline = trio.current_time() + self._handshake_seconds
        try:
            async with trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                scope.deadline = deadline
                beneath.given_up = scope.cancel
                self.start_soon = nursery.start_soon
                self.outbox = Outbox(self.stream, nursery.start_soon, self.lost, self._stalled_seconds)
                try:
                    connection = await shake(nursery, beneath)
                    if connection is not None and self.state.current is ConnectionState.SHAKING:
                        scope.deadline = math.inf
                        self.state.advance(ConnectionEvent.SHAKEN)
                        self.handler.on_open(self)
                        beneath.begin()
                        opened()
                        await self._attention.wait()
                        scope.deadline = trio.current_time() + self._seconds_to_part
                        await self._part(connection, beneath)
                finally:  # in here: nobody may start a task in a nursery that has closed
                    if not beneath.begun:
                        in_time = trio.current_time() < deadline
                        failure = beneath.problem or "the connection ended" if in_time else "it took too long"
                    self.lost(f"no handshake: {failure}" if failure else "the connection was dropped")
                    self.outbox.abandon()
                    if nursery.child_tasks:
                        scope.cancel()
        finally:
            await drop(self.stream)  # noqa: ASYNC102 - it never waits
        return failure

    @property
    def _seconds_to_part(self) -> float:
        return self._goodbye_seconds if self._goodbye is None else self._goodbye.seconds

    async def _part(self, connection: WebSocketConnection, beneath: Beneath) -> None:
        """Say what is to be said, and let the peer have it before the stream goes. Has no deadline of its own."""
        goodbye = self._goodbye
        if goodbye is None:
            pass
        elif goodbye.code is None:
            self.outbox.put(goodbye.farewell)
        elif self.state.current is ConnectionState.CLOSING:
            await connection.aclose(goodbye.code, goodbye.reason or None)
        if self.state.current is ConnectionState.CUT or self.outbox.over:
            return
        if self.state.current is ConnectionState.CLOSED:
            await beneath.wait_stopped()  # the library may be about to answer the peer's Close
        await self.outbox.wait_empty()
        if (
            self.state.current is ConnectionState.CLOSED
            and isinstance(self.stream, Socket)
            and self.stream.nothing_unread()
        ):
            return
        self.outbox.abandon()  # nothing may follow our FIN, not even the library's answer to a late Close
        await beneath.linger()

    def _say(self, goodbye: _Goodbye) -> None:
        if self._goodbye is None and self.state.can(ConnectionEvent.WE_CLOSED):
            self._goodbye = goodbye
            self.state.advance(ConnectionEvent.WE_CLOSED)
            self._attention.set()

    def _tell(self, how: CloseFrame | FrameError | Lost) -> None:
        if not self._told:
            self._told = True
            self.handler.on_close(how)

    def peer_ended(self, how: CloseFrame | FrameError) -> None:
        """The peer's stream is over, in the order of its bytes."""
        if isinstance(how, FrameError):  # no answer to our Close would be found in what is no WebSocket any more
            self.cut(frame(CLOSE, close_payload(how.code, how.reason), mask=self._mask))
        elif self.state.can(ConnectionEvent.PEER_CLOSED):
            self.state.advance(ConnectionEvent.PEER_CLOSED)
        self._tell(how)  # last: what it leads to may not change how this connection ends

    def leave(self) -> None:
        """Nothing more will be read."""
        self._attention.set()

    def close_is_put(self) -> None:
        """Our Close is in the outbox, as the last thing."""
        self._close_put_at = self.outbox.written_bytes + self.outbox.waiting_bytes


__all__ = [
    "CONNECTION",
    "READ_BYTES",
    "ConnectionEvent",
    "ConnectionState",
    "FrameHandler",
    "Lost",
    "ReadBuffer",
    "WebSocket",
    "choose_read_size",
]
