"""The life of one job: stored, run, and done; or tried again; or a dead letter.

                STORED          LEASED            SUCCEEDED             ERASED
    STORING ───────────► READY ─────────► LEASED ───────────► FINISHING ────────► DONE
                          ▲ ▲               │ │ FAILED                              ▲
                      DUE │ │ RETURNED      │ ▼                           DISCARDED │
                          │ └───────────────┘ DELAYED                    DISCARDING │
                          └───────────────────┘        DYING ─► DEAD ──► REDRIVING ──► READY

A lease is not on disk: there a job is waiting until it is done or dead. So whatever ends the engine, its jobs are ready
again when it is back, and it costs them nothing (Q2).
"""

from __future__ import annotations

from enum import auto
from typing import Final

from ...state_machine import Table, TableEnum


class JobState(TableEnum):
    """Where a job is in its life."""

    STORING = auto()  # on its way to the disk: nobody has been told that it is there
    REFUSED = auto()  # it could not be stored, or its place was wanted for another
    READY = auto()  # waits for its turn
    LEASED = auto()  # a worker has it
    DELAYED = auto()  # waits for a time: its delay, or the pause after a failure
    WAITING_FOR_FUNCTION = auto()  # waits for a worker that has its function
    FINISHING = auto()  # done, as soon as the disk says so
    DONE = auto()
    DYING = auto()  # a dead letter, as soon as the disk says so
    DEAD = auto()  # a dead letter
    REDRIVING = auto()  # a job again, as soon as the disk says so
    DISCARDING = auto()  # thrown away, as soon as the disk says so


class JobEvent(TableEnum):
    """What happened to a job."""

    STORED = auto()  # the disk has it, or has it as a job again
    STORED_WITH_DELAY = auto()  # stored, and to rest first
    NOT_STORED = auto()
    LEASED = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    GAVE_UP = auto()  # failed, or lost its worker, for the last time
    RETURNED = auto()  # given back unharmed: its worker, or the engine, is gone
    LOST_AGAIN = auto()  # its worker is gone, and not for the first time
    POSTPONED = auto()  # its worker takes nothing just now
    FUNCTION_MISSING = auto()
    FUNCTION_CAME = auto()
    DUE = auto()
    ERASED = auto()  # the disk has forgotten it
    DEAD_LETTERED = auto()  # the disk knows that it is dead
    REDRIVEN = auto()
    DISCARDED = auto()


JOB: Final[Table[JobState, JobEvent]] = {
    JobState.STORING: {
        JobEvent.STORED: JobState.READY,
        JobEvent.STORED_WITH_DELAY: JobState.DELAYED,
        JobEvent.NOT_STORED: JobState.REFUSED,
    },
    JobState.REFUSED: {},
    JobState.READY: {JobEvent.LEASED: JobState.LEASED, JobEvent.FUNCTION_MISSING: JobState.WAITING_FOR_FUNCTION},
    JobState.LEASED: {
        JobEvent.SUCCEEDED: JobState.FINISHING,
        JobEvent.FAILED: JobState.DELAYED,
        JobEvent.LOST_AGAIN: JobState.DELAYED,
        JobEvent.POSTPONED: JobState.DELAYED,
        JobEvent.GAVE_UP: JobState.DYING,
        JobEvent.RETURNED: JobState.READY,
        JobEvent.FUNCTION_MISSING: JobState.WAITING_FOR_FUNCTION,
    },
    JobState.DELAYED: {JobEvent.DUE: JobState.READY},
    JobState.WAITING_FOR_FUNCTION: {
        JobEvent.FUNCTION_CAME: JobState.READY,
        JobEvent.FAILED: JobState.DELAYED,
        JobEvent.GAVE_UP: JobState.DYING,
    },
    JobState.FINISHING: {JobEvent.ERASED: JobState.DONE},
    JobState.DONE: {},
    JobState.DYING: {JobEvent.DEAD_LETTERED: JobState.DEAD},
    JobState.DEAD: {JobEvent.REDRIVEN: JobState.REDRIVING, JobEvent.DISCARDED: JobState.DISCARDING},
    JobState.REDRIVING: {JobEvent.STORED: JobState.READY, JobEvent.NOT_STORED: JobState.DEAD},
    JobState.DISCARDING: {JobEvent.ERASED: JobState.DONE, JobEvent.NOT_STORED: JobState.DEAD},
}
