"""The states of one channel, which has two ends, attached and closed in any order, and exactly one outcome.

                       WRITER_ATTACHED              READER_ATTACHED           WRITER_CLOSED         READER_FINISHED
    ALLOCATED ───────────► AWAITING_READER ───────────► FLOWING ─────────────► DRAINING ─────────────► COMPLETED

Each outcome is a state, so the table alone decides how each event ends a channel.
"""

from __future__ import annotations

from enum import auto
from typing import Final

import msgspec

from ..observed import ChannelFacts
from ..records import reprs_without
from ..state_machine import StateMachine, Table, TableEnum
from ..wire import Direction, Outcome, Ref


class ChannelState(TableEnum):
    """The states of a channel."""

    ALLOCATED = auto()
    AWAITING_READER = auto()
    AWAITING_WRITER = auto()
    FLOWING = auto()
    SEALED = auto()  # the writer has closed before any reader came
    DRAINING = auto()  # the writer has closed, and the reader has bytes or the end left to take
    COMPLETED = auto()
    ABORTED = auto()
    WRITER_LOST = auto()
    READER_CANCELLED = auto()
    READER_LOST = auto()
    OWNER_LOST = auto()
    EXPIRED = auto()
    ENGINE_CLOSED = auto()


class ChannelEvent(TableEnum):
    """The events in the life of a channel."""

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


_WRITER_ENDS: Final = {
    ChannelEvent.WRITER_ABORTED: ChannelState.ABORTED,
    ChannelEvent.WRITER_LOST: ChannelState.WRITER_LOST,
}
_READER_ENDS: Final = {
    ChannelEvent.READER_CANCELLED: ChannelState.READER_CANCELLED,
    ChannelEvent.READER_LOST: ChannelState.READER_LOST,
}
_OUTSIDE_ENDS: Final = {
    ChannelEvent.OWNER_LEFT: ChannelState.OWNER_LOST,
    ChannelEvent.ENGINE_CLOSED: ChannelState.ENGINE_CLOSED,
}

CHANNEL: Final[Table[ChannelState, ChannelEvent]] = {
    ChannelState.ALLOCATED: {
        ChannelEvent.WRITER_ATTACHED: ChannelState.AWAITING_READER,
        ChannelEvent.READER_ATTACHED: ChannelState.AWAITING_WRITER,
        **_OUTSIDE_ENDS,
    },
    ChannelState.AWAITING_READER: {
        ChannelEvent.READER_ATTACHED: ChannelState.FLOWING,
        ChannelEvent.WRITER_CLOSED: ChannelState.SEALED,
        ChannelEvent.NOBODY_CAME: ChannelState.EXPIRED,
        **_WRITER_ENDS,
        **_OUTSIDE_ENDS,
    },
    ChannelState.AWAITING_WRITER: {
        ChannelEvent.WRITER_ATTACHED: ChannelState.FLOWING,
        ChannelEvent.NOBODY_CAME: ChannelState.EXPIRED,
        **_READER_ENDS,
        **_OUTSIDE_ENDS,
    },
    ChannelState.FLOWING: {
        ChannelEvent.WRITER_CLOSED: ChannelState.DRAINING,
        **_WRITER_ENDS,
        **_READER_ENDS,
        **_OUTSIDE_ENDS,
    },
    ChannelState.SEALED: {  # a finished stream outlives its owner (clause C4.5)
        ChannelEvent.READER_ATTACHED: ChannelState.DRAINING,
        ChannelEvent.NOBODY_CAME: ChannelState.EXPIRED,
        ChannelEvent.OWNER_LEFT: ChannelState.SEALED,
        ChannelEvent.ENGINE_CLOSED: ChannelState.ENGINE_CLOSED,
    },
    ChannelState.DRAINING: {
        ChannelEvent.READER_FINISHED: ChannelState.COMPLETED,
        ChannelEvent.OWNER_LEFT: ChannelState.DRAINING,
        ChannelEvent.ENGINE_CLOSED: ChannelState.ENGINE_CLOSED,
        **_READER_ENDS,
    },
    ChannelState.COMPLETED: {},
    ChannelState.ABORTED: {},
    ChannelState.WRITER_LOST: {},
    ChannelState.READER_CANCELLED: {},
    ChannelState.READER_LOST: {},
    ChannelState.OWNER_LOST: {},
    ChannelState.EXPIRED: {},
    ChannelState.ENGINE_CLOSED: {},
}

HALF_ATTACHED: Final = frozenset({ChannelState.AWAITING_READER, ChannelState.AWAITING_WRITER, ChannelState.SEALED})
"""The states in which a channel may expire (clause C2.3)."""


class Channel(msgspec.Struct, eq=False):
    """One channel, as the core sees it. Its bytes are in a pipe of the shell."""

    id: str
    read_key: str
    write_key: str
    owner: str | None
    buffer_size: int
    max_bytes: int
    expires_after_seconds: float | None
    created_at: float
    touched_at: float
    state: StateMachine[ChannelState, ChannelEvent] = msgspec.field(
        default_factory=lambda: StateMachine(CHANNEL, ChannelState.ALLOCATED)
    )
    writer: str | None = None
    """The session that attached the writing end, while it is attached."""
    reader: str | None = None
    invocations: list[str] = msgspec.field(default_factory=list)
    """The calls that used it (clause C7.3)."""
    traceparent: str | None = None
    """The traceparent of the call that created it."""
    used_by: list[str] = msgspec.field(default_factory=list)
    """The traceparents of the calls that used it."""
    facts: ChannelFacts | None = None
    """Its facts, where it belongs to a trace that is recorded."""

    __repr__, __rich_repr__ = reprs_without("read_key", "write_key")

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, or None while the channel is open."""
        return Outcome[self.state.current.name] if self.state.is_final else None

    def ref(self, direction: Direction) -> Ref:
        """Return the ref of one of its ends."""
        return Ref(self.id, self.read_key if direction is Direction.READ else self.write_key, direction)
