"""A line of jobs that share their settings: a named queue, or one subscriber of a topic."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Final, final

import attrs
import msgspec

from ...state_machine import StateMachine
from ...wire import from_json, to_json
from .lane_key import LaneKey
from .record import NORMAL_PRIORITY, Record, Timestamp
from .settings import QueueSettings
from .states import JOB, LANE, JobEvent, JobState, LaneEvent, LaneState
from .store import SaveLane

_RATE_SECONDS: Final = 10.0
WAITING: Final = frozenset({JobState.READY, JobState.DELAYED, JobState.WAITING_FOR_FUNCTION})
_FINAL: Final = frozenset(state for state, events in JOB.items() if not events)
_IN_FLIGHT: Final = frozenset({JobState.LEASED, JobState.FINISHING, JobState.DYING})
_FEW: Final = 64
_OLDEST_EVERY: Final = 4  # starts
_MAX_HELD: Final = 100  # jobs that a lane looks past while a suspect runs alone


class Job(StateMachine[JobState, JobEvent]):
    """One job of the ledger, which is its own state machine, because a million of them may wait."""

    record: Record
    lane: Lane
    size: int
    """The size of its data, in bytes."""
    held_bytes: int
    """The size of its data and metadata, which are in memory or on disk."""
    due: float = 0.0
    """The end of its delay, of its attempt, or of its wait for a function."""

    def __lt__(self, other: Job) -> bool:
        return self.record.position < other.record.position

    @property
    def current_state(self) -> JobState:
        """Return the job's state."""
        return self.current

    @property
    def function(self) -> tuple[str, str]:
        """The namespace and the id of the function to call."""
        return self.record.namespace, self.record.function_id


