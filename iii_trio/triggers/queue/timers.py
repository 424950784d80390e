"""The times at which jobs are due: ends of delays, of attempts, and of waits for a function."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Final, final

from .lane import Job
from .states import JobState

_FEW: Final = 1_000
_WITH_TIMERS: Final = frozenset({JobState.DELAYED, JobState.LEASED, JobState.WAITING_FOR_FUNCTION})


@final
class Timers:
    """A heap. Entries of jobs that have moved on are skipped, and removed once there are many."""

    def __init__(self) -> None:
        self._max_entries = _FEW
        self._heap: list[tuple[float, int, Job]] = []
        self._ticket = itertools.count()

    def set(self, job: Job, due: float) -> None:
        """Set or replace the time at which a job is due."""
        job.due = due
        heapq.heappush(self._heap, (due, next(self._ticket), job))
        if len(self._heap) > self._max_entries:
            self._heap = [timer for timer in self._heap if _holds(timer)]
            heapq.heapify(self._heap)
            self._max_entries = max(_FEW, 2 * len(self._heap))

    def next_due(self) -> float | None:
        """Return the first time, or None if no job is due ever."""
        while self._heap and not _holds(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[Job]:
        """Take out the jobs that are due, the earliest first."""
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)
            if _holds(timer):
                yield timer[2]


def _holds(timer: tuple[float, int, Job]) -> bool:
    due, _, job = timer
    return job.due == due and job.current_state in _WITH_TIMERS
