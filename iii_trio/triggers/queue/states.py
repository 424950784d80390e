"""The life of one job.

                STORED          LEASED            SUCCEEDED             ERASED
    STORING ───────────► READY ─────────► LEASED ───────────► FINISHING ────────► DONE
                          ▲ ▲               │ │ FAILED                              ▲
                      DUE │ │ RETURNED      │ ▼                           DISCARDED │
                          │ └───────────────┘ DELAYED                    DISCARDING │
                          └───────────────────┘        DYING ─► DEAD ──► REDRIVING ─► READY

A lease is not on disk. There a job waits until it is done or dead. So its jobs are ready again after an engine has ended
in any way, and it costs them nothing (Q2).
"""

from __future__ import annotations

from enum import auto
from typing import Final

from ...state_machine import Table, TableEnum


class JobState(TableEnum):
    """A stage in a job's life."""

    STORING = auto()  # on its way to the store, and its sender has no receipt
    REFUSED = auto()  # it could not be stored
    READY = auto()  # waits for its turn
    LEASED = auto()  # a worker has it
    DELAYED = auto()  # waits for a time: the end of its delay, or of the pause after a failure
    WAITING_FOR_FUNCTION = auto()  # waits for a worker that has its function
    FINISHING = auto()  # done, once the store has removed it
    DONE = auto()
    DYING = auto()  # a dead letter, once the store has it so
    DEAD = auto()  # a dead letter
    REDRIVING = auto()  # a job again, once the store has it so
    DISCARDING = auto()  # discarded, once the store has removed it
    PURGING = auto()  # not wanted any more, and gone once the store has removed it


class JobEvent(TableEnum):
    """Something that happens to a job."""

    STORED = auto()  # the store has it, or has it as a job again
    STORED_WITH_DELAY = auto()
    NOT_STORED = auto()
    LEASED = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    GAVE_UP = auto()  # failed, or lost its worker, for the last time
    RETURNED = auto()  # given back unharmed, because its worker left or the engine ended
    LOST_AGAIN = auto()  # its worker was lost, and not for the first time
    POSTPONED = auto()  # its worker takes nothing just now
    FUNCTION_MISSING = auto()
    FUNCTION_CAME = auto()
    DUE = auto()
    ERASED = auto()  # the store has removed it
    DEAD_LETTERED = auto()  # the store has it as a dead letter
    REDRIVEN = auto()
    DISCARDED = auto()
    PURGED = auto()  # removed by an operator: purged, or cancelled


JOB: Final[Table[JobState, JobEvent]] = {
    JobState.STORING: {
        JobEvent.STORED: JobState.READY,
        JobEvent.STORED_WITH_DELAY: JobState.DELAYED,
        JobEvent.NOT_STORED: JobState.REFUSED,
    },
    JobState.REFUSED: {},
    JobState.READY: {
        JobEvent.LEASED: JobState.LEASED,
        JobEvent.FUNCTION_MISSING: JobState.WAITING_FOR_FUNCTION,
        JobEvent.PURGED: JobState.PURGING,
    },
    JobState.LEASED: {
        JobEvent.PURGED: JobState.PURGING,
        JobEvent.SUCCEEDED: JobState.FINISHING,
        JobEvent.FAILED: JobState.DELAYED,
        JobEvent.LOST_AGAIN: JobState.DELAYED,
        JobEvent.POSTPONED: JobState.DELAYED,
        JobEvent.GAVE_UP: JobState.DYING,
        JobEvent.RETURNED: JobState.READY,
        JobEvent.FUNCTION_MISSING: JobState.WAITING_FOR_FUNCTION,
    },
    JobState.DELAYED: {JobEvent.DUE: JobState.READY, JobEvent.PURGED: JobState.PURGING},
    JobState.WAITING_FOR_FUNCTION: {
        JobEvent.FUNCTION_CAME: JobState.READY,
        JobEvent.PURGED: JobState.PURGING,
        JobEvent.FAILED: JobState.DELAYED,
        JobEvent.GAVE_UP: JobState.DYING,
    },
    JobState.FINISHING: {JobEvent.ERASED: JobState.DONE},
    JobState.DONE: {},
    JobState.DYING: {JobEvent.DEAD_LETTERED: JobState.DEAD},
    JobState.DEAD: {JobEvent.REDRIVEN: JobState.REDRIVING, JobEvent.DISCARDED: JobState.DISCARDING},
    JobState.REDRIVING: {JobEvent.STORED: JobState.READY, JobEvent.NOT_STORED: JobState.DEAD},
    JobState.DISCARDING: {JobEvent.ERASED: JobState.DONE, JobEvent.NOT_STORED: JobState.DEAD},
    JobState.PURGING: {
        JobEvent.ERASED: JobState.DONE,
        # The job that was to replace it could not be stored.
        JobEvent.STORED: JobState.READY,
        JobEvent.STORED_WITH_DELAY: JobState.DELAYED,
    },
}


class LaneState(TableEnum):
    """Whether the jobs of a lane may start."""

    OPEN = auto()
    PAUSED = auto()  # jobs come and wait, and none starts


class LaneEvent(TableEnum):
    """An order of an operator."""

    PAUSE = auto()
    RESUME = auto()


LANE: Final[Table[LaneState, LaneEvent]] = {
    LaneState.OPEN: {LaneEvent.PAUSE: LaneState.PAUSED},
    LaneState.PAUSED: {LaneEvent.RESUME: LaneState.OPEN},
}
