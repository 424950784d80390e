"""Listening sockets. Accepting pauses while the system is out of file descriptors or memory."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from ..errors import ListenFailed

_OUT_OF_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_OF_ONE_CONNECTION: Final = frozenset(
    {
        errno.EPERM,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
    }
)
"""Errors that accept(2) passes on from one new connection, and that say nothing of the listening socket."""
_BACKLOG: Final = 1024
_RETRY_SECONDS: Final = 0.1


@final
class ListeningSocket:
    """A bound, listening TCP or unix socket."""

    def __init__(self, sock: socket.socket, made: os.stat_result | None = None) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._made = made  # the file of a unix socket of ours, to be removed
        self._closed = trio.Event()

    @classmethod
    async def bind(cls, host: str, port: int) -> list[ListeningSocket]:
        """Bind every address of `host`. Port 0 lets the system choose one port for all of them.

        Raises ListenFailed with one sentence that names the obstacle.
        """
        where = f"{host}:{port}"
        # For a text, Python loads its codec of international names, also where the address is a number.
        name = host.encode() if host.isascii() else host
        try:
            found = await trio.socket.getaddrinfo(
                name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
            )
        except OSError as error:
            raise ListenFailed(f"cannot listen at {where}: {error.strerror or error}") from None
        except ValueError:  # of the codec of international names, or for a NUL
            raise ListenFailed(f"cannot listen at {where}: no host can have this name; give another") from None
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
                raise ListenFailed(
                    f"cannot listen at {where}: the port is in use; choose another, or stop what uses it", in_use=True
                ) from None
            raise ListenFailed(f"cannot listen at {where}: {error.strerror or error}") from None
        return bound

    @classmethod
    def bind_unix(cls, path: str, mode: int = 0o600) -> ListeningSocket:
        """Bind a unix socket with the file mode `mode`, independent of the umask. Replace the file of a dead server.

        A user needs write permission on the file, and search permission on its folders, to connect.
        Raises ListenFailed.
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
            # Between bind and listen nobody can connect, so the umask's mode never counts.
            os.chmod(path, mode)
            sock.listen(_BACKLOG)
            return cls(sock, os.stat(path))
        except OSError as error:
            sock.close()
            cause = error.strerror or str(error)
            in_use = error.errno == errno.EADDRINUSE
            if in_use:
                cause = "another server listens there, or it is another kind of file; choose another path"
            raise ListenFailed(f"cannot listen at unix:{path}: {cause}", in_use=in_use) from None
        except ValueError:
            sock.close()
            raise ListenFailed(f"cannot listen at unix:{path}: no file can have this name; give another") from None

    @classmethod
    def adopt(cls, descriptor: int) -> ListeningSocket:
        """Take over a listening socket that the parent process opened. Raises ListenFailed."""
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError as error:
            raise ListenFailed(f"cannot listen at file descriptor {descriptor}: {error.strerror}") from None
        usable = sock.type == socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        if not usable or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.detach()
            raise ListenFailed(f"cannot listen at file descriptor {descriptor}: it is not a listening stream socket")
        os.set_inheritable(descriptor, False)
        return cls(sock)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def url(self, *, secure: bool = False) -> str:
        """Return the address in the form that workers dial: `ws://host:port`, `wss://host:port`, `unix:/path`."""
        name = self._sock.getsockname()
        if isinstance(name, str):
            return f"unix:{name}"
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{'wss' if secure else 'ws'}://{host}:{name[1]}"

    def set_mode(self, mode: int) -> None:
        """Change the file mode of a unix socket that `bind_unix` made. Nothing happens for any other socket."""
        if self._made is not None:
            os.chmod(self._sock.getsockname(), mode)

    def close(self) -> None:
        """Stop listening. Wakes the task that accepts."""
        if self._sock.fileno() == -1:
            return
        made, path = self._made, self._sock.getsockname()
        self._closed.set()
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        if made is not None:
            try:
                there = os.stat(path)
                if (there.st_dev, there.st_ino) == (made.st_dev, made.st_ino):
                    os.unlink(path)
            except OSError:
                pass  # the file, or its folder, was removed by others

    async def accept_each(
        self, handle_connection: Callable[[socket.socket], Awaitable[object]], nursery: trio.Nursery
    ) -> None:
        """Start `handle_connection` in `nursery` for each connection, until closed. The callee closes the connection.

        If cancelled: nothing is accepted any more, and open connections go on.
        """
        while not self._closed.is_set():
            try:
                await trio.lowlevel.wait_readable(self._sock)
                connection, _ = self._sock.accept()
            except trio.ClosedResourceError:
                return
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                continue
            except OSError as error:
                # It may be closed after this task was woken and before its turn.
                if self._closed.is_set():
                    return
                if error.errno in _OF_ONE_CONNECTION:
                    continue
                if error.errno not in _OUT_OF_ROOM:
                    raise
                # No event tells that descriptors became free elsewhere. Closing must not wait for the next try.
                with trio.move_on_after(_RETRY_SECONDS):
                    await self._closed.wait()
                continue
            nursery.start_soon(handle_connection, connection)


def _is_abandoned(path: str) -> bool:
    """Return whether this is a unix socket without a listener."""
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
