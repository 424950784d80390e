"""A worker's link to an engine behind a socket."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Final, final

import trio

from ..errors import FrameError
from ..wire import MAX_MESSAGE_BYTES, Close
from .frames import CloseFrame, MessageScanner, masked_text
from .link import EndReason, Reads
from .listening import Listening
from .websocket import Lost, WebSocket

_BOUND: Final = 1024 * 1024  # bytes sent and not yet taken, or received and not yet looked at, before one waits


@final
class RemoteLink:
    """A `Link` over a WebSocket, and the handler of its connection."""

    def __init__(self, new_mask: Callable[[], bytes]) -> None:
        self._new_mask = new_mask
        self._held = False
        self._reads: Reads | None = None
        self._scanner = MessageScanner(MAX_MESSAGE_BYTES, masked=False)
        self._into, self._out_of = trio.open_memory_channel[bytes](math.inf)
        self._waiting_bytes = 0
        self._taken = trio.lowlevel.ParkingLot()
        self._listening: Listening | None = None
        self._websocket: WebSocket | None = None
        self._ended: EndReason | None = None
        self._closed_here: str | None = None

    # --- the worker's side

    async def receive(self) -> bytes | None:
        """As `Link.receive`."""
        try:
            message = await self._out_of.receive()
        except trio.EndOfChannel:
            return None
        return self._took(message)

    async def listen(self, on_message: Callable[[bytes], object]) -> None:
        """As `Link.listen`."""
        with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                on_message(self._took(self._out_of.receive_nowait()))
        listening = self._listening = Listening(on_message)
        try:
            if self._ended is not None:
                listening.end()
            await listening.wait()
        finally:
            self._listening = None

    def _took(self, message: bytes) -> bytes:
        self._waiting_bytes -= len(message)
        self._taken.unpark_all()
        return message

    def send(self, message: bytes) -> None:
        """As `Link.send`."""
        self.send_later(message)
        websocket = self._websocket
        if websocket is not None and websocket.talking and not self._held:
            websocket.outbox.flush()

    def send_later(self, message: bytes) -> None:
        """As `Link.send_later`."""
        websocket = self._websocket
        if websocket is not None and websocket.talking:
            websocket.outbox.put(masked_text(message, self._new_mask()))

    def bracket(self, reads: Reads) -> None:
        """As `Link.bracket`."""
        self._reads = reads

    def hold_output(self) -> None:
        """As `Link.hold_output`."""
        self._held = True

    def flush_output(self) -> None:
        """As `Link.flush_output`."""
        self._held = False
        if self._websocket is not None:
            self._websocket.outbox.flush()

    @property
    def is_checked(self) -> bool:
        """As `Link.is_checked`."""
        return False

    @property
    def has_room(self) -> bool:
        """As `Link.has_room`."""
        return self._websocket is None or self._websocket.outbox.waiting_bytes <= _BOUND

    async def wait_room(self) -> None:
        """As `Link.wait_room`."""
        await trio.lowlevel.checkpoint()
        if self._websocket is not None and not self.has_room:
            await self._websocket.outbox.wait_empty()

    def close(self, reason: str = "") -> None:
        """As `Link.close`."""
        if self._websocket is not None and self._ended is None:
            self._closed_here = reason or "it closed"
            self._websocket.close(Close.NORMAL, reason)

    @property
    def ended(self) -> EndReason | None:
        return self._ended

    # --- as the connection's handler

    def on_open(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    @property
    def unparsed(self) -> bytes:
        return self._scanner.tail

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        messages, controls = self._scanner.scan(data)
        if self._listening is not None:
            self._listening.give([bytes(payload) for _, payload in messages], self._reads)
        else:
            for _, payload in messages:
                self._waiting_bytes += len(payload)
                self._into.send_nowait(bytes(payload))
        return controls, self._scanner.error or self._scanner.closed

    async def wait_ready(self) -> None:
        while self._waiting_bytes > _BOUND and self._websocket is not None and self._websocket.talking:
            await self._taken.park()

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        code = None
        match how:
            case _ if self._closed_here is not None:
                reason = self._closed_here
            case CloseFrame():
                code = str(how.code)
                reason = f"the engine closed with {how.code}" + (f" ({how.reason})" if how.reason else "")
            case FrameError():
                reason = f"the engine broke the protocol: {how.reason}"
            case Lost():
                reason = how.cause
        self._ended = EndReason(None, reason, code)
        self._into.close()
        if self._listening is not None:
            self._listening.end()
        self._taken.unpark_all()
