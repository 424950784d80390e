"""A line of jobs that share their settings: a named queue, or one subscriber of a topic."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Final, final

import attrs

from ...state_machine import StateMachine
from ...wire import from_json, to_json
from .lane_key import LaneKey
from .record import NORMAL_PRIORITY, Record, Timestamp
from .settings import QueueSettings
from .states import JOB, LANE, JobEvent, JobState, LaneEvent, LaneState

_RATE_SECONDS: Final = 10.0
WAITING: Final = frozenset({JobState.READY, JobState.DELAYED, JobState.WAITING_FOR_FUNCTION})
_IN_FLIGHT: Final = frozenset({JobState.LEASED, JobState.FINISHING, JobState.DYING})
_FEW: Final = 64
_OLDEST_EVERY: Final = 4  # starts
_MAX_HELD: Final = 100  # jobs that a lane looks past while a suspect runs alone


@attrs.define(eq=False)
class Job:
    """One job of the ledger."""

    record: Record
    lane: Lane
    size: int
    """The size of its data, in bytes."""
    held_bytes: int
    """The size of its data and metadata, while they are in memory."""
    disk_bytes: int
    """The space on disk that it takes, about."""
    state: StateMachine[JobState, JobEvent] = attrs.field(factory=lambda: StateMachine(JOB, JobState.STORING))
    due: float = 0.0
    """The end of its delay, of its attempt, or of its wait for a function."""
    timeout: float | None = None
    """How many seconds the attempt under way may take. None: no limit."""
    redriven: Record | None = None
    """Its record as a job again, while it is redriven."""

    def __lt__(self, other: Job) -> bool:
        return self.record.position < other.record.position

    @property
    def current_state(self) -> JobState:
        """Return the job's state."""
        return self.state.current

    @property
    def function(self) -> tuple[str, str]:
        """The namespace and the id of the function to call."""
        return self.record.namespace, self.record.function_id


@attrs.define
class Rate:
    """How often something happens, in events a second, weighted towards the last ten seconds."""

    _value: float = 0.0
    _at: float = -math.inf

    def count(self, now: float) -> None:
        """Count one event."""
        self._value = self.at(now) * _RATE_SECONDS + 1
        self._at = now

    def at(self, now: float) -> float:
        """Return the rate."""
        return self._value * math.exp(min(0.0, self._at - now) / _RATE_SECONDS) / _RATE_SECONDS


