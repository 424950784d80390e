"""When jobs are due: those that rest, that run for too long, or whose function has been missing for long enough."""

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
    """A heap. Entries that no longer hold, as the job has moved on, are passed over, and thrown out where they are many."""

    def __init__(self) -> None:
        self._most = _FEW
        self._heap: list[tuple[float, int, Job]] = []
        self._ticket = itertools.count()

    def set(self, job: Job, due: float) -> None:
        """It is due then, and no longer when it was before."""
        job.due = due
        heapq.heappush(self._heap, (due, next(self._ticket), job))
        if len(self._heap) > self._most:
            self._heap = [timer for timer in self._heap if _holds(timer)]
            heapq.heapify(self._heap)
            self._most = max(_FEW, 2 * len(self._heap))

    def next_due(self) -> float | None:
        """When the first one is due; None if none is, ever."""
        while self._heap and not _holds(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[Job]:
        """Those that are due, the longest one first."""
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)
            if _holds(timer):
                yield timer[2]


def _holds(timer: tuple[float, int, Job]) -> bool:
    due, _, job = timer
    return job.due == due and job.current_state in _WITH_TIMERS
