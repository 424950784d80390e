"""The stream of one client: read and written without waiting where it can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import trio

from ...transport.frames import Buffer
from ...transport.socket import Socket, WritesNow, drop, reads_now, writes_now
from ...transport.tls import TlsStream
from .settings import HttpLimits

READ_SIZE: Final = 65_536
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 1024 * 1024


class ClientGone(Exception):
    """The client left or stalled. The connection is of no more use."""


@final
class ClientStream:
    """Bytes in and out. One task reads at a time, and a second writer waits for the first."""

    def __init__(self, stream: trio.abc.Stream, buffer: memoryview, limits: HttpLimits) -> None:
        self._stream = stream
        self._buffer = buffer
        self._limits = limits
        self._is_drained: bool | None = None
        """Whether the last read took all that was there, so that the next one has to wait."""
        self._now = writes_now(stream)
        self._reads = reads_now(stream)
        self.may_write_now = self._now is not None and self._reads is not None and not isinstance(stream, TlsStream)
        """Whether `write_now` may be used: the stream needs no task for its work."""
        self._writing = trio.Lock()  # a 100 (Continue) may meet the response

    async def read(self, size: int = READ_SIZE) -> bytes:
        """Read at most so many bytes, or wait for some. Empty at the end. If cancelled: nothing was read."""
        now = self._reads
        if now is None:
            return bytes(await self._stream.receive_some(size))
        if self._is_drained:
            await now.wait_readable()
        elif self._is_drained is False:
            # More waits, most likely. Others have their turn first.
            await trio.lowlevel.checkpoint()
        buffer = self._buffer[:size]
        while (found := now.read_now(buffer)) is None:
            await now.wait_readable()
        self._is_drained = found < len(buffer)
        return bytes(buffer[:found])

    async def receive(self, size: int = READ_SIZE) -> bytes:
        """Read as `read` does. Raises ClientGone."""
        try:
            return await self.read(size)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGone("the client left") from error

    async def write(self, parts: Sequence[Buffer]) -> None:
        """Write all parts. Raises ClientGone, also for a client that takes nothing for too long."""
        try:
            self._writing.acquire_nowait()
        except trio.WouldBlock:
            await self._writing.acquire()
        try:
            if self._now is not None:
                await self._write_at_once(self._now, [memoryview(part) for part in parts if part])
                return
            for part in parts:
                with trio.move_on_after(self._limits.stalled_seconds) as scope:
                    await self._stream.send_all(part)
                self._stalled(scope)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGone("the client left") from error
        finally:
            self._writing.release()

    async def _write_at_once(self, now: WritesNow, rest: list[memoryview]) -> None:
        """Write without waiting where the stream takes it, and wait for room otherwise."""
        # Other tasks run while the next item or request is waited for, so a turn of the loop is not needed here too.
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if rest:
                rest = _behind(rest, now.write_now(rest))
            if not rest and not getattr(now, "unsent", 0):
                return
            with trio.move_on_after(self._limits.stalled_seconds) as scope:
                await self._stream.wait_send_all_might_not_block()
            self._stalled(scope)

    def _stalled(self, scope: trio.CancelScope) -> None:
        if scope.cancelled_caught:
            raise ClientGone(f"the client took nothing for {self._limits.stalled_seconds:g} s")

    def write_now(self, parts: list[memoryview]) -> list[memoryview] | None:
        """Write the parts that the stream takes at once, and return the rest. Never waits.

        Return None if it takes nothing, or while something is being written.
        """
        assert self._now is not None
        if self._writing.locked():
            return None
        try:
            took = self._now.write_now(parts)
        # The task that reads finds the same, and ends the connection.
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return None
        return _behind(parts, took) if took else None

    async def wait_taken(self) -> None:
        """Wait until what is being written has left, or has failed. If cancelled: the writing goes on."""
        async with self._writing:
            pass

    # --- the end

    def reset(self) -> None:
        """End the connection with a reset, so that the client sees that it did not get all."""
        transport = self._stream.transport if isinstance(self._stream, TlsStream) else self._stream
        if isinstance(transport, Socket):
            transport.reset()

    async def linger(self) -> None:
        """Let the client take the response before the connection goes: closing with unread input would reset it."""
        if not isinstance(self._stream, trio.abc.HalfCloseableStream):
            return
        with trio.move_on_after(_LINGER_SECONDS):
            try:
                await self._stream.send_eof()
                left = _LINGER_BYTES
                while left > 0 and (data := await self._stream.receive_some(READ_SIZE)):
                    left -= len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def close(self) -> None:
        """Close the stream now."""
        await drop(self._stream)


def _behind(parts: list[memoryview], took: int) -> list[memoryview]:
    """Return the rest of some parts behind their first `took` bytes."""
    for number, part in enumerate(parts):
        if took < len(part):
            return [part[took:], *parts[number + 1 :]]
        took -= len(part)
    return []
