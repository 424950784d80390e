"""`/otel`: a connection that only brings telemetry. SDKs would try again for ever if it were refused."""

from __future__ import annotations

import logging
from typing import Final

import trio

from ..errors import FrameError
from ..transport.frames import BINARY, CloseFrame, MessageScanner
from ..transport.http1 import Head
from ..transport.websocket import Lost, WebSocket
from ..wire import Close
from .policy import ListenerPolicy
from .shell import Shell

_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""The largest message here. Exporters of OpenTelemetry send batches of some hundred kB."""


async def serve_telemetry(
    shell: Shell, stream: trio.abc.Stream, head: Head, peer: str | None, policy: ListenerPolicy
) -> None:
    """Take telemetry, and answer pings, until the connection is over or the engine closes. If cancelled: it is dropped.

    Where workers need a token, telemetry without one is thrown away. Most SDKs can show none here, and any process could
    otherwise write into the log. It is scanned without being kept.
    """
    max_bytes = policy.message_bytes(shell.config.limits)
    handler = _Telemetry(shell, peer, max_bytes, believed=policy.trusts(head))
    websocket = WebSocket(
        stream,
        handler,
        buffer=shell.buffer,
        lost_connections=shell.lost_connections,
        goodbye_seconds=shell.config.timeouts.goodbye_seconds,
    )
    with shell.stopped_by_close(lambda: websocket.close(Close.SERVICE_RESTART, "the engine was closed")):
        try:
            await websocket.serve(head)
        finally:
            handler.release()


class _Telemetry:
    """The handler of such a connection. Text, and binary messages that are not telemetry, mean nothing here."""

    def __init__(self, shell: Shell, peer: str | None, message_bytes: int, *, believed: bool) -> None:
        self._shell = shell
        self._about = {"peer": peer or ""}
        if believed:
            message_bytes = min(message_bytes, _MAX_MESSAGE_BYTES)
        self._scanner = MessageScanner(message_bytes, masked=True)
        if not believed:
            self._scanner.discard()
        self._memory = shell.memory.open_account(f"telemetry from {peer}", self._evict).charge()
        self._websocket: WebSocket | None = None

    def on_open(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    def _evict(self, reason: str) -> None:
        """Give up this peer, which holds more of the engine's memory than any other."""
        self._shell.log(logging.WARNING, f"a telemetry connection is closed: {reason}", **self._about)
        self._keep_nothing()
        if self._websocket is not None:
            self._websocket.close(Close.TRY_AGAIN_LATER, reason)

    def _keep_nothing(self) -> None:
        self._scanner.discard()
        self._memory.set(0)

    def release(self) -> None:
        """Take apart the circle of the connection and its handler, so that nothing waits for the cycle collector."""
        self._keep_nothing()
        self._websocket = None

    @property
    def unparsed(self) -> bytes:
        return self._scanner.tail

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        messages, controls = self._scanner.scan(data)
        for opcode, payload in messages:
            if opcode == BINARY:
                self._shell.on_telemetry_message(payload, self._about)
        self._memory.set(self._scanner.held_bytes)
        return controls, self._scanner.error or self._scanner.closed

    async def wait_ready(self) -> None:
        """Never wait, because telemetry is read at once."""

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        self._keep_nothing()
        if isinstance(how, FrameError):
            text = f"a telemetry connection was ended: it broke the protocol: {how.reason}"
            self._shell.log(logging.WARNING, text, **self._about)
