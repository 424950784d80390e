"""Jobs as operators see them: pages of rows, and one job. Decisions only, without waiting."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from .lane import Job, Lane
from .record import Timestamp
from .states import JobState

STATES: Final = {
    JobState.READY: "waiting",
    JobState.LEASED: "running",
    JobState.DELAYED: "delayed",
    JobState.WAITING_FOR_FUNCTION: "waiting_for_function",
    JobState.DEAD: "dead",
    JobState.FINISHING: "ending",
    JobState.DYING: "ending",
    JobState.REDRIVING: "ending",
    JobState.DISCARDING: "ending",
    JobState.PURGING: "ending",
}
"""The states of jobs in words. `ending` is written to the store just now."""
_WAITING: Final = frozenset({"waiting", "waiting_for_function"})
MAX_ROWS: Final = 500
_MAX_LOOKED_AT: Final = 5_000  # jobs that one page looks at, so that a filter that fits few jobs blocks nothing


class JobFilter(msgspec.Struct, frozen=True):
    """The jobs that a page is to have."""

    state: str | None = None
    function_id: str | None = None
    namespace: str | None = None
    older_than_seconds: float | None = None
    newer_than_seconds: float | None = None

    def fits(self, job: Job, timestamp: Timestamp) -> bool:
        """Return whether a job is wanted."""
        age = (timestamp.wall_ms - job.record.created_at_ms) / 1000
        return (
            (self.state is None or self._has_state(job))
            and (self.function_id is None or job.record.function_id == self.function_id)
            and (self.namespace is None or job.record.namespace == self.namespace)
            and (self.older_than_seconds is None or age > self.older_than_seconds)
            and (self.newer_than_seconds is None or age < self.newer_than_seconds)
        )

    def _has_state(self, job: Job) -> bool:
        state = STATES.get(job.current_state)
        # A job whose function is missing waits, too. Nobody looks for it under another word who does not know why.
        return state in _WAITING if self.state == "waiting" else state == self.state


def by_state(counts: Iterable[Counter[JobState]]) -> dict[str, int]:
    """Add up numbers of jobs, and name their states in words. States without jobs are left out."""
    total = sum(counts, Counter[JobState]())
    return {word: total[state] for state, word in STATES.items() if total[state]}


def page(
    lanes: Sequence[Lane], wanted: JobFilter, after: int, limit: int, timestamp: Timestamp, *, loading: bool = False
) -> tuple[list[dict[str, Any]], int | None] | None:
    """Return a page of rows, the oldest job first, and the position to go on after. None: it was the last page.

    A page may have fewer rows than `limit`, because it looks at some thousand jobs only. While more jobs are `loading`,
    None is returned instead of a page that would go on with them.
    """
    lines: list[Iterator[Job]] = []
    if wanted.state != "dead":
        lines += [lane.after(after) for lane in lanes]
    if wanted.state in (None, "dead", "ending"):
        dead = (job for lane in lanes for job in lane.dead.values() if job.record.position > after)
        lines.append(iter(sorted(dead)))
    jobs = heapq.merge(*lines)
    rows: list[dict[str, Any]] = []
    limit = max(1, min(limit, MAX_ROWS))
    for job in itertools.islice(jobs, _MAX_LOOKED_AT):
        after = job.record.position
        if wanted.fits(job, timestamp):
            rows.append(row(job, timestamp))
            if len(rows) == limit:
                break
    there = next(jobs, None) is not None
    if loading and not there and len(rows) < limit:
        return None
    return rows, after if there or loading else None


def row(job: Job, timestamp: Timestamp) -> dict[str, Any]:
    """Describe a job, without its payload."""
    record = job.record
    due = job.due - timestamp.now if job.current_state is JobState.DELAYED else None
    return {
        "id": record.id,
        "queue": job.lane.key.name,
        "kind": job.lane.key.kind,
        "state": STATES.get(job.current_state, "storing"),
        "function_id": record.function_id,
        "namespace": record.namespace,
        "age_seconds": max(0.0, (timestamp.wall_ms - record.created_at_ms) / 1000),
        "due_seconds": None if due is None else max(0.0, due),
        "failed": record.progress.attempts,
        "lost": record.progress.lost,
        "code": record.progress.code,
        "message": record.progress.message,
        "size_bytes": job.size,
        "group": record.group,
        "trace_id": _trace_id(record.traceparent),
    }


def _trace_id(traceparent: str | None) -> str | None:
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) > 1 else None
