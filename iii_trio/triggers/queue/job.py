"""The life of one job: stored, run, and done; or tried again; or a dead letter.

                STORED          LEASED            SUCCEEDED             ERASED
    STORING ───────────► READY ─────────► LEASED ───────────► FINISHING ────────► DONE
                          ▲ ▲               │ │ FAILED                              ▲
                      DUE │ │ RETURNED      │ ▼                           DISCARDED │
                          │ └───────────────┘ RESTING                    DISCARDING │
                          └───────────────────┘        DYING ─► DEAD ──► REVIVING ──► READY

A lease is not on disk: there a job is waiting until it is done or dead. So whatever ends the engine, its jobs are ready
again when it is back, and it costs them nothing (Q2).
"""

from __future__ import annotations

from enum import auto
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from ...state_machine import StateMachine, Table, TableEnum

if TYPE_CHECKING:
    from .lane import Lane


class JobState(TableEnum):
    """Where a job is in its life."""

    STORING = auto()  # on its way to the disk: nobody has been told that it is there
    REFUSED = auto()  # it could not be stored, or its place was wanted for another
    READY = auto()  # waits for its turn
    LEASED = auto()  # a worker has it
    RESTING = auto()  # waits for a time: its delay, or the pause after a failure
    ABSENT = auto()  # waits for a worker that has its function
    FINISHING = auto()  # done, as soon as the disk says so
    DONE = auto()
    DYING = auto()  # a dead letter, as soon as the disk says so
    DEAD = auto()  # a dead letter
    REVIVING = auto()  # a job again, as soon as the disk says so
    DISCARDING = auto()  # thrown away, as soon as the disk says so


class JobEvent(TableEnum):
    """What happened to a job."""

    STORED = auto()  # the disk has it, or has it as a job again
    DELAYED = auto()  # stored, and to rest first
    NOT_STORED = auto()
    LEASED = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    GAVE_UP = auto()  # failed, or lost its worker, for the last time
    RETURNED = auto()  # given back unharmed: its worker, or the engine, is gone
    LOST_AGAIN = auto()  # its worker is gone, and not for the first time
    PUT_OFF = auto()  # its worker takes nothing just now
    FUNCTION_MISSING = auto()
    FUNCTION_CAME = auto()
    DUE = auto()
    ERASED = auto()  # the disk has forgotten it
    BURIED = auto()  # the disk knows that it is dead
    REDRIVEN = auto()
    DISCARDED = auto()


JOB: Final[Table[JobState, JobEvent]] = {
    JobState.STORING: {
        JobEvent.STORED: JobState.READY,
        JobEvent.DELAYED: JobState.RESTING,
        JobEvent.NOT_STORED: JobState.REFUSED,
    },
    JobState.REFUSED: {},
    JobState.READY: {JobEvent.LEASED: JobState.LEASED, JobEvent.FUNCTION_MISSING: JobState.ABSENT},
    JobState.LEASED: {
        JobEvent.SUCCEEDED: JobState.FINISHING,
        JobEvent.FAILED: JobState.RESTING,
        JobEvent.LOST_AGAIN: JobState.RESTING,
        JobEvent.PUT_OFF: JobState.RESTING,
        JobEvent.GAVE_UP: JobState.DYING,
        JobEvent.RETURNED: JobState.READY,
        JobEvent.FUNCTION_MISSING: JobState.ABSENT,
    },
    JobState.RESTING: {JobEvent.DUE: JobState.READY},
    JobState.ABSENT: {
        JobEvent.FUNCTION_CAME: JobState.READY,
        JobEvent.FAILED: JobState.RESTING,
        JobEvent.GAVE_UP: JobState.DYING,
    },
    JobState.FINISHING: {JobEvent.ERASED: JobState.DONE},
    JobState.DONE: {},
    JobState.DYING: {JobEvent.BURIED: JobState.DEAD},
    JobState.DEAD: {JobEvent.REDRIVEN: JobState.REVIVING, JobEvent.DISCARDED: JobState.DISCARDING},
    JobState.REVIVING: {JobEvent.STORED: JobState.READY, JobEvent.NOT_STORED: JobState.DEAD},
    JobState.DISCARDING: {JobEvent.ERASED: JobState.DONE, JobEvent.NOT_STORED: JobState.DEAD},
}


class Record(msgspec.Struct):
    """A job as a store keeps it. Times are milliseconds since the epoch."""

    key: int
    """Its place in the store, for good."""
    position: int
    """Its place in line: a redriven job goes behind all that waits."""
    id: str
    """Its receipt."""
    lane: str
    """The text of its lane's key."""
    function_id: str
    namespace: str
    data: bytes | None
    """Its payload, as JSON; None: not in memory."""
    created_at_ms: int
    group: str | None = None
    traceparent: str | None = None
    baggage: str | None = None
    metadata: bytes | None = None
    attempts: int = 0
    """Calls that failed."""
    lost: int = 0
    """Calls whose worker was lost."""
    due_ms: int | None = None
    """When it may be called, where that is later."""
    died_at_ms: int | None = None
    code: str | None = None
    """Of its last failure, as `message` is."""
    message: str | None = None


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
    revived: Record | None = None
    """While it is about to be a job again: as what."""

    def __lt__(self, other: Job) -> bool:
        return self.record.position < other.record.position

    @property
    def phase(self) -> JobState:
        return self.state.current

    @property
    def function(self) -> tuple[str, str]:
        """What is to be called: namespace and id."""
        return self.record.namespace, self.record.function_id


@attrs.frozen
class Moment:
    """A point in time, by the two clocks: `now` in seconds of the one that never jumps, `wall_ms` of the calendar's."""

    now: float
    wall_ms: int

    def wall_at(self, then: float) -> int:
        """What the calendar's clock will show `then`."""
        return self.wall_ms + round((then - self.now) * 1000)
