"""Whether this node owns a shard of the queues of its mesh, as the node itself sees it.

            GRANTED              OPENED
     OUT ────────────► LOADING ──────────► OWNING
      ▲                   │                   │
      │                   └── ENDED ──┐       │ ENDED
      │      CLOSED                   ▼       │
      └─────────────────────────── CLOSING ◄──┘

The node counts from before it asked, and stops a part of the lease before its end, so it has stopped before the store may
give the lease to another node.
"""

from __future__ import annotations

from enum import auto
from typing import Final, final

import trio

from ...state_machine import StateMachine, Table, TableEnum

MARGIN: Final = 0.2
"""The part of a lease, at its end, in which the node is not the owner any more. It has to stop in that time."""


class OwnershipState(TableEnum):
    """The states of a node's ownership."""

    OUT = auto()
    LOADING = auto()
    OWNING = auto()
    CLOSING = auto()


class OwnershipEvent(TableEnum):
    """The events in the life of an ownership."""

    GRANTED = auto()
    OPENED = auto()  # the jobs are loaded
    ENDED = auto()  # the lease, or this node's wish to have it
    CLOSED = auto()


OWNERSHIP: Final[Table[OwnershipState, OwnershipEvent]] = {
    OwnershipState.OUT: {OwnershipEvent.GRANTED: OwnershipState.LOADING},
    OwnershipState.LOADING: {
        OwnershipEvent.OPENED: OwnershipState.OWNING,
        OwnershipEvent.ENDED: OwnershipState.CLOSING,
    },
    OwnershipState.OWNING: {OwnershipEvent.ENDED: OwnershipState.CLOSING},
    OwnershipState.CLOSING: {OwnershipEvent.CLOSED: OwnershipState.OUT},
}


@final
class QueueLease:
    """The lease of a shard. `scope` is cancelled when it ends, whatever the reason."""

    def __init__(self) -> None:
        self.state = StateMachine(OWNERSHIP, OwnershipState.OUT)
        self.number = 0
        """The fencing number. 0: there is no lease."""
        self.scope = trio.CancelScope()
        self._fenced = False
        self._until = 0.0

    def granted(self, number: int, asked_at: float, seconds: float) -> None:
        """Begin the lease that was asked for at this time."""
        self.state.advance(OwnershipEvent.GRANTED)
        self.number, self._fenced = number, False
        self.scope = trio.CancelScope()
        self.renewed(asked_at, seconds)

    def renewed(self, asked_at: float, seconds: float) -> None:
        """Extend the lease."""
        self._until = asked_at + (1 - MARGIN) * seconds
        self.scope.deadline = self._until

    def fenced(self) -> None:
        """Note that another lease has begun. This one is worth nothing from now on."""
        self._fenced = True
        self.scope.cancel(reason="the lease of the shard is over")

    def holds(self) -> bool:
        """Whether what this node writes and answers counts."""
        # The scope may not have been cancelled yet where the process was stopped.
        return self.number != 0 and not self._fenced and trio.current_time() < self._until

    def owns(self) -> bool:
        """Whether this node may take jobs and start them."""
        return self.state.current is OwnershipState.OWNING and not self.scope.cancel_called and self.holds()

    @property
    def until(self) -> float:
        """When this node stops, unless the lease is renewed."""
        return self._until

    def opened(self) -> None:
        """Note that the jobs are loaded."""
        self.state.advance(OwnershipEvent.OPENED)

    def ended(self) -> None:
        """Note that nothing new begins."""
        self.state.advance(OwnershipEvent.ENDED)

    def closed(self) -> None:
        """Note that everything of it has ended."""
        self.state.advance(OwnershipEvent.CLOSED)
        self.number = 0
