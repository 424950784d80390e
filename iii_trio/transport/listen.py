"""Listening sockets: bind, accept, pause when the system is out of room."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from ..errors import ConnectionFailed

_OUT_OF_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_BACKLOG: Final = 1024


@final
class ListeningSocket:
    """A bound, listening TCP or unix socket."""

    def __init__(self, sock: socket.socket, made: os.stat_result | None = None) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._made = made  # the file of a unix socket of ours, to be removed

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

    @classmethod
    def bind_unix(cls, path: str) -> ListeningSocket:
        """Bind a unix socket. A file that a dead server left there is replaced; any other is in the way.

        Who may connect is a matter of the folder's and the file's permissions. Raises ConnectionFailed.
        """
        sock = socket.socket(socket.AF_UNIX)
        try:
            try:
                sock.bind(path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not _is_abandoned(path):
                    raise
                os.unlink(path)
                sock.bind(path)
            sock.listen(_BACKLOG)
            return cls(sock, os.stat(path))
        except OSError as error:
            sock.close()
            cause = error.strerror or str(error)
            if error.errno == errno.EADDRINUSE:
                cause = "somebody listens there, or it is another kind of file; choose another path"
            raise ConnectionFailed(f"cannot listen at unix:{path}: {cause}") from None

    @classmethod
    def adopt(cls, descriptor: int) -> ListeningSocket:
        """A socket that listens already, opened by whoever started this process. Raises ConnectionFailed."""
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError as error:
            raise ConnectionFailed(f"cannot listen at file descriptor {descriptor}: {error.strerror}") from None
        usable = sock.type == socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        if not usable or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.detach()
            raise ConnectionFailed(f"cannot listen at file descriptor {descriptor}: it is no listening stream socket")
        os.set_inheritable(descriptor, False)
        return cls(sock)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def url(self, *, secure: bool = False) -> str:
        """The address as a worker would be given it: `ws://host:port`, `wss://host:port`, `unix:/path`."""
        name = self._sock.getsockname()
        if isinstance(name, str):
            return f"unix:{name}"
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{'wss' if secure else 'ws'}://{host}:{name[1]}"

    def close(self) -> None:
        """Stop listening. Wakes the task that accepts."""
        if self._sock.fileno() == -1:
            return
        made, path = self._made, self._sock.getsockname()
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        if made is not None:
            try:
                there = os.stat(path)
                if (there.st_dev, there.st_ino) == (made.st_dev, made.st_ino):
                    os.unlink(path)
            except OSError:
                pass  # somebody else removed it, or what it was in

    async def accept_each(
        self, handle_connection: Callable[[socket.socket], Awaitable[object]], nursery: trio.Nursery
    ) -> None:
        """Start `handle_connection` with each connection, in `nursery`, until closed. The connection is then its to close.

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
            nursery.start_soon(handle_connection, connection)


def _is_abandoned(path: str) -> bool:
    """Whether this is a unix socket at which nobody listens."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
