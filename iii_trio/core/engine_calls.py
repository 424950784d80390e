"""The ledger of calls that the engine makes for a session, which waits for the answer: auth functions and hooks.

An answer is not acted upon where it comes in, because that can be in the middle of another session's end. It is put into
`settled`, and the hub acts upon it at the end of the input. Every call has a deadline, so no session waits for ever.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import final

import msgspec
from msgspec import Raw

from ..wire import ABSENT, JsonValue, WireError, from_json
from .call import Call
from .session import WorkerSession


class EngineAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a call of the engine: a result, or an error."""

    result: Raw = ABSENT
    error: WireError | None = None
    from_function: bool
    """Whether the function itself answered. Otherwise it is missing, late or gone, and trying again may help."""

    def value(self) -> JsonValue:
        """Return the result, decoded. Raises ValueError."""
        return from_json(bytes(self.result)) if self.result else None


class EngineCall(msgspec.Struct, eq=False):
    """A call of the engine, with the session that waits for it."""

    session: WorkerSession
    then: Callable[[EngineAnswer, float], None]
    """Goes on with the session, given the answer and the time."""
    until: float
    call: Call | None = None
    """None until it has been given to its callee."""


@final
class EngineCalls:
    """The calls that the engine waits for, at most one for each session."""

    def __init__(self) -> None:
        self.settled: deque[tuple[EngineCall, EngineAnswer]] = deque()
        """The calls with an answer that has not been acted upon."""
        self._waiting: dict[str, EngineCall] = {}
        self.due: list[tuple[float, str]] = []  # a heap with stale entries

    def add(self, waiting: EngineCall) -> None:
        """Wait for a call until its deadline."""
        self._waiting[waiting.session.id] = waiting
        heapq.heappush(self.due, (waiting.until, waiting.session.id))

    def settle(self, waiting: EngineCall, answer: EngineAnswer) -> None:
        """Take the answer of a call. It is acted upon at the end of the input. Only the first answer counts."""
        if self._waiting.get(waiting.session.id) is waiting:
            del self._waiting[waiting.session.id]
            self.settled.append((waiting, answer))

    def remove(self, session: WorkerSession) -> EngineCall | None:
        """Remove and return the call for which a session waits, if there is one."""
        return self._waiting.pop(session.id, None)

    def take_late(self, now: float) -> EngineCall | None:
        """Return a call that has no answer at its deadline, or None if there is none left. It still waits."""
        due = self.next_due()
        return self._waiting[self.due[0][1]] if due is not None and due <= now else None

    def next_due(self) -> float | None:
        """Return the deadline of the next call, or None if there is none."""
        while self.due:
            until, session_id = self.due[0]
            waiting = self._waiting.get(session_id)
            if waiting is not None and waiting.until == until:
                return until
            heapq.heappop(self.due)
        return None
