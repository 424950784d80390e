"""The life of one channel: two ends, attached and closed in any order, and exactly one outcome.

                       WRITER_ATTACHED              READER_ATTACHED           WRITER_CLOSED         READER_FINISHED
    ALLOCATED ───────────► AWAITING_READER ───────────► FLOWING ─────────────► DRAINING ─────────────► COMPLETED

A phase of its own for each outcome makes the table the only place that says which cue ends a channel how.
"""

from __future__ import annotations

from enum import auto
from typing import Final

import attrs

from ..lifecycle import Lifecycle, Step, Table
from ..wire import Direction, Outcome, Ref


class Phase(Step):
    """Where a channel is in its life."""

    ALLOCATED = auto()
    AWAITING_READER = auto()
    AWAITING_WRITER = auto()
    FLOWING = auto()
    SEALED = auto()  # the writer has closed cleanly before any reader came
    DRAINING = auto()  # the writer has closed cleanly; the reader has bytes, or the end, left to take
    COMPLETED = auto()
    ABORTED = auto()
    WRITER_LOST = auto()
    READER_CANCELLED = auto()
    READER_LOST = auto()
    OWNER_LOST = auto()
    EXPIRED = auto()
    ENGINE_CLOSED = auto()


class Cue(Step):
    """What happened to a channel."""

    WRITER_ATTACHED = auto()
    READER_ATTACHED = auto()
    WRITER_CLOSED = auto()
    WRITER_ABORTED = auto()
    WRITER_LOST = auto()
    READER_FINISHED = auto()
    READER_CANCELLED = auto()
    READER_LOST = auto()
    OWNER_LEFT = auto()
    NOBODY_CAME = auto()
    ENGINE_CLOSED = auto()


_WRITER_ENDS: Final = {Cue.WRITER_ABORTED: Phase.ABORTED, Cue.WRITER_LOST: Phase.WRITER_LOST}
_READER_ENDS: Final = {Cue.READER_CANCELLED: Phase.READER_CANCELLED, Cue.READER_LOST: Phase.READER_LOST}
_OUTSIDE_ENDS: Final = {Cue.OWNER_LEFT: Phase.OWNER_LOST, Cue.ENGINE_CLOSED: Phase.ENGINE_CLOSED}

CHANNEL: Final[Table[Phase, Cue]] = {
    Phase.ALLOCATED: {
        Cue.WRITER_ATTACHED: Phase.AWAITING_READER,
        Cue.READER_ATTACHED: Phase.AWAITING_WRITER,
        **_OUTSIDE_ENDS,
    },
    Phase.AWAITING_READER: {
        Cue.READER_ATTACHED: Phase.FLOWING,
        Cue.WRITER_CLOSED: Phase.SEALED,
        Cue.NOBODY_CAME: Phase.EXPIRED,
        **_WRITER_ENDS,
        **_OUTSIDE_ENDS,
    },
    Phase.AWAITING_WRITER: {
        Cue.WRITER_ATTACHED: Phase.FLOWING,
        Cue.NOBODY_CAME: Phase.EXPIRED,
        **_READER_ENDS,
        **_OUTSIDE_ENDS,
    },
    Phase.FLOWING: {Cue.WRITER_CLOSED: Phase.DRAINING, **_WRITER_ENDS, **_READER_ENDS, **_OUTSIDE_ENDS},
    Phase.SEALED: {  # a finished stream outlives its owner (clause C4.5)
        Cue.READER_ATTACHED: Phase.DRAINING,
        Cue.NOBODY_CAME: Phase.EXPIRED,
        Cue.OWNER_LEFT: Phase.SEALED,
        Cue.ENGINE_CLOSED: Phase.ENGINE_CLOSED,
    },
    Phase.DRAINING: {
        Cue.READER_FINISHED: Phase.COMPLETED,
        Cue.OWNER_LEFT: Phase.DRAINING,
        Cue.ENGINE_CLOSED: Phase.ENGINE_CLOSED,
        **_READER_ENDS,
    },
    Phase.COMPLETED: {},
    Phase.ABORTED: {},
    Phase.WRITER_LOST: {},
    Phase.READER_CANCELLED: {},
    Phase.READER_LOST: {},
    Phase.OWNER_LOST: {},
    Phase.EXPIRED: {},
    Phase.ENGINE_CLOSED: {},
}

HALF_ATTACHED: Final = frozenset({Phase.AWAITING_READER, Phase.AWAITING_WRITER, Phase.SEALED})
"""The phases in which a channel may expire (clause C2.3)."""


@attrs.define(eq=False)
class Channel:
    """One channel as the engine's decisions see it; its bytes are elsewhere."""

    id: str
    read_key: str = attrs.field(repr=False)
    write_key: str = attrs.field(repr=False)
    owner: str | None
    buffer_size: int
    max_bytes: int
    expires_after_seconds: float | None
    created_at: float
    touched_at: float
    life: Lifecycle[Phase, Cue] = attrs.field(factory=lambda: Lifecycle(CHANNEL, Phase.ALLOCATED))
    writer: str | None = None
    """The session that holds the writing end, if a session attached it and it is still attached."""
    reader: str | None = None
    invocations: list[str] = attrs.field(factory=list)
    """The calls that used it (clause C7.3)."""
    traceparent: str | None = None
    """Of the call that made it."""
    used_by: list[str] = attrs.field(factory=list)
    """The traceparents of the calls that used it."""

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it has not."""
        return Outcome[self.life.phase.name] if self.life.over else None

    def ref(self, direction: Direction) -> Ref:
        """The ref that names one of its ends."""
        return Ref(self.id, self.read_key if direction is Direction.READ else self.write_key, direction)
