"""A channel's bytes on their way from its writer to its reader. Full means wait.

A chunk is a batch of ready-made frames (from a socket) or one whole item (from a writer in this process). Items and bytes
are bounded (clause C1.4). A chunk gives its room back when it has been *written or handed out*, not when it is taken, so
that the bound holds for all bytes that the engine keeps. A Trio memory channel would count neither the items inside a batch
nor their bytes, so the chunks wait in a deque, with a ParkingLot for the task on each side.

The channel's state machine seals the pipe behind its last chunk, or breaks it. The pipe itself knows no states or outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeAlias, final

import trio

from .frames import BINARY, TEXT, FrameBatch, message_batch
from .link import EndReason
from .memory_budget import UNLIMITED, MemoryCharge

_CHUNK_OVERHEAD: Final = 256  # bytes that the records of one chunk take
_BLOCK: Final = 4096  # bytes; memory is counted in these, so that most chunks change nothing
_SPARE: Final = 17 * _BLOCK  # bytes; so much more than is held stays counted: one message of 64 KiB with its record

Chunk: TypeAlias = FrameBatch | bytes | str


def as_batch(chunk: Chunk) -> FrameBatch:
    """Return a chunk as frames."""
    if isinstance(chunk, FrameBatch):
        return chunk
    return message_batch(TEXT, chunk.encode()) if isinstance(chunk, str) else message_batch(BINARY, chunk)


def _measure(chunk: Chunk) -> tuple[int, int]:
    if isinstance(chunk, bytes):
        return 1, len(chunk)
    if isinstance(chunk, str):
        return 1, len(chunk) if chunk.isascii() else len(chunk.encode())
    return chunk.items, chunk.payload


@final
class Pipe:
    """The bounded way between the two ends of one channel."""

    def __init__(self, max_items: int, max_bytes: int, memory: MemoryCharge | None = None) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.memory = memory
        self._budget = UNLIMITED if memory is None else memory.account.budget
        self._counted = math.inf if memory is None else 0
        self._waiting: list[Chunk] = []  # few wait, and an empty deque would take 700 bytes of each channel
        self._came = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._parked = 0  # tasks in the two lots
        self._chunks = 0  # in the pipe or taken and not yet done with
        self._direct: Callable[[FrameBatch], FrameBatch | None] | None = None
        self._tell: Callable[[], object] | None = None
        self._tell_room: Callable[[], object] | None = None
        self.items_waiting = 0
        self.bytes_waiting = 0
        self.items_peak = 0
        self.bytes_peak = 0
        self.items_passed = 0
        self.bytes_passed = 0
        self.moved_at = 0.0
        """When something last went in: Trio's time."""
        self.sealed = False
        self.broken: EndReason | None = None

    @property
    def full(self) -> bool:
        """Whether a bound is reached. One message more than the bound may be in, so that any message can pass.

        While the engine's memory is tight, one chunk fills a pipe.
        """
        return (
            self.items_waiting >= self.max_items
            or self.bytes_waiting >= self.max_bytes
            or (self._budget.tight and self._chunks > 0)
        )

    # --- the writer's side

    def push(self, batch: FrameBatch) -> FrameBatch | None:
        """Take as much of a batch as there is room for; give back the rest. Past an empty pipe it is written at once."""
        if self.broken is not None:
            return None
        rest: FrameBatch | None = batch
        if not self._chunks and self._direct is not None:
            rest = self._direct(batch)
            self.items_passed += batch.items
            self.bytes_passed += batch.payload
            if rest is not None:
                self.items_passed -= rest.items
                self.bytes_passed -= rest.payload
        self.moved_at = trio.current_time()  # behind the writing, because a reader waits for that
        if rest is None or self.broken is not None:  # the writing may have led to the channel's end
            return None
        if self._budget.tight and self._chunks:
            return rest
        fitting, left = rest.cut(self.max_items - self.items_waiting, self.max_bytes - self.bytes_waiting)
        if fitting is not None:
            self._put(fitting)
        return left

    def push_item(self, item: bytes | str) -> None:
        """Take one whole item. The caller has waited for room."""
        if self.broken is not None:
            return
        if not self._chunks and self._direct is not None:
            rest = self.push(as_batch(item))
            if rest is not None:
                self._put(rest)
        else:
            self._put(item)

    def push_all(self, batch: FrameBatch) -> None:
        """Take the read-ahead of a writer that has closed, beyond the bound if need be."""
        if self.broken is None:
            peaks = self.items_peak, self.bytes_peak
            self._put(batch)
            self.items_peak, self.bytes_peak = (
                peaks  # of what may wait; this is the read-ahead, which had waited already
            )

    def when_room(self, tell: Callable[[], object]) -> None:
        """From now on, call `tell` when a chunk has left: a writer that holds a read-ahead, and has no task to wait."""
        self._tell_room = tell

    def seal(self) -> None:
        """Put the clean end behind the content. Nothing comes any more."""
        self.sealed = True
        self._wake()
        if self._tell is not None:
            self._tell()

    async def wait_room(self) -> None:
        """Wait while the pipe is full and whole. Not a checkpoint if it is not full. If cancelled: nothing happened."""
        while self.full and self.broken is None:
            await self._park(self._room)

    # --- the reader's side

    def flow_directly(self, write: Callable[[FrameBatch], FrameBatch | None]) -> None:
        """Give batches to `write` at once from now on while the pipe is empty. It returns the rest that it did not take."""
        self._direct = write

    def when_waiting(self, tell: Callable[[], object]) -> None:
        """From now on, call `tell` when something waits in here, or the clean end does: a reader without a task."""
        self._tell = tell

    def take_now(self) -> Chunk | None:
        """As `take`, for what waits already; None if nothing does."""
        return self._waiting.pop(0) if self._waiting else None

    async def take(self) -> Chunk:
        """Return the next chunk. `done` with it gives its room back. Exactly one checkpoint, unless it has to wait longer.

        Raises trio.EndOfChannel when there will be no more, after the clean end or a break (`broken`).
        If cancelled: nothing is lost.
        """
        if self._waiting or self.sealed or self.broken is not None:
            await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self.sealed or self.broken is not None:
                raise trio.EndOfChannel
            await self._park(self._came)
        return self._waiting.pop(0)

    def done(self, chunk: Chunk) -> None:
        """Note that a taken chunk has been written, or handed out."""
        if self.broken is not None:
            return
        items, payload = _measure(chunk)
        self._chunks -= 1
        self.items_waiting -= items
        self.bytes_waiting -= payload
        self.items_passed += items
        self.bytes_passed += payload
        if self._counted - self.bytes_waiting > _SPARE:
            self._count()
        if self._parked:
            self._room.unpark_all()
        if self._tell_room is not None:
            self._tell_room()

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._chunks

    @property
    def drained(self) -> bool:
        """Whether the clean end is all that is left."""
        return self.sealed and not self._chunks

    # --- the end by force

    def break_off(self, end: EndReason) -> None:
        """Drop the chunks that wait (clause C4.3) and wake the tasks on both sides. Harmless the second time."""
        if self.broken is not None:
            return
        self.broken = end
        self._direct = self._tell = self._tell_room = None
        self._waiting.clear()
        self._chunks = self.items_waiting = self.bytes_waiting = 0
        self.release_memory()
        self._wake()

    def release_memory(self) -> None:
        """Count nothing any more: the channel has ended."""
        if self.memory is not None:
            self.memory.set(0)
            self.memory, self._counted = None, math.inf

    def forget_ends(self) -> None:
        """Forget the two ends, because the channel has ended."""
        self._direct = self._tell = self._tell_room = None

    async def _park(self, lot: trio.lowlevel.ParkingLot) -> None:
        self._parked += 1
        try:
            await lot.park()
        finally:
            self._parked -= 1

    def _wake(self) -> None:
        """Wake the tasks of both sides."""
        if self._parked:
            self._came.unpark_all()
            self._room.unpark_all()

    def _count(self) -> None:
        """Count what waits in the budget, in whole blocks. This may end the channel, if its owner holds most of all."""
        if self.memory is not None:
            held = self.bytes_waiting + _CHUNK_OVERHEAD * self._chunks
            counted = -(-held // _BLOCK) * _BLOCK
            self._counted = counted
            self.memory.set(counted)

    def _put(self, chunk: Chunk) -> None:
        items, payload = _measure(chunk)
        self._chunks += 1
        self.items_waiting += items
        self.bytes_waiting += payload
        if self.items_waiting > self.items_peak:
            self.items_peak = self.items_waiting
        if self.bytes_waiting > self.bytes_peak:
            self.bytes_peak = self.bytes_waiting
        self._waiting.append(chunk)
        if self._parked:
            self._came.unpark()
        if self._tell is not None:
            self._tell()
        if self.bytes_waiting + _CHUNK_OVERHEAD * self._chunks > self._counted:
            self._count()
