"""The ledger of workers that wait for a name, because the worker that holds it may be leaving.

When a worker restarts, the engine can read the new connection's messages before the old connection's Close. Refusing the
new worker would be final, because SDKs do not try again. So it waits while the old connection holds unread input.
"""

from __future__ import annotations

from typing import Final, final

import attrs

from .request import Request
from .session import WorkerSession

WAIT_SECONDS: Final = 2.0
"""The time in seconds that the holder has to leave."""


@attrs.define(eq=False)
class NameWaiter:
    """One register call that waits for a name."""

    request: Request
    holder: WorkerSession
    until: float
    confirmed: bool = False
    """Whether the holder is known to have unread input."""


@final
class NameWaiters:
    """All register calls that wait for a name, oldest first."""

    def __init__(self) -> None:
        self.waiting: list[NameWaiter] = []

    def add(self, request: Request, holder: WorkerSession) -> None:
        """Let a register call wait until the holder leaves, at most `WAIT_SECONDS`."""
        self.waiting.append(NameWaiter(request, holder, request.now + WAIT_SECONDS))

    def confirm(self, holder_id: str) -> None:
        """Let the waiters of a holder go on waiting, because it has unread input."""
        # Every waiter of this holder is confirmed, because the question was about the holder.
        for waiter in self.waiting:
            waiter.confirmed = waiter.confirmed or waiter.holder.id == holder_id

    def take_hopeless(self, holder_id: str) -> list[NameWaiter]:
        """Remove and return the unconfirmed waiters of a holder that has no unread input."""
        return self._take([each for each in self.waiting if each.holder.id == holder_id and not each.confirmed])

    def take_freed(self) -> list[NameWaiter]:
        """Remove and return the waiters for names of sessions that are gone."""
        return self._take([each for each in self.waiting if each.holder.state.is_final])

    def take_expired(self, now: float) -> list[NameWaiter]:
        """Remove and return the waiters that have waited too long."""
        return self._take([each for each in self.waiting if each.until <= now])

    def next_due(self) -> float | None:
        """Return when the next waiter's time is up, or None if none waits."""
        return self.waiting[0].until if self.waiting else None

    def _take(self, waiters: list[NameWaiter]) -> list[NameWaiter]:
        for waiter in waiters:
            self.waiting.remove(waiter)
        return waiters
