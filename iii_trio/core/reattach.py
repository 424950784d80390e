"""The ledger of lost sessions. Their channels and ends wait some time for the worker to come back (clause C4.6).

Only channels and ends wait, bounded by their pipes. Names and functions of a lost session are free at once.
"""

from __future__ import annotations

import heapq
from typing import final

import msgspec

from .channels import Channels
from .session import WorkerSession, same_secret


class LostSession(msgspec.Struct, frozen=True):
    """A session that was lost, and the time until which its channels wait."""

    session: WorkerSession
    cause: str
    until: float


@final
class LostSessions:
    """The lost sessions with waiting channels, each until its deadline."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._lost: dict[str, LostSession] = {}
        self.due: list[tuple[float, str]] = []  # a heap with stale entries

    def __len__(self) -> int:
        return len(self._lost)

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._lost

    def add(self, session: WorkerSession, cause: str, until: float) -> None:
        """Let the channels of a lost session wait until this time."""
        # A session without channels has nothing to wait for.
        if session.owned or session.held_writers or session.held_readers:
            self._lost[session.id] = LostSession(session, cause, until)
            heapq.heappush(self.due, (until, session.id))

    def reattach(self, worker_id: str, token: str, successor: WorkerSession) -> WorkerSession | None:
        """Transfer the channels of a lost session to its successor. Return the lost session.

        Returns None if no session of this id is lost, or the token is wrong.
        """
        lost = self._lost.get(worker_id)
        if lost is None or not same_secret(token, lost.session.reattach_token):
            return None
        del self._lost[worker_id]
        self._channels.transfer_ownership(lost.session, successor)
        return lost.session

    def expire(self, now: float) -> None:
        """End the channels of the sessions that did not come back in time (clause C4.5)."""
        while self.due and self.due[0][0] <= now:
            _, worker_id = heapq.heappop(self.due)
            lost = self._lost.pop(worker_id, None)
            if lost is not None:
                self._channels.session_ended(lost.session, lost.cause, now)

    def next_due(self) -> float | None:
        """Return when `expire` has something to do, or None."""
        while self.due and self.due[0][1] not in self._lost:
            heapq.heappop(self.due)
        return self.due[0][0] if self.due else None