class Rate(msgspec.Struct, eq=False):
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
        self.unloaded = 0
        """The number of jobs, without dead letters, that the store has and that are not loaded yet."""
        self._newer: dict[int, Job] = {}
        """The jobs that came while older ones were not loaded. They are behind those in line."""
        self.state_counts = dict.fromkeys(JobState, 0)
        self.running = 0
        self.done = Rate()
        self.durations: deque[float] = deque(maxlen=101)
        """How many seconds the last calls took that succeeded."""
        self.sampled = 0
        self.calls = 0
        """The number of calls that were begun, retries too."""
        self.overruns = 0
        """The number of calls that ran much longer than usual."""
        self.dropped = 0
        """The number of jobs that gave way to newer ones while their subscriber was away."""
        self.held: list[Job] = []
        """Jobs at their turn that wait because a suspect runs alone."""
        self._described: tuple[QueueSettings, str | None, bytes] | None = None
        self._ready: list[int] = []
        """A heap of the positions of ready jobs. Numbers are compared far faster than jobs."""
        self._other_levels: dict[int, list[int]] = {}
        """The same for other priorities than the usual one, by priority."""
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
        described = self._described
        if described is None or described[0] is not self.settings or described[1] != self.condition:
            about = {"settings": attrs.asdict(self.settings), "condition": self.condition}
            text = to_json(about | {"paused": True} if self.paused else about)
            # A text that is the same stays the same object, because it is compared by identity with the one that is saved.
            same = described is not None and described[2] == text
            described = self._described = (self.settings, self.condition, described[2] if same and described else text)
        return described[2]

    def save(self) -> SaveLane:
        """Return the change that writes the description. From now on it counts as written."""
        self.saved = self.description
        return SaveLane(self.text, self.saved)

    def restore_pause(self, description: bytes) -> None:
        """Be paused if the description that the store has says so."""
        try:
            saved = from_json(description)
        except ValueError:
            pass  # damaged: its settings are somewhere else, too
        else:
            self.pause(isinstance(saved, dict) and saved.get("paused") is True)
        # The same object where nothing has changed, because the two are compared by identity.
        self.saved = self.description if self.description == description else description

    def restore(self, description: bytes) -> None:
        """Use settings that the store has. Raises ValueError."""
        match from_json(description):
            case {"settings": {**settings}, "condition": str() | None as condition}:
                known = {name: value for name, value in settings.items() if name in attrs.fields_dict(QueueSettings)}
            case _:
                raise ValueError("they are not settings of a lane")
        try:
            self.change(QueueSettings(**known))  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(str(error)) from None
        self.condition = condition
        self.restore_pause(description)

    def advance(self, job: Job, event: JobEvent) -> None:
        """Move a job to its next state. There is no other way."""
        counts, before = self.state_counts, job.current
        after = job.advance(event)
        counts[before] -= 1
        if after not in _FINAL:  # finished jobs are not counted
            counts[after] += 1
        if self._overlapping and after not in _IN_FLIGHT:
            self._end_overlap(job)

    @property
    def waiting(self) -> Counter[JobState]:
        """The number of jobs that a purge removes, by state."""
        return Counter({state: self.state_counts[state] for state in WAITING})

    # --- the line

    def join(self, job: Job) -> None:
        """Put a stored job at the end of its line."""
        self._append(job)
        self.line_up(job)

    def join_as_newer(self, job: Job) -> None:
        """Put a stored job behind all that are not loaded yet. It may start before them where no order is promised."""
        self.jobs[job.record.position] = self._newer[job.record.position] = job
        self.line_up(job)

    def all_loaded(self) -> None:
        """Note that no older job comes any more. Those that came meanwhile are at the end of the line now."""
        self.unloaded = 0
        newer, self._newer = self._newer, {}
        for position, job in newer.items():
            del self.jobs[position]  # its place among the keys is the line's end, too
            self._append(job)
            if self.settings.fifo:  # others have lined up before
                self.line_up(job)

    def _append(self, job: Job) -> None:
        self.jobs[job.record.position] = job
        self._positions.append(job.record.position)
        if len(self._positions) > 2 * len(self.jobs) + _FEW:
            self._sort_positions()
        group = self._group_of(job)
        if group is not None:
            self._groups.setdefault(group, deque()).append(job)

    def _sort_positions(self) -> None:
        """Find the positions anew, without those of jobs that are over."""
        self._positions = sorted(self.jobs.keys() - self._newer.keys())

    def line_up(self, job: Job) -> None:
        """Make a job one of those that can start, if it is ready and the first of its group."""
        if job.current is JobState.READY and self._first(job):
            level = job.record.options.priority
            if level == NORMAL_PRIORITY or self.settings.fifo:  # the order of a FIFO lane is a promise
                heapq.heappush(self._ready, job.record.position)
            else:
                heapq.heappush(self._other_levels.setdefault(level, []), job.record.position)

    def pop(self) -> Job | None:
        """Take the job whose turn it is. None: it is gone.

        It is the oldest job of the highest priority. Every fourth one is the oldest of all, so that none starves (Q28).
        """
        if not self._other_levels:
            return self.jobs.get(heapq.heappop(self._ready))
        self._starts += 1
        levels = dict(self._other_levels)
        if self._ready:
            levels[NORMAL_PRIORITY] = self._ready
        level = min(levels, key=lambda one: levels[one][0]) if self._starts % _OLDEST_EVERY == 0 else max(levels)
        job = self.jobs.get(heapq.heappop(levels[level]))
        if level != NORMAL_PRIORITY and not levels[level]:
            del self._other_levels[level]
        return job

    def oldest_ready(self) -> Job | None:
        """Return the oldest ready job of the usual priority, or None if there is none."""
        while self._ready:
            job = self.jobs.get(self._ready[0])
            if job is not None and job.current is JobState.READY:
                return job
            heapq.heappop(self._ready)
        return None

    def release_held(self) -> None:
        """Line up the jobs that waited for a suspect."""
        held, self.held = self.held, []
        for job in held:
            if job.record.position in self.jobs:
                self.line_up(job)

    def leave(self, job: Job) -> None:
        """Remove a job that is over, if it is there. The next one of its group may start."""
        if self.jobs.pop(job.record.position, None) is None:
            return
        newer = bool(self._newer) and self._newer.pop(job.record.position, None) is not None
        group = self._group_of(job)
        if group is None or newer:
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
                self._overlapping = {
                    job.record.key: job
                    for job in begun
                    if first[self._group_of(job)] is not job or job.record.position in self._newer
                }
            for job in jobs:
                if job.record.position in self._newer:
                    self.line_up(job)
                else:
                    self.join(job)
            self._sort_positions()  # the jobs have joined in another order

    def after(self, position: int) -> Iterator[Job]:
        """Iterate over the jobs behind a position, the oldest first. Beginning costs the same anywhere in the line.

        While jobs are loaded, those that came meanwhile are left out.
        """
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
        if self._newer and job.record.position in self._newer:
            return False  # older jobs of its group may be loaded yet
        return self._groups[group][0] is job and all(
            self._group_of(other) != group for other in self._overlapping.values()
        )

    def _end_overlap(self, job: Job) -> None:
        """Note that a job runs no more. The first of its group may start, if this one kept it waiting."""
        group = self._group_of(job)
        if self._overlapping.pop(job.record.key, None) is not None and group is not None:
            first = self._groups[group][0] if group in self._groups else job
            if first is not job:  # the job itself lines up where it becomes ready
                self.line_up(first)

    def dead_letters(self) -> Iterator[Job]:
        """Iterate over the dead letters, the oldest death first."""
        return (job for job in self.dead.values() if job.current_state is JobState.DEAD)

    def oldest_seconds(self, timestamp: Timestamp) -> float | None:
        """Return the age of the oldest unfinished job, or None if there is none."""
        oldest = next(self.after(0) if self._newer else iter(self.jobs.values()), None)
        return None if oldest is None else max(0.0, (timestamp.wall_ms - oldest.record.created_at_ms) / 1000)


class Depths(msgspec.Struct, frozen=True):
    """How many jobs of some lanes are in which state."""

    depth: int
    running: int
    delayed: int
    dead: int
    loading: int = 0
    """How many are on disk only, because the engine has started a moment ago. They are part of `depth`."""


def depths(lanes: Iterable[Lane]) -> Depths:
    """Count the jobs of these lanes. `depth` counts all that are neither done nor dead."""
    lanes = list(lanes)
    return Depths(
        depth=sum(len(lane.jobs) + lane.unloaded for lane in lanes),
        running=sum(lane.running for lane in lanes),
        delayed=sum(lane.state_counts[JobState.DELAYED] for lane in lanes),
        dead=sum(lane.state_counts[JobState.DEAD] for lane in lanes),
        loading=sum(lane.unloaded for lane in lanes),
    )
