"""A connected socket that can also be read and written without waiting.

Trio's own SocketStream always waits in `send_all`, and reads into new bytes. Forwarding needs neither.
Errors are sticky. After a reset taken by a *write*, the kernel would go on to give reads their data and then a clean end,
and a lost peer would look like a finished one. Once broken, always broken.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
from collections.abc import Awaitable, Sequence
from typing import Final, Protocol, TypeAlias, cast, final, runtime_checkable

import trio

Buffer: TypeAlias = bytes | bytearray | memoryview

_NO_LONGER_THERE: Final = frozenset({errno.EBADF, errno.ENOTSOCK})
GATHERED: Final = 512
"""Pieces given to one write; the kernel takes 1,024 at most."""
_KEEPALIVE_PROBES: Final = 5


@runtime_checkable
class WritesNow(Protocol):
    """A stream that can be written without waiting."""

    def write_now(self, parts: Sequence[Buffer]) -> int:
        """Write a prefix of `parts` and return its length. 0 means full. Never waits, and is not a checkpoint.

        Raises as `send_all` does. Only the owner of the writing side may call it (`Outbox`).
        """


@runtime_checkable
class ReadsNow(Protocol):
    """A stream that can be read without waiting, into a buffer that is not kept for it."""

    def read_now(self, into: memoryview) -> int | None:
        """Read the available bytes. Return their number, 0 at the end of the stream, or None if there are none yet."""

    def wait_readable(self) -> Awaitable[None]:
        """Wait until `read_now` would not answer None."""


def writes_now(stream: trio.abc.SendStream) -> WritesNow | None:
    """Return the stream if it can be written without waiting. An isinstance check of a protocol would take 10 µs."""
    return cast(WritesNow, stream) if hasattr(stream, "write_now") else None


def reads_now(stream: trio.abc.ReceiveStream) -> ReadsNow | None:
    """Return the stream if it can be read without waiting."""
    return cast(ReadsNow, stream) if hasattr(stream, "read_now") else None


async def drop(stream: trio.abc.Stream) -> None:
    """Close a stream now, without ceremony, waiting or checkpoint where that can be."""
    if hasattr(stream, "close"):
        stream.close()
    else:
        await trio.aclose_forcefully(stream)


async def end_writing(stream: trio.abc.Stream) -> bool:
    """Tell the peer that nothing follows the bytes written so far. Return whether this stream can tell it.

    TLS cannot half close, so under TLS the end of the transport tells. Completeness is a matter of the protocol above.
    Raises as `send_eof`.
    """
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if not isinstance(transport, trio.abc.HalfCloseableStream):
        return False
    await transport.send_eof()
    return True


@final
class Socket(trio.abc.HalfCloseableStream):
    """A byte stream over a connected, non-blocking stream socket (TCP or unix), which it owns."""

    def __init__(self, sock: socket.socket, *, dead_peer_seconds: float = 150.0) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._broken: str | None = None
        self._eof_sent = False
        self._receiving = self._sending = False
        self._is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        self._dead_peer_seconds = dead_peer_seconds
        if self._is_tcp:
            for level, name, value in _options(dead_peer_seconds):
                sock.setsockopt(level, name, value)

    @property
    def peer(self) -> str | None:
        """The peer's address without its port. None for a unix socket, or a peer already gone."""
        try:
            name = self._sock.getpeername()
        except OSError:
            return None
        return name[0] if isinstance(name, tuple) else None

    @property
    def closed(self) -> bool:
        """Whether it was closed from this side."""
        return self._sock.fileno() == -1

    # --- without waiting

    def read_now(self, into: memoryview) -> int | None:
        """As `ReadsNow` says. Raises trio.BrokenResourceError, trio.ClosedResourceError."""
        if self._broken is not None:
            self._check()
        try:
            return self._sock.recv_into(into)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise self._break(error) from error

    def write_now(self, parts: Sequence[Buffer]) -> int:
        """As `WritesNow` says. Raises trio.BrokenResourceError, trio.ClosedResourceError."""
        if self._broken is not None:
            self._check()
        try:
            if len(parts) == 1:
                return self._sock.send(parts[0])
            return self._sock.sendmsg(parts[:GATHERED])
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise self._break(error) from error

    def hold_output(self) -> None:
        """Keep output below a packet's size in the kernel until `end_writing`, so that it leaves in one packet with FIN.

        The kernel keeps it for 0.2 s at most. Harmless where it cannot be kept, as by a unix socket.
        """
        if self._is_tcp and hasattr(socket, "TCP_CORK"):
            try:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            except OSError:
                pass  # the write behind this tells of it

    def close(self) -> None:
        """Close now. Waiting tasks get ClosedResourceError. Unread input makes the kernel send a reset."""
        if not self.closed:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def reset(self) -> None:
        """Close now with a reset, so that the peer learns of a disorderly end. Unsent bytes are lost."""
        if not self.closed:
            try:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass  # already disconnected, so no peer can be told
            self.close()

    def nothing_unread(self) -> bool:
        """Return whether closing now would be orderly, because no input waits. An end of stream counts as none."""
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except OSError:  # no input yet (BlockingIOError), or none ever
            return True

    def input_waits(self) -> bool:
        """Return whether unread input waits. The end of the stream and an error count as input."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def seconds_of_silence(self) -> float | None:
        """Return how long the peer's kernel has owed ours an answer, or None while it owes none (clause C3.3).

        A peer that merely does not read is not silent. It still acknowledges, and answers window probes.
        """
        if not self._is_tcp or self.closed or not hasattr(socket, "TCP_INFO"):
            return None
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8 + 13 * 4)
        except OSError:
            return None
        if len(info) < 60:
            return None
        unanswered_probes = info[3]
        numbers = struct.unpack_from("=13I", info, 8)
        unacknowledged, last_ack_ms = numbers[4], numbers[12]
        return last_ack_ms / 1000 if unacknowledged or unanswered_probes else None

    # --- Trio's stream contract

    def wait_readable(self) -> Awaitable[None]:
        """As `ReadsNow` says. Raises trio.ClosedResourceError, trio.BusyResourceError."""
        self._check()
        return trio.lowlevel.wait_readable(self._sock)  # noqa: ASYNC105 - the caller awaits it

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As trio.abc.ReceiveStream. If cancelled: nothing was read."""
        if max_bytes is None:
            max_bytes = 65536
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this socket")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while True:
                self._check()
                try:
                    data = self._sock.recv(max_bytes)
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    return data
                except (BlockingIOError, InterruptedError):
                    await trio.lowlevel.wait_readable(self._sock)
                except OSError as error:
                    raise self._break(error) from error
        finally:
            self._receiving = False

    async def send_all(self, data: Buffer) -> None:
        """As trio.abc.SendStream. If cancelled: a prefix of `data` may have been sent."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self.check_sendable()
            with memoryview(data) as left:
                sent = 0
                while sent < len(left):
                    took = self.write_now([left[sent:]])
                    sent += took
                    if not took:
                        await self._wait_writable()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """As trio.abc.SendStream. Raises trio.BrokenResourceError for a peer found dead meanwhile (clause C3.3)."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self.check_sendable()
            await self._wait_writable()
        finally:
            self._sending = False

    async def _wait_writable(self) -> None:
        # No event tells that a kernel has gone silent, so check from time to time. It has to be silent at two checks in
        # a row. A full peer is probed ever less often, so its last answer may be old while the next is on its way.
        suspected = False
        while True:
            with trio.move_on_after(max(self._dead_peer_seconds / 10, 1.0)):  # a kernel may wait 0.5 s with an answer
                await trio.lowlevel.wait_writable(self._sock)
                return
            silence = self.seconds_of_silence()
            silent = silence is not None and silence > self._dead_peer_seconds
            if suspected and silent:
                self._broken = f"the peer has been silent for {silence:.0f} s with data on its way"
                raise trio.BrokenResourceError(self._broken)
            suspected = silent

    async def send_eof(self) -> None:
        """As trio.abc.HalfCloseableStream."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        await trio.lowlevel.checkpoint()
        self.end_writing()

    def end_writing(self) -> None:
        """Send FIN behind the bytes written so far, without waiting. Twice is harmless."""
        self._check()
        if not self._eof_sent:
            self._eof_sent = True
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                raise self._break(error) from error

    async def aclose(self) -> None:
        """Close. Always succeeds."""
        self.close()
        await trio.lowlevel.checkpoint()

    # --- errors

    def _check(self) -> None:
        if self._sock.fileno() == -1:
            raise trio.ClosedResourceError("this socket was already closed")
        if self._broken is not None:
            raise trio.BrokenResourceError(self._broken)

    def check_sendable(self) -> None:
        """Raise what `send_all` would raise for a closed, broken or ended sending side."""
        self._check()
        if self._eof_sent:
            raise trio.ClosedResourceError("this socket's sending side was already ended")

    def _break(self, error: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
        if error.errno in _NO_LONGER_THERE:
            return trio.ClosedResourceError("this socket was already closed")
        self._broken = error.strerror or str(error)
        return trio.BrokenResourceError(self._broken)


@functools.lru_cache(maxsize=8)
def _options(dead_peer_seconds: float) -> tuple[tuple[int, int, int], ...]:
    """Return the options of a TCP socket: no delay, and the kernel asks an idle peer's kernel whether it is there (C3.3).

    They are the same for nearly all sockets of a process.
    """
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (
        ("TCP_KEEPIDLE", max(1, int(dead_peer_seconds / 2))),
        ("TCP_KEEPINTVL", max(1, int(dead_peer_seconds / (_KEEPALIVE_PROBES * 2)))),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return tuple(options)
