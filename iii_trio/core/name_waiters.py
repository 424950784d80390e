"""The ledger of workers that wait for a name, because the worker that holds it may be leaving, or gone.

When a worker restarts, the engine can read the new connection's messages before the old connection's Close. Or the old
machine has vanished, and nothing tells that. Refusing the new worker would be final, because SDKs do not try again. So it
waits while the old connection holds unread input, and otherwise until the old worker has shown a sign of life (promises R5
to R8 in docs/names.md).

    WAITING ──has unread input──► LEAVING ──did not leave──► CHALLENGED ──alive──► refused, or else the name is its own
       └──────────────────────────has none─────────────────────► CHALLENGED
"""

from __future__ import annotations

import math
from enum import auto
from typing import Final, final

import msgspec

from ..state_machine import StateMachine, Table, TableEnum
from .request import Request
from .session import WorkerSession

WAIT_SECONDS: Final = 2.0
"""The time in seconds that the holder has to leave."""


class WaiterState(TableEnum):
    """The state of one register call that waits for a name."""

    WAITING = auto()  # for the shell to look at the holder's input
    LEAVING = auto()  # the holder has unread input, maybe its Close
    CHALLENGED = auto()  # the holder was pinged


class WaiterEvent(TableEnum):
    """What became known of the holder."""

    HAS_INPUT = auto()
    HAS_NO_INPUT = auto()
    DID_NOT_LEAVE = auto()


NAME_WAITER: Final[Table[WaiterState, WaiterEvent]] = {
    WaiterState.WAITING: {
        WaiterEvent.HAS_INPUT: WaiterState.LEAVING,
        WaiterEvent.HAS_NO_INPUT: WaiterState.CHALLENGED,
    },
    WaiterState.LEAVING: {
        WaiterEvent.HAS_INPUT: WaiterState.LEAVING,
        WaiterEvent.HAS_NO_INPUT: WaiterState.LEAVING,
        WaiterEvent.DID_NOT_LEAVE: WaiterState.CHALLENGED,
    },
    WaiterState.CHALLENGED: {
        WaiterEvent.HAS_INPUT: WaiterState.CHALLENGED,
        WaiterEvent.HAS_NO_INPUT: WaiterState.CHALLENGED,
    },
}


class NameWaiter(msgspec.Struct, eq=False):
    """One register call that waits for a name."""

    request: Request
    holder: WorkerSession
    until: float
    state: StateMachine[WaiterState, WaiterEvent] = msgspec.field(
        default_factory=lambda: StateMachine(NAME_WAITER, WaiterState.WAITING)
    )


@final
class NameWaiters:
    """All register calls that wait for a name, oldest first."""

    def __init__(self) -> None:
        self.waiting: list[NameWaiter] = []

    def add(self, request: Request, holder: WorkerSession) -> None:
        """Let a register call wait until the holder leaves, at most `WAIT_SECONDS`."""
        self.waiting.append(NameWaiter(request, holder, request.now + WAIT_SECONDS))

    def input_known(self, holder_id: str, has_unread_input: bool) -> bool:
        """Note whether a holder has unread input. Return whether it is to be pinged now."""
        event = WaiterEvent.HAS_INPUT if has_unread_input else WaiterEvent.HAS_NO_INPUT
        # The question was about the holder, so the answer holds for each of its waiters.
        return self._advance([each for each in self.waiting if each.holder.id == holder_id], event)

    def did_not_leave(self, now: float) -> list[WorkerSession]:
        """Return the holders that had unread input, did not leave in time, and are to be pinged now."""
        expired = [each for each in self.waiting if each.until <= now]
        holders = {each.holder.id: each.holder for each in expired if each.state.current is WaiterState.LEAVING}
        self._advance(expired, WaiterEvent.DID_NOT_LEAVE)
        return list(holders.values())

    def is_claimed(self, holder_id: str) -> bool:
        """Return whether a worker that is still connected waits for the name of this holder, which was pinged."""
        return any(
            each.holder.id == holder_id
            and each.state.current is WaiterState.CHALLENGED
            and not each.request.session.state.is_final
            for each in self.waiting
        )

    def take_refused(self, holder_id: str) -> list[NameWaiter]:
        """Remove and return the waiters of a holder that answered its ping."""
        challenged = WaiterState.CHALLENGED
        return self._take(
            [each for each in self.waiting if each.holder.id == holder_id and each.state.current is challenged]
        )

    def take_freed(self) -> list[NameWaiter]:
        """Remove and return the waiters for names of sessions that are gone."""
        return self._take([each for each in self.waiting if each.holder.state.is_final])

    def next_due(self) -> float | None:
        """Return when the next holder's time to leave is up, or None if none has to leave."""
        # This is asked after every message, and nearly always there are none.
        if not self.waiting:
            return None
        # The shell keeps the time of a ping, so a challenged waiter has none of its own.
        due = min((each.until for each in self.waiting), default=math.inf)
        return None if due == math.inf else due

    def _advance(self, waiters: list[NameWaiter], event: WaiterEvent) -> bool:
        """Advance waiters. Return whether one of them was challenged by it."""
        challenged = False
        for waiter in waiters:
            before = waiter.state.current
            if waiter.state.can(event) and waiter.state.advance(event) is WaiterState.CHALLENGED:
                challenged = challenged or before is not WaiterState.CHALLENGED
                waiter.until = math.inf
        return challenged

    def _take(self, waiters: list[NameWaiter]) -> list[NameWaiter]:
        for waiter in waiters:
            self.waiting.remove(waiter)
        return waiters
