"""A wire to the engine that can be cut: a relay of TCP connections, which are reset at both ends at once."""

from __future__ import annotations

import socket
import struct
from random import Random
from typing import Final

import trio

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing is resetting
_READ: Final = 65_536


class Wire:
    """Relays whoever connects at `port` to the engine at `engine_port` of this machine."""

    def __init__(self, engine_port: int) -> None:
        self.port = 0
        self._engine_port = engine_port
        self._open: dict[trio.CancelScope, None] = {}

    @property
    def connections(self) -> int:
        """How many it carries now."""
        return len(self._open)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Relay until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        await trio.serve_listeners(self._carry, [listener], task_status=_Told(task_status))

    def cut(self, random: Random) -> None:
        """Reset all connections, or one of them."""
        scopes = list(self._open)
        for scope in scopes if random.random() < 0.5 else random.sample(scopes, min(1, len(scopes))):
            scope.cancel()

    async def _carry(self, near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self._engine_port)
        except OSError:
            return
        with trio.CancelScope() as scope:
            self._open[scope] = None
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pump, near, far, scope)
                    nursery.start_soon(_pump, far, near, scope)
            finally:
                del self._open[scope]
                for stream in (near, far):
                    if scope.cancel_called:
                        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    stream.socket.close()


class _Told:
    """Says that it started, and nothing else."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status

    def started(self, value: object = None) -> None:
        self._task_status.started()


async def _pump(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some(_READ):
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        scope.cancel()  # one end was lost: the other is, too
