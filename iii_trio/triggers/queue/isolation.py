"""Suspects run alone, so that a job that kills its workers takes no innocent ones along (Q16).

A job is a suspect once it has lost several workers, one loss before it becomes a dead letter. Nobody tells the queue
which worker runs a job. But the jobs of a worker are lost together, so functions that were lost together are taken to
share a worker. A suspect starts when no job of such a function runs, and none starts until it has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, final

from .lane import Job, Lane

Function: TypeAlias = tuple[str, str]
_SUSPECT_LOSSES: Final = 2
_MAX_FUNCTIONS: Final = 10_000


def is_suspect(job: Job) -> bool:
    """Whether a job is to run alone."""
    lost = job.record.progress.lost
    return lost > 0 and lost >= min(_SUSPECT_LOSSES, job.lane.settings.max_lost_deliveries - 1)


@final
class Isolation:
    """Decides which jobs have to wait for suspects."""

    def __init__(self, running: Mapping[int, Job]) -> None:
        self._running = running
        self._worker_of: dict[Function, Function] = {}
        """One function of each set that shares a worker, by function."""
        self._alone: dict[Function, Job] = {}
        """The suspect that runs alone, or is next to run alone, by the function that stands for its worker."""

    @property
    def active(self) -> bool:
        """Whether any suspect runs or is next."""
        return bool(self._alone)

    def may_start(self, job: Job) -> bool:
        """Whether this job may start. A suspect that may not is the next to run alone, if there is no other."""
        worker = self._worker(job.function)
        alone = self._alone.get(worker)
        if alone is None and is_suspect(job):
            alone = self._alone[worker] = job
        if alone is not None and alone is not job:
            return False
        return alone is None or not self._others_run(worker)

    def ended(self, job: Job) -> bool:
        """Note that a job runs no more. Return whether jobs that were held may start now."""
        if not self._alone:
            return False
        worker = self._worker(job.function)
        alone = self._alone.get(worker)
        if alone is job:
            del self._alone[worker]
        return alone is not None and (alone is job or not self._others_run(worker))

    def withdraw(self, lane: Lane) -> bool:
        """Note that a lane's jobs do not start any more. Return whether jobs that were held may start now."""
        waiting = [
            worker for worker, job in self._alone.items() if job.lane is lane and job.record.key not in self._running
        ]
        for worker in waiting:
            del self._alone[worker]
        return bool(waiting)

    def lost_together(self, functions: Iterable[Function]) -> None:
        """Note that these functions share a worker."""
        if len(self._worker_of) > _MAX_FUNCTIONS:
            self._worker_of.clear()
        workers = {self._worker(function) for function in functions}
        first = min(workers)
        for function in [*self._worker_of, *workers]:
            if self._worker(function) in workers:
                self._worker_of[function] = first
        for worker in workers - {first}:
            if (job := self._alone.pop(worker, None)) is not None:
                self._alone.setdefault(first, job)

    def _worker(self, function: Function) -> Function:
        return self._worker_of.get(function, function)

    def _others_run(self, worker: Function) -> bool:
        return any(self._worker(job.function) == worker for job in self._running.values())
