"""The jobs that wait for a function that no worker has, by function.

There may be a million of them, so each costs one pointer, and they come back in pieces.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, TypeAlias, final

import msgspec

from .lane import Job, Lane
from .states import JobState

Function: TypeAlias = tuple[str, str]
_FEW: Final = 64


class _Line(msgspec.Struct, eq=False):
    jobs: deque[Job] = msgspec.field(default_factory=deque)
    """In the order in which they came, with some that have left."""
    counts: Counter[str] = msgspec.field(default_factory=Counter)
    """The number of jobs that have not left, by lane."""

    def count(self, job: Job, change: int) -> None:
        lane = job.lane.text
        self.counts[lane] += change
        if not self.counts[lane]:
            del self.counts[lane]

    def leave(self, job: Job) -> None:
        self.count(job, -1)
        if len(self.jobs) > 2 * self.counts.total() + _FEW:
            self.jobs = deque(dict.fromkeys(one for one in self.jobs if one is not job and _waits(one)))


@final
class ParkedJobs:
    """The functions that no worker has, and the jobs that wait for them."""

    def __init__(self) -> None:
        self._missing: dict[Function, _Line] = {}
        self._came: dict[Function, _Line] = {}
        """The functions that have come. A function is in one of the two only."""

    @property
    def functions(self) -> list[Function]:
        """The functions that are missing."""
        return list(self._missing)

    def is_missing(self, function: Function) -> bool:
        """Whether a function is known to be missing."""
        return function in self._missing

    @property
    def any_missing(self) -> bool:
        """Whether any function is known to be missing."""
        return bool(self._missing)

    @property
    def any_came(self) -> bool:
        """Whether jobs wait to be returned."""
        return bool(self._came)

    def add(self, job: Job) -> None:
        """Have a job wait for its function, which is missing, maybe again."""
        function = job.function
        line = self._missing.get(function)
        if line is None:
            line = self._missing[function] = self._came.pop(function) if function in self._came else _Line()
        line.jobs.append(job)
        line.count(job, 1)

    def leave(self, job: Job) -> bool:
        """Remove a job that waits no more. Return whether nothing is known of its function now.

        Call it before the job's state changes.
        """
        function = job.function
        lines = self._missing if function in self._missing else self._came
        line = lines[function]
        line.leave(job)
        if line.counts:
            return False
        del lines[function]
        return lines is self._missing

    def came(self, function: Function) -> None:
        """Note that a worker may have a function now. Its jobs are returned next."""
        line = self._missing.pop(function, None)
        if line is not None:
            # Nearly in order already. An answer of `not found` may have come when later jobs were parked.
            line.jobs = deque(sorted(line.jobs))
            self._came[function] = line

    def returned(self, at_most: int) -> Iterator[Job]:
        """Take out jobs whose functions have come, the oldest first. Change the state of each at once."""
        for function, line in list(self._came.items()):
            while line.counts and at_most > 0:
                job = line.jobs.popleft()
                if _waits(job):
                    at_most -= 1
                    line.count(job, -1)
                    yield job
            if not line.counts:
                del self._came[function]

    def missing_of(self, lane: Lane) -> list[Function]:
        """Return the missing functions that jobs of a lane wait for."""
        return [function for function, line in self._missing.items() if lane.text in line.counts]


def _waits(job: Job) -> bool:
    return job.current is JobState.WAITING_FOR_FUNCTION
