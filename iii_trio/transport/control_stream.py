"""The stream that trio-websocket works on. It carries the handshake and control frames, and never data frames."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, final

import trio

from .socket import Buffer


@final
class ControlStream(trio.abc.Stream):
    """A stream made of two callbacks. `receive` returns the next bytes for the library, or none at the end.

    `send` takes what the library writes, and None when the library is done with the stream. It never waits.
    """

    def __init__(
        self, receive: Callable[[], Coroutine[Any, Any, bytes]], send: Callable[[Buffer | None], None]
    ) -> None:
        self._receive = receive
        self._send = send

    def receive_some(self, max_bytes: int | None = None) -> Coroutine[Any, Any, bytes]:
        """As trio.abc.ReceiveStream, but one control frame at a time. `max_bytes` is ignored."""
        # One coroutine less for each connection that waits, and for each read to pass through.
        return self._receive()

    async def send_all(self, data: Buffer) -> None:
        """As trio.abc.SendStream. It is no checkpoint, because the library takes a lock around it, which is one."""
        self._send(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As trio.abc.SendStream. Sending never blocks."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Note that the library is done. The connection owns the real stream, and closes it later."""
        self._send(None)
