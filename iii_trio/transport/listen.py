"""Listening sockets: bind, accept, pause when the system is out of room."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from ..errors import ConnectionFailed

_OUT_OF_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_BACKLOG: Final = 1024


@final
class ListeningSocket:
    """A bound, listening TCP socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    async def bind(cls, host: str, port: int) -> list[ListeningSocket]:
        """Bind every address of `host`; port 0 lets the system choose one, the same for all.

        Raises ConnectionFailed, saying in one sentence what is in the way.
        """
        where = f"{host}:{port}"
        try:
            found = await trio.socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
            )
        except OSError as error:
            raise ConnectionFailed(f"cannot listen at {where}: {error.strerror or error}") from None
        bound: list[ListeningSocket] = []
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                sock = socket.socket(family, kind, protocol)
                bound.append(cls(sock))
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if port == 0 and len(bound) > 1:
                    address = (address[0], bound[0].port, *address[2:])
                sock.bind(address)
                sock.listen(_BACKLOG)
        except OSError as error:
            for listening in bound:
                listening.close()
            if error.errno == errno.EADDRINUSE:
                raise ConnectionFailed(
                    f"cannot listen at {where}: the port is in use; choose another, or stop what uses it"
                ) from None
            raise ConnectionFailed(f"cannot listen at {where}: {error.strerror or error}") from None
        return bound

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    @property
    def url(self) -> str:
        """The address as a worker would be given it."""
        host, port = self._sock.getsockname()[:2]
        return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"

    def close(self) -> None:
        """Stop listening. Wakes the task that accepts."""
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def accept_each(self, welcome: Callable[[socket.socket], Awaitable[object]], nursery: trio.Nursery) -> None:
        """Start `welcome` with each connection, in `nursery`, until closed. The connection is then its to close.

        If cancelled: nothing is accepted any more; connections go on.
        """
        while True:
            try:
                await trio.lowlevel.wait_readable(self._sock)
                connection, _ = self._sock.accept()
            except trio.ClosedResourceError:
                return
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                continue
            except OSError as error:
                if self._sock.fileno() == -1:
                    return
                if error.errno not in _OUT_OF_ROOM:
                    raise
                await trio.sleep(0.1)  # no event tells that files were closed elsewhere
                continue
            nursery.start_soon(welcome, connection)