@final
class Lane:
    """The order of jobs, and how many of them run."""

    def __init__(self, key: LaneKey, settings: QueueSettings) -> None:
        self.key = key
        self.text = key.text
        self.settings = settings
        self.known = True
        """Whether it is configured, or a subscription that is remembered. Otherwise its jobs are only finished."""
        self.listeners = 0
        """The number of bindings of the subscriber that are in force. A queue needs none."""
        self.away_since_ms: int | None = None
        """The time at which the last binding ended. None: there are bindings."""
        self.condition: str | None = None
        """The function that decides whether a job is wanted."""
        self.config: bytes | None = None
        """The config of the subscriber's binding, as the store has it. None: the store does not know the subscriber."""
        self.saved: bytes | None = None
        """Its settings as the store has them."""
        self.state = StateMachine(LANE, LaneState.OPEN)
        self.paused = False
        """Whether no job of it starts, because an operator has paused it. It repeats `state`, which is slower to ask."""
        self.jobs: dict[int, Job] = {}
        """All stored jobs that are not over, by position, the oldest first."""
        self._positions: list[int] = []
        """The positions of all jobs in order, and of some that are over. A page of jobs is found in it."""
        self.dead: dict[int, Job] = {}
        """The dead letters by key, the oldest death first. Those that are being redriven or discarded are among them."""
        self.unfinished = 0
        """The number of jobs that are neither done nor dead, with those on their way to the store."""
        self.redriving = 0
        """The number of dead letters on their way back."""
        self.state_counts: Counter[JobState] = Counter()
        self.running = 0
        self.done = Rate()
        self.held: list[Job] = []
        """Jobs at their turn that wait because a suspect runs alone."""
        self._described: tuple[QueueSettings, str | None, bytes] | None = None
        self._ready: list[Job] = []
        self._other_levels: dict[int, list[Job]] = {}
        """The ready jobs of other priorities than the usual one, by priority."""
        self._starts = 0
        self._groups: dict[str, deque[Job]] = {}
        self._overlapping: dict[int, Job] = {}
        """Jobs that started before the lane became FIFO and now share a group. The group waits until they finish."""

    def __repr__(self) -> str:
        return f"<Lane {self.text}: {len(self.jobs)} jobs>"

    @property
    def open(self) -> bool:
        """Whether its jobs may be given to anybody now."""
        return self.key.kind == "queue" or self.listeners > 0

    @property
    def may_start(self) -> bool:
        """Whether a job may be taken from it."""
        return (
            bool(self._ready or self._other_levels)
            and self.running < self.settings.concurrency
            and self.open
            and len(self.held) < _MAX_HELD
            and not self.paused
        )

    def pause(self, paused: bool) -> None:
        """Pause or resume it. Jobs that run are not touched."""
        if paused is not self.paused:
            self.state.advance(LaneEvent.PAUSE if paused else LaneEvent.RESUME)
            self.paused = paused
            self._described = None

    @property
    def description(self) -> bytes:
        """Return the settings, the condition and the pause of the lane, for the store."""
        if self._described is None or self._described[:2] != (self.settings, self.condition):
            about = {"settings": attrs.asdict(self.settings), "condition": self.condition}
            text = to_json(about | {"paused": True} if self.paused else about)
            self._described = (self.settings, self.condition, text)
        return self._described[2]

    def restore_pause(self, description: bytes) -> None:
        """Be paused if the store says so."""
        try:
            saved = from_json(description)
        except ValueError:
            return  # damaged: its settings are somewhere else, too
        self.pause(isinstance(saved, dict) and saved.get("paused") is True)

    def restore(self, description: bytes) -> None:
        """Use settings that the store has. Raises ValueError."""
        match from_json(description):
            case {"settings": {**settings}, "condition": str() | None as condition}:
                known = {name: value for name, value in settings.items() if name in attrs.fields_dict(QueueSettings)}
            case _:
                raise ValueError("they are no settings of a lane")
        try:
            self.change(QueueSettings(**known))  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(str(error)) from None
        self.condition = condition
        self.restore_pause(description)
        self.saved = self.description if self.description == description else description

    def advance(self, job: Job, event: JobEvent) -> None:
        """Move a job to its next state. There is no other way."""
        self.state_counts[job.current_state] -= 1
        job.state.advance(event)
        if not job.state.is_final:  # finished jobs are not counted
            self.state_counts[job.current_state] += 1
        if self._overlapping and job.current_state not in _IN_FLIGHT:
            self._end_overlap(job)

    @property
    def waiting(self) -> int:
        """The number of jobs that a purge removes."""
        return sum(self.state_counts[state] for state in WAITING)

    # --- the line

    def join(self, job: Job) -> None:
        """Put a stored job at the end of its line."""
        self.jobs[job.record.position] = job
        self._positions.append(job.record.position)
        if len(self._positions) > 2 * len(self.jobs) + _FEW:
            self._positions = sorted(self.jobs)
        group = self._group_of(job)
        if group is not None:
            self._groups.setdefault(group, deque()).append(job)
        self.line_up(job)

    def line_up(self, job: Job) -> None:
        """Make a job one of those that can start, if it is ready and the first of its group."""
        if job.current_state is JobState.READY and self._first(job):
            level = job.record.priority
            if level == NORMAL_PRIORITY or self.settings.fifo:  # the order of a FIFO lane is a promise
                heapq.heappush(self._ready, job)
            else:
                heapq.heappush(self._other_levels.setdefault(level, []), job)

    def pop(self) -> Job:
        """Take the job whose turn it is.

        It is the oldest job of the highest priority. Every fourth one is the oldest of all, so that none starves (Q28).
        """
        if not self._other_levels:
            return heapq.heappop(self._ready)
        self._starts += 1
        levels = dict(self._other_levels)
        if self._ready:
            levels[NORMAL_PRIORITY] = self._ready
        level = min(levels, key=lambda one: levels[one][0]) if self._starts % _OLDEST_EVERY == 0 else max(levels)
        job = heapq.heappop(levels[level])
        if level != NORMAL_PRIORITY and not levels[level]:
            del self._other_levels[level]
        return job

    def release_held(self) -> None:
        """Line up the jobs that waited for a suspect."""
        held, self.held = self.held, []
        for job in held:
            if job.record.position in self.jobs:
                self.line_up(job)

    def leave(self, job: Job) -> None:
        """Remove a job that is over. The next one of its group may start."""
        self.jobs.pop(job.record.position, None)
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
        """Use other settings from now on."""
        regroup = settings.fifo is not self.settings.fifo
        self.settings = settings
        if regroup:
            self._ready, self._groups, self._overlapping, self.held = [], {}, {}, []
            self._other_levels = {}
            jobs = sorted(
                self.jobs.values(), key=lambda job: (job.current_state not in _IN_FLIGHT, job.record.position)
            )
            if settings.fifo:
                begun = [job for job in jobs if job.current_state in _IN_FLIGHT]
                first = {self._group_of(job): job for job in reversed(begun)}
                self._overlapping = {job.record.key: job for job in begun if first[self._group_of(job)] is not job}
            for job in jobs:
                self.join(job)
            self._positions = sorted(self.jobs)  # the jobs have joined in another order

    def after(self, position: int) -> Iterator[Job]:
        """Iterate over the jobs behind a position, the oldest first. Beginning costs the same anywhere in the line."""
        positions = self._positions
        for at in range(bisect_right(positions, position), len(positions)):
            job = self.jobs.get(positions[at])
            if job is not None:
                yield job

    def _group_of(self, job: Job) -> str | None:
        return (job.record.group or "") if self.settings.fifo else None

    def _first(self, job: Job) -> bool:
        group = self._group_of(job)
        if group is None:
            return True
        return self._groups[group][0] is job and all(
            self._group_of(other) != group for other in self._overlapping.values()
        )

    def _end_overlap(self, job: Job) -> None:
        """Note that a job runs no more. The first of its group may start, if this one kept it waiting."""
        group = self._group_of(job)
        if self._overlapping.pop(job.record.key, None) is not None and group is not None:
            first = self._groups[group][0]
            if first is not job:  # the job itself lines up where it becomes ready
                self.line_up(first)

    def dead_letters(self) -> Iterator[Job]:
        """Iterate over the dead letters, the oldest death first."""
        return (job for job in self.dead.values() if job.current_state is JobState.DEAD)

    def waiting_for_function(self) -> list[Job]:
        """Return the jobs that wait for a worker with their function."""
        if not self.state_counts[JobState.WAITING_FOR_FUNCTION]:
            return []
        return [job for job in self.jobs.values() if job.current_state is JobState.WAITING_FOR_FUNCTION]

    def oldest_seconds(self, timestamp: Timestamp) -> float | None:
        """Return the age of the oldest unfinished job, or None if there is none."""
        oldest = next(iter(self.jobs.values()), None)
        return None if oldest is None else max(0.0, (timestamp.wall_ms - oldest.record.created_at_ms) / 1000)


@attrs.frozen
class Depths:
    """How many jobs of some lanes are in which state."""

    depth: int
    running: int
    delayed: int
    dead: int


def depths(lanes: Iterable[Lane]) -> Depths:
    """Count the jobs of these lanes. `depth` counts all that are neither done nor dead."""
    lanes = list(lanes)
    return Depths(
        depth=sum(len(lane.jobs) for lane in lanes),
        running=sum(lane.running for lane in lanes),
        delayed=sum(lane.state_counts[JobState.DELAYED] for lane in lanes),
        dead=sum(lane.state_counts[JobState.DEAD] for lane in lanes),
    )
