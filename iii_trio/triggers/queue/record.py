"""What a store keeps of a job, and points in time."""

from __future__ import annotations

import attrs
import msgspec


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


@attrs.frozen
class Timestamp:
    """A point in time, by the two clocks: `now` in seconds of the one that never jumps, `wall_ms` of the calendar's."""

    now: float
    wall_ms: int

    def wall_at(self, then: float) -> int:
        """What the calendar's clock will show `then`."""
        return self.wall_ms + round((then - self.now) * 1000)
