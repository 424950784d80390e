"""A line of jobs that share their settings: a named queue, or one subscriber of a topic."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Final, final

import attrs

from ...state_machine import StateMachine
from .lane_key import LaneKey
from .record import Record, Timestamp
from .settings import QueueSettings
from .states import JOB, JobEvent, JobState

_RATE_SECONDS: Final = 10.0
_IN_FLIGHT: Final = frozenset({JobState.LEASED, JobState.FINISHING, JobState.DYING})


@attrs.define(eq=False)
class Job:
    """One job of the ledger."""

    record: Record
    lane: Lane
    size: int
    """Of its data, in bytes."""
    state: StateMachine[JobState, JobEvent] = attrs.field(factory=lambda: StateMachine(JOB, JobState.STORING))
    due: float = 0.0
    """While it rests, runs, or misses its function: until when."""
    timeouts: float | None = None
    """While it runs: how many seconds it may; None: as many as it takes."""
    redriven: Record | None = None
    """While it is about to be a job again: as what."""

    def __lt__(self, other: Job) -> bool:
        return self.record.position < other.record.position

    @property
    def current_state(self) -> JobState:
        return self.state.current

    @property
    def function(self) -> tuple[str, str]:
        """What is to be called: namespace and id."""
        return self.record.namespace, self.record.function_id


@attrs.define
class Rate:
    """How often something happens, of late: events a second, weighted towards the last ten."""

    _value: float = 0.0
    _at: float = -math.inf

    def count(self, now: float) -> None:
        self._value = self.at(now) * _RATE_SECONDS + 1
        self._at = now

    def at(self, now: float) -> float:
        return self._value * math.exp(min(0.0, self._at - now) / _RATE_SECONDS) / _RATE_SECONDS


@final
class Lane:
    """Who is next, and how many run."""

    def __init__(self, key: LaneKey, settings: QueueSettings) -> None:
        self.key = key
        self.text = key.text
        self.settings = settings
        self.known = True
        """Whether it is configured, or remembered; else only what is in it is left to do."""
        self.listeners = 0
        """The bindings that want its jobs now; a queue needs none."""
        self.condition: str | None = None
        """The function that is asked whether a job is wanted."""
        self.said: bytes | None = None
        """The config of its subscriber's binding, as JSON, as the store knows it; None if it does not."""
        self.jobs: dict[int, Job] = {}
        """All that are not over, by their keys, the oldest first."""
        self.dead: dict[int, Job] = {}
        """The dead letters, and what is about to be none any more, by their keys, the oldest death first."""
        self.state_counts: Counter[JobState] = Counter()
        self.running = 0
        self.done = Rate()
        self._ready: list[Job] = []
        self._groups: dict[str, deque[Job]] = {}
        self._overlapping: dict[int, Job] = {}
        """Begun when there were no groups, beside another of what is their group now: nobody of it begins until they end."""

    def __repr__(self) -> str:
        return f"<Lane {self.text}: {len(self.jobs)} jobs>"

    @property
    def open(self) -> bool:
        """Whether anybody wants its jobs now."""
        return self.key.kind == "queue" or self.listeners > 0

    @property
    def may_start(self) -> bool:
        """Whether a job may be taken from it."""
        return bool(self._ready) and self.running < self.settings.concurrency and self.open

    def advance(self, job: Job, event: JobEvent) -> None:
        """The only way in which a job's phase moves."""
        self.state_counts[job.current_state] -= 1
        job.state.advance(event)
        if not job.state.is_final:  # what is over is in it no more
            self.state_counts[job.current_state] += 1
        if self._overlapping and job.current_state not in _IN_FLIGHT:
            self._comes_back(job)

    # --- the line

    def join(self, job: Job) -> None:
        """A job that is kept now: at the end of its line."""
        self.jobs[job.record.key] = job
        group = self._group_of(job)
        if group is not None:
            self._groups.setdefault(group, deque()).append(job)
        self.line_up(job)

    def line_up(self, job: Job) -> None:
        """A job that may have become one that could start."""
        if job.current_state is JobState.READY and self._first(job):
            heapq.heappush(self._ready, job)

    def pop(self) -> Job:
        """The job whose turn it is."""
        return heapq.heappop(self._ready)

    def leave(self, job: Job) -> None:
        """A job that is over: the next one of its group may come."""
        self.jobs.pop(job.record.key, None)
        group = self._group_of(job)
        if group is None:
            return
        line = self._groups[group]
        was_first = line[0] is job
        line.remove(job)
        if not line:
            del self._groups[group]
        elif was_first:
            self.line_up(line[0])

    def change(self, settings: QueueSettings) -> None:
        """Other settings, from now on."""
        regroup = settings.fifo is not self.settings.fifo
        self.settings = settings
        if regroup:
            self._ready, self._groups, self._overlapping = [], {}, {}
            jobs = sorted(
                self.jobs.values(), key=lambda job: (job.current_state not in _IN_FLIGHT, job.record.position)
            )
            if settings.fifo:
                begun = [job for job in jobs if job.current_state in _IN_FLIGHT]
                first = {self._group_of(job): job for job in reversed(begun)}
                self._overlapping = {job.record.key: job for job in begun if first[self._group_of(job)] is not job}
            for job in jobs:
                self.join(job)

    def _group_of(self, job: Job) -> str | None:
        return (job.record.group or "") if self.settings.fifo else None

    def _first(self, job: Job) -> bool:
        group = self._group_of(job)
        if group is None:
            return True
        return self._groups[group][0] is job and all(
            self._group_of(other) != group for other in self._overlapping.values()
        )

    def _comes_back(self, job: Job) -> None:
        """A job that may be a other runs no more: the first of its group may begin."""
        group = self._group_of(job)
        if self._overlapping.pop(job.record.key, None) is not None and group is not None:
            first = self._groups[group][0]
            if first is not job:  # itself it lines up where it is made ready
                self.line_up(first)

    def dead_letters(self) -> Iterator[Job]:
        """The oldest death first."""
        return (job for job in self.dead.values() if job.current_state is JobState.DEAD)

    def waiting_for_function(self) -> list[Job]:
        """The jobs that wait for a worker that has their function."""
        if not self.state_counts[JobState.WAITING_FOR_FUNCTION]:
            return []
        return [job for job in self.jobs.values() if job.current_state is JobState.WAITING_FOR_FUNCTION]

    def oldest_seconds(self, timestamp: Timestamp) -> float | None:
        """How long ago the oldest job that is not over came; None if there is none."""
        oldest = next(iter(self.jobs.values()), None)
        return None if oldest is None else max(0.0, (timestamp.wall_ms - oldest.record.created_at_ms) / 1000)


@attrs.frozen
class Depths:
    """How many jobs of some lanes are where."""

    depth: int
    running: int
    delayed: int
    dead: int


def depths(lanes: Iterable[Lane]) -> Depths:
    """How many jobs of these lanes are where; `depth` is all that are not over."""
    lanes = list(lanes)
    return Depths(
        depth=sum(len(lane.jobs) for lane in lanes),
        running=sum(lane.running for lane in lanes),
        delayed=sum(lane.state_counts[JobState.DELAYED] for lane in lanes),
        dead=sum(lane.state_counts[JobState.DEAD] for lane in lanes),
    )
