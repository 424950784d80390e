"""Read a stream into the one buffer that all connections of an engine, or of a worker, share.

Nothing waits between a read and the end of its parsing, so one buffer is enough for every connection. The bytes that a
parser cannot use yet (under 140) are kept by the parser, and placed before the next read.
"""

from __future__ import annotations

from typing import Final, final

import trio

from .socket import Socket, reads_now

READ_BYTES: Final = 262_144
"""The largest single read: the read-ahead of clause C3.2."""
_SLACK: Final = 256  # room before each read for the unparsed bytes of the read before
_MIN_BYTES: Final = 4096
_HEAD_BYTES: Final = 16_384
_LATE_BYTES: Final = 16 * 1024 * 1024
"""How many bytes may come behind our Close, which is more than a network holds. A peer that sends more does not read: a
writer on the Rust SDK, for example, notices the end by a reset only."""


def choose_read_size(n: int, messages: int, max_messages: int) -> int:
    """How many bytes to read at once for about `max_messages` messages of the size seen last (`messages` in `n` bytes).

    One read and its effects occupy the loop without a pause, and many small messages would make that pause long.
    """
    size = n * max_messages // messages if messages else READ_BYTES
    # Not by min and max, which take longer, because this is asked after every read of a worker.
    return _MIN_BYTES if size < _MIN_BYTES else READ_BYTES if size > READ_BYTES else size


@final
class ReadBuffer:
    """The buffer into which all connections of an engine, or of a worker, read."""

    def __init__(self, size: int = READ_BYTES) -> None:
        self._view = memoryview(bytearray(_SLACK + size))
        self.free = self._view[_SLACK:]

    def filled(self, tail: bytes, n: int) -> memoryview:
        """Return the `n` bytes just read into `free`, with `tail` placed before them."""
        start = _SLACK - len(tail)
        self._view[start:_SLACK] = tail
        return self._view[start : _SLACK + n]


def read_at_once(stream: trio.abc.Stream, buffer: ReadBuffer) -> bytes:
    """Read the first bytes of a stream if they are here already. Return nothing if none are, or if only waiting can tell.

    Raises trio.BrokenResourceError, trio.ClosedResourceError.
    """
    now = reads_now(stream)
    return bytes(buffer.free[: now.read_now(buffer.free[:_HEAD_BYTES]) or 0]) if now is not None else b""


@final
class StreamInput:
    """The incoming side of one connection. `rest` holds bytes that were read before it began."""

    def __init__(self, stream: trio.abc.Stream, buffer: ReadBuffer) -> None:
        self.rest = b""
        self.read_size = READ_BYTES
        """How many bytes to read at once."""
        self.at_end = False
        """Whether the peer's stream has ended, or is of no use any more."""
        self._stream = stream
        self._buffer = buffer
        self._now = reads_now(stream)
        self._late_bytes = 0
        # Whether the last read emptied the stream. The kernel tells of all that a socket has, and the other side rarely
        # sends before it has our head. Under TLS input may wait in the stream itself, so that only a read tells of it.
        self._drained: bool | None = True if isinstance(stream, Socket) else None

    async def read(self, tail: bytes) -> memoryview | None:
        """Return the next bytes behind `tail`, valid until any connection reads again. None at the end of the stream.

        Raises trio.BrokenResourceError, trio.ClosedResourceError. If cancelled: nothing was read.
        """
        now = self._now
        if self.rest:
            data, self.rest = self.rest, b""
            return memoryview(data)
        if now is None:
            received = await self._stream.receive_some(READ_BYTES)
            return memoryview(tail + received) if received else None
        if self._drained:
            await now.wait_readable()
        elif self._drained is False:
            # More input waits, most likely: let other tasks have their turn first.
            await trio.lowlevel.checkpoint()
        free, size = self._buffer.free, self.read_size
        while (n := now.read_now(free[:size])) is None:
            await now.wait_readable()
        self._drained = n < size
        if n and not tail:
            return free[:n]
        return self._buffer.filled(tail, n) if n else None

    async def discard(self) -> None:
        """Read and drop input until the peer's end, an error, or too much of it. If cancelled: some was dropped."""
        try:
            while (data := await self._stream.receive_some(READ_BYTES)) and not self.too_late(len(data)):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.at_end = True

    def too_late(self, n: int) -> bool:
        """Count `n` bytes that came behind our Close. Return whether they are so many that the peer cannot be reading."""
        self._late_bytes += n
        return self._late_bytes > _LATE_BYTES
