"""How much the jobs take: their number, their memory and their space on disk, and whether there is room for more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

from ...transport.memory_budget import UNLIMITED_SHARE, MemoryShare
from .lane import Job, Lane
from .settings import QueueConfig

_ROW_BYTES: Final = 256  # of a record on disk, beside its texts
_PAGE_BYTES: Final = 4096
_PAYLOAD_BYTES: Final = 128  # of a payload in memory, beside its bytes
_COUNTED_BYTES: Final = 4096  # smaller changes are not told to the engine's budget, because each job makes several


@final
class Room:
    """The counts of all jobs, held against the bounds of the configuration."""

    def __init__(self, config: QueueConfig) -> None:
        self.config = config
        self.unfinished = 0
        """The number of jobs that are neither done nor dead."""
        self.unloaded = 0
        """The number of jobs, without dead letters, that the store has and that are not loaded yet."""
        self.redriving = 0
        """The number of dead letters on their way back."""
        self.kept_bytes = 0
        """The size of all data and metadata in memory."""
        self.disk_bytes = 0
        """The space on disk that all jobs and dead letters take, about."""
        self._memory: MemoryShare = UNLIMITED_SHARE
        self._is_stored_in_memory = False
        self.memory_bytes = 0
        """The memory that payloads take, about."""
        self._counted = 0
        """The memory that the engine's budget knows of."""
        self._rooms: list[Room] | None = None
        """The rooms of all shards of a node, which have the bounds together. None: there is no other."""

    def count_in(self, memory: MemoryShare, *, is_stored_in_memory: bool) -> None:
        """Count the payloads in memory here. With a store in memory these are all payloads, so say it before jobs come."""
        self._memory = memory
        self._is_stored_in_memory = is_stored_in_memory
        self._counted = self.memory_bytes
        self._tell()

    def join(self, rooms: list[Room]) -> None:
        """Have the bounds together with these."""
        self._rooms = rooms
        rooms.append(self)

    def close(self) -> None:
        """Count nothing more."""
        self._counted = 0
        if self._rooms is not None and self in self._rooms:
            self._rooms.remove(self)
        self._tell()
        self._memory = UNLIMITED_SHARE  # the store may tell of the end of jobs still

    def _tell(self) -> None:
        others = 0 if self._rooms is None else sum(room._counted for room in self._rooms if room is not self)
        self._memory.set(self._counted + others)

    def _count(self, change: int) -> None:
        size = self.memory_bytes = self.memory_bytes + change
        # What is left of an empty queue would be a riddle in the engine's statistics.
        if not size or abs(size - self._counted) >= _COUNTED_BYTES:
            self._counted = size
            self._tell()

    @property
    def jobs(self) -> int:
        """How many more jobs there may be in all lanes together."""
        return max(0, self.config.jobs - self._taken)

    @property
    def _taken(self) -> int:
        if self._rooms is None:
            return self.unfinished + self.redriving + self.unloaded
        return sum(room.unfinished + room.redriving + room.unloaded for room in self._rooms)

    @property
    def _all_kept_bytes(self) -> int:
        return self.kept_bytes if self._rooms is None else sum(room.kept_bytes for room in self._rooms)

    @property
    def _all_memory_bytes(self) -> int:
        return self.memory_bytes if self._rooms is None else sum(room.memory_bytes for room in self._rooms)

    @property
    def _all_disk_bytes(self) -> int:
        return self.disk_bytes if self._rooms is None else sum(room.disk_bytes for room in self._rooms)

    def in_lane(self, lane: Lane) -> float:
        """Return how many more jobs may be in a lane."""
        room: float = self.jobs
        if lane.settings.max_jobs is not None:
            room = min(room, lane.settings.max_jobs - lane.unfinished - lane.redriving - lane.unloaded)
        return max(0.0, room)

    def problem(self, lanes: Sequence[Lane], size: int) -> str | None:
        """Return why there is no room for a job of this size in each of these lanes, or None if there is."""
        config = self.config
        jobs = self._taken
        if jobs + len(lanes) > config.jobs:
            return f"there are {jobs} jobs that are not done, and at most {config.jobs} may be"
        for lane in lanes:
            if lane.settings.max_jobs is not None and self.in_lane(lane) < 1:
                who = lane.key.name
                if lane.key.kind == "topic":
                    who = f"{lane.key.function_id}, a subscriber of {who}"
                return (
                    f"{lane.unfinished + lane.redriving + lane.unloaded} jobs of {who} are not done, and at most "
                    f"{lane.settings.max_jobs} may be (max_jobs)"
                    + ("; if it does not come back, unsubscribe it or purge its jobs" if lane.listeners == 0 else "")
                    * (lane.key.kind == "topic")
                )
        bound = config.disk_bytes
        if bound is not None and self._all_disk_bytes + len(lanes) * on_disk(size) > bound:
            return f"the jobs take {self._all_disk_bytes} bytes on disk, and may take at most {bound} (disk_bytes)"
        memory = self._all_memory_bytes
        if memory + len(lanes) * (size + _PAYLOAD_BYTES) > self._memory.limit_bytes:
            return (
                f"the payloads of jobs take {memory} bytes of memory, and may take at most "
                f"{self._memory.limit_bytes:.0f} (half of limits.memory_bytes)"
            )
        return None

    def enter(self, job: Job) -> None:
        """Count a job that has come."""
        size = job.held_bytes
        self.count_unfinished(job.lane, 1)
        self.kept_bytes += size
        self.disk_bytes += on_disk(size)
        self._count(size + _PAYLOAD_BYTES)

    def leave(self, job: Job) -> None:
        """Count a job that is gone, dead letters too, and drop its payload."""
        self.disk_bytes -= on_disk(job.held_bytes)
        self.release_payload(job)
        # The store has held it until now.
        if self._is_stored_in_memory:
            self._count(-job.held_bytes - _PAYLOAD_BYTES)

    def count_unfinished(self, lane: Lane, change: int) -> None:
        """Count jobs of a lane that have come, or are over."""
        self.unfinished += change
        lane.unfinished += change

    def count_redriving(self, lane: Lane, change: int) -> None:
        """Count dead letters of a lane on their way back."""
        self.redriving += change
        lane.redriving += change

    def release_payload(self, job: Job, *, unless_room: bool = False) -> None:
        """Drop the payload from memory, because it is on disk; with `unless_room` only where memory is short."""
        if unless_room and self._all_kept_bytes <= self.config.memory_bytes:
            return
        record = job.record
        if record.data is None:
            return
        self.kept_bytes -= job.held_bytes
        record.data = record.metadata = None
        if not self._is_stored_in_memory:
            self._count(-job.held_bytes - _PAYLOAD_BYTES)


def on_disk(size: int) -> int:
    """Return the space on disk that a job with a payload of this size takes, about. Large ones have pages of their own."""
    size += _ROW_BYTES
    return size if size < _PAGE_BYTES else math.ceil(size / _PAGE_BYTES) * _PAGE_BYTES
