"""The lease of this node, as the node itself sees it.

            GRANTED            LAPSED
    OUT ────────────► HELD ─────────────► LAPSED
     ▲                 │ ▲                  │ │
     │      FENCED     │ └─────RENEWED──────┘ │
     └─────────────────┴──────────FENCED──────┘

The node counts from before it asked, so its own end of the lease never comes after the store's.
"""

from __future__ import annotations

from enum import auto
from typing import Final, final

from ...state_machine import StateMachine, Table, TableEnum
from .records import Node


class LeaseState(TableEnum):
    """The states of a lease."""

    OUT = auto()  # not joined yet, or fenced
    HELD = auto()
    LAPSED = auto()  # by this node's clock. The store may still grant more time
    RELEASED = auto()


class LeaseEvent(TableEnum):
    """The events in the life of a lease."""

    GRANTED = auto()
    RENEWED = auto()
    LAPSED = auto()
    FENCED = auto()
    RELEASED = auto()


LEASE: Final[Table[LeaseState, LeaseEvent]] = {
    LeaseState.OUT: {LeaseEvent.GRANTED: LeaseState.HELD, LeaseEvent.RELEASED: LeaseState.RELEASED},
    LeaseState.HELD: {
        LeaseEvent.RENEWED: LeaseState.HELD,
        LeaseEvent.LAPSED: LeaseState.LAPSED,
        LeaseEvent.FENCED: LeaseState.OUT,
        LeaseEvent.RELEASED: LeaseState.RELEASED,
    },
    LeaseState.LAPSED: {
        LeaseEvent.RENEWED: LeaseState.HELD,
        LeaseEvent.FENCED: LeaseState.OUT,
        LeaseEvent.RELEASED: LeaseState.RELEASED,
    },
    LeaseState.RELEASED: {},
}


@final
class Lease:
    """The lease of one node. Times are seconds of any one clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.state = StateMachine(LEASE, LeaseState.OUT)
        self.node: Node | None = None
        """This node with its fencing number, from the first grant on."""
        self.until = 0.0
        """When it ends, unless it is renewed."""
        self.unbroken_since: float | None = None
        """Since when the store has answered every renewal in time."""

    @property
    def held(self) -> bool:
        """Whether this node may act as the holder."""
        return self.state.current is LeaseState.HELD

    @property
    def lapsed(self) -> bool:
        """Whether it has run out by this node's clock, and may still be renewed."""
        return self.state.current is LeaseState.LAPSED

    @property
    def sweeps(self) -> bool:
        """Whether this node may remove others whose leases have run out.

        After a time without the store, every lease may have run out. So a node waits for one lease's length, in which
        the others renew theirs.
        """
        return self.unbroken_since is not None and self.until - self.unbroken_since >= 2 * self.seconds

    def granted(self, node: Node, asked_at: float) -> None:
        """Begin the lease that was asked for at this time."""
        self.state.advance(LeaseEvent.GRANTED)
        self.node = node
        self._extend(asked_at)

    def renewed(self, asked_at: float) -> None:
        """Extend the lease."""
        self.state.advance(LeaseEvent.RENEWED)
        self._extend(asked_at)

    def _extend(self, asked_at: float) -> None:
        self.until = asked_at + self.seconds
        if self.unbroken_since is None:
            self.unbroken_since = asked_at

    def check(self, now: float) -> bool:
        """Note whether the lease has run out by this node's clock. Return whether it has just done so."""
        # After this moment the store may have given the lease to another node.
        if self.state.current is LeaseState.HELD and now >= self.until:
            self.state.advance(LeaseEvent.LAPSED)
            self.unbroken_since = None
            return True
        return False

    def store_lost(self) -> None:
        """Note that the store did not answer in time."""
        self.unbroken_since = None

    def fenced(self) -> None:
        """Note that the store has given the lease up, or to another holder."""
        if self.state.can(LeaseEvent.FENCED):
            self.state.advance(LeaseEvent.FENCED)
        self.unbroken_since = None

    def released(self) -> None:
        """Note that this node leaves."""
        if self.state.can(LeaseEvent.RELEASED):
            self.state.advance(LeaseEvent.RELEASED)
