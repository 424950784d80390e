"""`/otel`: a connection that only brings telemetry. SDKs would try again for ever if it were refused."""

from __future__ import annotations

import logging

import trio

from ..errors import FrameError
from ..transport.frames import BINARY, CloseFrame, MessageScanner
from ..transport.http1 import Head
from ..transport.websocket import Lost, WebSocket
from ..wire import Close
from .engine import Shell
from .policy import ListenerPolicy


async def serve_telemetry(
    shell: Shell, stream: trio.abc.Stream, head: Head, peer: str | None, policy: ListenerPolicy
) -> None:
    """Take telemetry, and answer pings, until the connection is over or the engine closes. If cancelled: it is dropped.

    Where workers need a token, what comes without one is thrown away: most SDKs can show none here, and anybody could
    otherwise write into the log.
    """
    handler = _Telemetry(shell, peer, policy.message_bytes(shell.config.limits), believed=policy.trusts(head))
    websocket = WebSocket(
        stream,
        handler,
        buffer=shell.buffer,
        handshake_seconds=policy.handshake_seconds(shell.config.limits),
        goodbye_seconds=shell.config.timeouts.goodbye_seconds,
    )
    with shell.stopped_by_close(lambda: websocket.close(Close.SERVICE_RESTART, "the engine was closed")):
        await websocket.serve(head)


class _Telemetry:
    """The handler of such a connection. Text, and binary messages that are no telemetry, mean nothing here."""

    def __init__(self, shell: Shell, peer: str | None, message_bytes: int, *, believed: bool) -> None:
        self._shell = shell
        self._believed = believed
        self._about = {"peer": peer or ""}
        self._scanner = MessageScanner(message_bytes, masked=True)

    def on_open(self, websocket: WebSocket) -> None:
        """Nobody is told that it is there."""

    @property
    def unparsed(self) -> bytes:
        return self._scanner.tail

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        messages, controls = self._scanner.scan(data)
        for opcode, payload in messages:
            if opcode == BINARY and self._believed:
                self._shell.on_telemetry_message(payload, self._about)
        return controls, self._scanner.error or self._scanner.closed

    async def wait_ready(self) -> None:
        """What it brings is read at once."""

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        if isinstance(how, FrameError):
            text = f"a telemetry connection was ended: it broke the protocol: {how.reason}"
            self._shell.log(logging.WARNING, text, **self._about)
