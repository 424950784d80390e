"""The output of one stream. It is written at once if the stream takes it, and otherwise by a task.

Theory of operation. Senders put their bytes here, whole frames at a time, and never wait. If nothing waits already,
`flush` writes what the stream takes without waiting. Only for the rest is a task started, in the nursery of
the connection. It ends when the outbox is empty. So an idle connection has no such task, and a cancelled caller cannot
tear a frame: the rest of a begun frame is in here, not in the caller's hands. Streams that cannot be written without
waiting (TLS) go through the task always; the meaning is the same.

Many small puts by one task come a turn of the loop apart, and a write costs more than a turn. So output that `gather`
puts just after other output waits for more. A task looks at every turn, and writes once nothing has followed.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from .frames import FrameBatch
from .memory_budget import MemoryCharge
from .socket import GATHERED, Buffer, WritesNow, writes_now
from .tls import TlsStream

_WAITED_FOR: Final = 65_536  # bytes given at once to a stream that must be waited for
_TOGETHER: Final = 0.0001  # seconds; what is put longer than this after something else is alone, and written at once
_ENOUGH: Final = 16  # pieces that wait to be written together
_JOINED: Final = 512  # bytes; where many wait, smaller pieces are joined: each object takes 90 bytes more
_JOINED_TO: Final = 16_384  # bytes; a joined piece is no larger
_PIECE_OVERHEAD: Final = 96  # bytes that the records of one waiting piece take
_QUIET: Final = 2  # turns without a put: one may be over before whoever puts had its step in it


@final
class Outbox:
    """The one owner of what a stream writes.

    `start_soon` starts its task in the connection's nursery; `broken` is called, once, with the cause when a write fails,
    or when the task found the stream to take no byte for `stalled_seconds`.
    """

    def __init__(
        self,
        stream: trio.abc.SendStream,
        start_soon: Callable[[Callable[[], Awaitable[object]]], object],
        broken: Callable[[str], None],
        stalled_seconds: float = math.inf,
    ) -> None:
        self._stream = stream
        self._now = writes_now(stream)
        self._tls = stream if isinstance(stream, TlsStream) else None
        self._start_soon = start_soon
        self._tell_broken = broken
        self._stalled_seconds = stalled_seconds
        self._waiting: list[Buffer] = []  # an empty deque would take 700 bytes of each idle connection
        self._begun = 0  # of those that wait: of the last of these a part, at least, may have been written
        self._put_at = -math.inf
        self._puts = 0
        self._gathering = False
        self._busy = False  # a task is writing
        self._empty: trio.Event | None = None  # of the task that is writing
        self.waiting_bytes = 0
        self.written_bytes = 0
        self.memory: MemoryCharge | None = None
        """Where the bytes that wait are counted, if they are. A stream that takes all at once never touches it."""
        self.over = False
        """Broken or abandoned: what is put is thrown away."""

    def put(self, data: Buffer) -> None:
        """Take whole frames, to be written by the next `flush`."""
        if self.over:
            return
        size, waiting = len(data), self._waiting
        self.waiting_bytes += size
        # Nearly always nothing is being written, and little waits.
        if (self._busy or len(waiting) >= GATHERED) and size < _JOINED:
            self._join(data)
        else:
            waiting.append(data)

    def _join(self, data: Buffer) -> None:
        """Add a small piece to the one before it. A flood of small unread answers takes its own size, no more."""
        waiting = self._waiting
        # A piece that has been begun is left alone, because a view of it may exist, and a bytearray with views cannot grow.
        if len(waiting) > self._begun and type(waiting[-1]) is bytearray and len(waiting[-1]) < _JOINED_TO:
            waiting[-1] += data
        else:
            waiting.append(bytearray(data))

    def flush(self) -> None:
        """Write what can be written at once; leave the rest to the task."""
        if self._busy:
            self._count()
            return
        if not self._waiting:
            return
        if self._now is not None:
            self._write_now(self._now)
            if not self._waiting and (self._tls is None or not self._tls.unsent):
                return
        self._start_writing()
        self._count()

    def gather(self) -> None:
        """Do as `flush`, together with the output of the next turns of the loop if there was output just before."""
        now = trio.current_time()
        alone = now - self._put_at > _TOGETHER
        self._put_at = now
        self._puts += 1
        if alone or len(self._waiting) >= _ENOUGH:
            self.flush()
        elif not self._gathering and not self._busy and not self.over:
            self._gathering = True
            self._start_soon(self._gather)

    def offer(self, batch: FrameBatch) -> FrameBatch | None:
        """Write as much of a batch as the stream takes at once; give back the frames that were not begun.

        The rest of a begun frame stays here, so that later output goes between two frames. With something
        waiting already, nothing is begun.
        """
        if self._waiting or self._busy:
            return batch
        if self.over:
            return None
        if self._now is None:
            self._waiting.extend(batch.parts)
            self.waiting_bytes += batch.size
            self.flush()
            return None
        try:
            took = self._now.write_now(batch.parts)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._break(str(error))
            return None
        self.written_bytes += took
        if self._tls is not None and self._tls.unsent:
            self._start_writing()
        if took == batch.size:
            return None
        if not took:
            return batch
        torn, rest = batch.sent(took)
        for part in torn:
            self.put(part)
        self._count()
        return rest

    async def wait_writable(self) -> None:
        """Wait until nothing waits and the stream would take something (or all is over). If cancelled: nothing is lost."""
        if self._empty is not None:
            await self._empty.wait()
        elif self._now is None or self.over:
            await trio.lowlevel.checkpoint()
        else:
            self._begin_writing()
            try:
                await self._wait()
                while self._waiting:
                    self._write_now(self._now)
                    if self._waiting:
                        await self._wait()
            finally:
                self._end_writing()
                self._count()
                if self._waiting:
                    self.flush()  # cancelled: what we began to write goes on without us

    async def wait_empty(self) -> None:
        """Wait until all that was put has been written, or all is over."""
        self.flush()
        while not self.is_written and not self.over:
            if self._empty is not None:
                await self._empty.wait()
            else:
                await self.wait_writable()

    def drop_unbegun(self) -> None:
        """Forget the output that was not begun, where each `put` was one whole frame."""
        begun = self._waiting[: self._begun]
        self._waiting = begun
        self.waiting_bytes = sum(map(len, begun))
        self._count()

    @property
    def is_written(self) -> bool:
        """Whether the transport has taken everything that was put."""
        return not self._waiting and (self._tls is None or not self._tls.unsent)

    @property
    def empty(self) -> bool:
        return not self._waiting and not self._busy

    def abandon(self) -> None:
        """Throw away all output, now and later."""
        self.over = True
        self._waiting = []  # a new object: a traceback may still hold views of the old one
        self.waiting_bytes = 0
        if self._empty is not None:
            self._empty.set()
        self._count()

    def forget_connection(self) -> None:
        """Forget the connection, which is over. The outbox was abandoned before, so that it reports nothing more."""
        del self._tell_broken

    def _count(self) -> None:
        """Count what waits, and its overhead. This may close the connection, if its peer holds most of all."""
        if self.memory is not None:
            self.memory.set(self.waiting_bytes + _PIECE_OVERHEAD * len(self._waiting))

    # --- writing

    def _start_writing(self) -> None:
        """Start the task that writes what the stream did not take at once."""
        if not self.over and not self._busy:
            self._begin_writing()
            self._start_soon(self._write_rest)

    def _begin_writing(self) -> None:
        self._busy = True
        self._empty = trio.Event()

    def _end_writing(self) -> None:
        self._busy = False
        if self._empty is not None:
            self._empty.set()
            self._empty = None

    def _write_now(self, stream: WritesNow) -> None:
        try:
            took = stream.write_now(self._waiting[:GATHERED])
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._break(str(error))
            return
        # Nearly always the stream takes everything.
        if took == self.waiting_bytes:
            self.written_bytes += took
            self.waiting_bytes = self._begun = 0
            self._waiting.clear()
        else:
            self._took(took)

    def _took(self, took: int) -> None:
        if not took:
            return  # what was begun stays begun
        self.written_bytes += took
        self.waiting_bytes -= took
        if not self.waiting_bytes:
            self._waiting.clear()
            self._begun = 0
            return
        waiting = self._waiting
        whole = self._begun = 0
        while took:
            first = waiting[whole]
            if took < len(first):
                waiting[whole] = memoryview(first)[took:]
                self._begun = 1
                break
            took -= len(first)
            whole += 1
        del waiting[:whole]

    async def _wait(self) -> None:
        try:
            await self._stream.wait_send_all_might_not_block()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._break(str(error))

    async def _write_rest(self) -> None:
        try:
            while not self.is_written and not self.over:
                with trio.move_on_after(self._stalled_seconds) as patience:
                    if self._now is not None:
                        await self._wait()
                    else:
                        await self._send_some()
                if patience.cancelled_caught:
                    waiting = f"with {self.waiting_bytes} bytes waiting"
                    self._break(f"the peer took nothing for {self._stalled_seconds:g} s, {waiting}")
                elif self._now is not None and self._waiting:
                    self._write_now(self._now)
                self._count()
        finally:
            self._end_writing()
            self._count()

    async def _gather(self) -> None:
        """Flush once nothing more was put."""
        try:
            quiet = 0
            while quiet < _QUIET and not self.over:
                puts = self._puts
                await trio.lowlevel.checkpoint()
                quiet = quiet + 1 if puts == self._puts else 0
        finally:
            self._gathering = False
            self.flush()

    async def _send_some(self) -> None:
        """Write the first of what waits to a stream that cannot be written without waiting."""
        data, self._begun = bytearray(), 0
        for piece in self._waiting[:GATHERED]:
            data += memoryview(piece)[: _WAITED_FOR - len(data)]
            self._begun += 1  # from here on it is begun: it goes out whole, or not at all
            if len(data) == _WAITED_FOR:
                break
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._break(str(error))
        else:
            if not self.over:
                self._took(len(data))

    def _break(self, cause: str) -> None:
        if not self.over:
            self.abandon()
            self._tell_broken(cause)
