"""Lost workers that may come back: their channels and ends wait for them, for a time (clause C4.6).

Only channels and ends wait, bounded by their pipes. The rest of a lost worker goes at once: its name and functions are free.
"""

from __future__ import annotations

import heapq
import hmac
from typing import final

import attrs

from .channels import Channels
from .effects import Effects
from .session import Session


@attrs.frozen
class _Absence:
    session: Session
    cause: str
    until: float


@final
class Absences:
    """Who is lost, and until when what they had waits."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._absent: dict[str, _Absence] = {}
        self._due: list[tuple[float, str]] = []  # a heap, with stale entries

    def __len__(self) -> int:
        return len(self._absent)

    def begin(self, session: Session, cause: str, until: float) -> None:
        """Let what this session had wait until then."""
        if session.owned or session.held_writers or session.held_readers:
            self._absent[session.id] = _Absence(session, cause, until)
            heapq.heappush(self._due, (until, session.id))

    def end(self, worker_id: str, token: str, back: Session) -> tuple[Session, Effects] | None:
        """A worker is back and shows its token: what waited is its new session's. None if nobody waited for this one."""
        absence = self._absent.get(worker_id)
        if absence is None or not hmac.compare_digest(token.encode(), absence.session.reattach_token.encode()):
            return None
        del self._absent[worker_id]
        return absence.session, self._channels.hand_over(absence.session, back)

    def expire(self, now: float) -> Effects:
        """Who has not come back in time is lost for good: the rest of clause C4.5."""
        effects: Effects = []
        while self._due and self._due[0][0] <= now:
            _, worker_id = heapq.heappop(self._due)
            absence = self._absent.pop(worker_id, None)
            if absence is not None:
                effects += self._channels.session_ended(absence.session, absence.cause, now)
        return effects

    def next_due(self) -> float | None:
        """When `expire` has something to do; None if never."""
        while self._due and self._due[0][1] not in self._absent:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None
