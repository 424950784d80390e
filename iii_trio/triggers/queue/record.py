"""What a store keeps of a job, and points in time."""

from __future__ import annotations

from typing import Final

import attrs
import msgspec

NORMAL_PRIORITY: Final = 1


class Record(msgspec.Struct):
    """A job as a store keeps it. Times are in milliseconds since the epoch."""

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
    priority: int = NORMAL_PRIORITY
    unique_key: str | None = None
    """No other job of its lane has this key while it is unfinished."""
    unique_ms: int | None = None
    """How long the key is taken after the job came, even if the job is done earlier."""
    keep_result_ms: int | None = None
    """How long its result is kept. None: not at all."""


@attrs.frozen
class Timestamp:
    """A point in time, by both clocks.

    `now` is in seconds of the monotonic clock, `wall_ms` in milliseconds of the calendar's.
    """

    now: float
    wall_ms: int

    def wall_at(self, then: float) -> int:
        """Return the calendar's time at `then`, in milliseconds."""
        return self.wall_ms + round((then - self.now) * 1000)
