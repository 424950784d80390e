"""The ledger of calls that wait for an answer.

A call is entered before its callee can answer. Answers are looked up by callee and id, so that only the callee can answer,
and late, foreign and repeated answers find nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, final

from .call import Call, CallEvent
from .session import WorkerSession

_NO_CALLS: Final[Mapping[str, Call]] = MappingProxyType({})


@final
class PendingCalls:
    """All calls that wait for an answer, by caller and by callee. Both orders are oldest first."""

    def __init__(self) -> None:
        self.made: dict[WorkerSession, dict[str, Call]] = {}
        self.given: dict[WorkerSession, dict[str, Call]] = {}
        """The tables of `made_by` and `given_to`, to be read directly where speed counts. Every live session has both."""

    def __len__(self) -> int:
        return sum(map(len, self.given.values()))

    def __bool__(self) -> bool:
        return any(self.given.values())

    def made_by(self, session: WorkerSession) -> Mapping[str, Call]:
        """Return the calls that this session made and that wait for an answer, by id."""
        return self.made.get(session, _NO_CALLS)

    def given_to(self, session: WorkerSession) -> Mapping[str, Call]:
        """Return the calls that this session was given and has not answered, by id."""
        return self.given.get(session, _NO_CALLS)

    def add_session(self, session: WorkerSession) -> None:
        """Keep calls for a new session."""
        self.made[session] = {}
        self.given[session] = {}

    def remove_session(self, session: WorkerSession) -> None:
        """Forget a session after all of its calls have left."""
        del self.made[session], self.given[session]

    def enter(self, call: Call) -> None:
        """Add a call, so that its answer finds it."""
        caller = call.caller
        self.given[call.callee][call.id] = call
        # A void call has no caller, but it counts against its callee until it is answered.
        if caller is not None:
            self.made[caller][call.id] = call

    def leave(self, call: Call, event: CallEvent) -> None:
        """Advance a call into its final state and remove it from both sessions."""
        call.state.advance(event)
        del self.given[call.callee][call.id]
        if call.caller is not None:
            del self.made[call.caller][call.id]
