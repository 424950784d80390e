"""The unique keys of jobs: while a key is taken, there is no second job of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, final

from .lane import Job
from .states import JobState

_FEW: Final = 1_000
_OVER: Final = frozenset({JobState.DEAD, JobState.DYING, JobState.DONE, JobState.REFUSED})


@final
class UniqueKeys:
    """The keys that are taken, by lane. `jobs` are all jobs by id."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self._jobs = jobs
        self._taken: dict[tuple[str, str], tuple[str, float]] = {}
        """The ids of the jobs that have the keys, and the time until which a key is taken in any case."""
        self._max_entries = _FEW

    def take(self, job: Job, now: float, age: float = 0.0) -> None:
        """Note the key of a job that came `age` seconds ago."""
        record = job.record
        assert record.options.unique_key is not None
        until = -math.inf if record.options.unique_ms is None else now - age + record.options.unique_ms / 1000
        self._taken[job.lane.text, record.options.unique_key] = record.id, until
        if len(self._taken) > self._max_entries:
            self._taken = {key: entry for key, entry in self._taken.items() if self._holds(entry, now)}
            self._max_entries = max(_FEW, 2 * len(self._taken))

    def holder(self, lane: str, key: str, now: float) -> str | None:
        """Return the id of the job that has a key, which may be over already, or None if the key is free."""
        entry = self._taken.get((lane, key))
        return entry[0] if entry is not None and self._holds(entry, now) else None

    def _holds(self, entry: tuple[str, float], now: float) -> bool:
        job = self._jobs.get(entry[0])
        return entry[1] > now or (job is not None and job.current_state not in _OVER)
