"""What a store keeps of a job, and points in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from sys import intern
from typing import Any, Final

import msgspec
from msgspec.structs import astuple, replace

from .texts import MAX_CODE_BYTES, MAX_MESSAGE_BYTES, cut

NORMAL_PRIORITY: Final = 1


class Timestamp(msgspec.Struct, frozen=True, gc=False):
    """A point in time, by both clocks.

    `now` is in seconds of the monotonic clock, `wall_ms` in milliseconds of the calendar's.
    """

    now: float
    wall_ms: int

    def wall_at(self, then: float) -> int:
        """Return the calendar's time at `then`, in milliseconds."""
        return self.wall_ms + round((then - self.now) * 1000)


class Progress(msgspec.Struct, frozen=True, gc=False):
    """The progress of a job: its failures, and its pause or its end."""

    attempts: int = 0
    """The number of failed calls."""
    lost: int = 0
    """The number of calls whose worker was lost."""
    due_ms: int | None = None
    """The earliest time of its next call. None: at once."""
    pause_ms: int | None = None
    """The whole length of the pause that ends at `due_ms`. It bounds the rest of the pause if the calendar's clock jumps."""
    died_at_ms: int | None = None
    code: str | None = None
    """The error code of its last failure."""
    message: str | None = None

    def pause_left_seconds(self, timestamp: Timestamp) -> float:
        """Return the rest of a pause that began under an earlier engine.

        It is never longer than the whole pause was, whatever the calendar's clock shows now (Q18).
        """
        if self.due_ms is None:
            return 0.0
        longest = math.inf if self.pause_ms is None else self.pause_ms / 1000
        return min((self.due_ms - timestamp.wall_ms) / 1000, longest)


class Options(msgspec.Struct, frozen=True, gc=False):
    """The options of one job that outlive its arrival."""

    priority: int = NORMAL_PRIORITY
    unique_key: str | None = None
    """No other job of its lane has this key while it is unfinished."""
    unique_ms: int | None = None
    """How long the key is taken after the job came, even if the job is done earlier."""
    keep_result_ms: int | None = None
    """How long its result is kept. None: not at all."""


NEW: Final = Progress()
PLAIN: Final = Options()


class Record(msgspec.Struct, gc=False):
    """A job as a store keeps it. Times are in milliseconds since the epoch.

    Most jobs wait with the same progress and the same options, and share these objects. A record has no others that
    could be part of a cycle, so the garbage collector need not look at it.
    """

    key: int
    """Its key in the store. It never changes."""
    position: int
    """Its place in line. A redriven job goes behind all waiting jobs."""
    id: str
    """Its receipt."""
    lane: str
    """The text of its lane's key."""
    function_id: str
    namespace: str
    data: bytes | None
    """Its payload, as JSON. None: not in memory, with its metadata."""
    created_at_ms: int
    group: str | None = None
    traceparent: str | None = None
    baggage: str | None = None
    metadata: bytes | None = None
    progress: Progress = NEW
    options: Options = PLAIN

    def evolve(self, **changes: Any) -> None:
        """Change members of the progress."""
        self.progress = replace(self.progress, **changes)

    def note_failure(self, code: str, message: str) -> None:
        """Note the code and the message of the last failure, cut to their bounds (Q22)."""
        self.evolve(code=cut(code, MAX_CODE_BYTES), message=cut(message, MAX_MESSAGE_BYTES))

    @property
    def columns(self) -> tuple[Any, ...]:
        """All values in one row, in the order of the fields."""
        progress, options = self.progress, self.options
        return (
            *astuple(self)[:-2],
            *(_NEW if progress is NEW else astuple(progress)),
            *(_PLAIN if options is PLAIN else astuple(options)),
        )

    @classmethod
    def from_columns(cls, row: Sequence[Any]) -> Record:
        """Make a record of such a row. Texts that many jobs have in common become one object."""
        key, position, id_, lane, function_id, namespace, data, created_at_ms, *texts = row[:RECORD_COLUMNS]
        group, traceparent, baggage, metadata = texts
        progress, options = row[RECORD_COLUMNS:_SECOND], row[_SECOND:]
        return cls(
            key,
            key if position == key else position,
            id_,
            intern(lane),
            intern(function_id),
            intern(namespace),
            data,
            created_at_ms,
            group,
            traceparent,
            baggage,
            metadata,
            NEW if progress == _NEW else Progress(*progress),
            PLAIN if options == _PLAIN else Options(*options),
        )


RECORD_COLUMNS: Final = len(Record.__struct_fields__) - 2
"""The number of columns of a record, before those of its progress and its options."""
_SECOND: Final = RECORD_COLUMNS + len(Progress.__struct_fields__)
_NEW: Final = astuple(NEW)
_PLAIN: Final = astuple(PLAIN)
