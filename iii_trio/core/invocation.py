"""The life of one call, and the ledger of those that wait for an answer.

A call is entered before its callee can answer. It is looked up by (callee, id), so that nobody else can answer it, and
late, foreign and repeated answers find nothing.
"""

from __future__ import annotations

from enum import auto
from typing import Final

import attrs

from ..state_machine import StateMachine, Table, TableEnum
from .session import Session


class CallState(TableEnum):
    """Where a call is in its life."""

    WAITING = auto()
    ANSWERED = auto()
    UNDELIVERED = auto()  # the callee's outbox was full
    STOPPED = auto()  # the callee left, or has too many newer calls that it does not answer
    ABANDONED = auto()  # the caller left, or cancelled


class CallEvent(TableEnum):
    """What happened to a call."""

    ANSWER_CAME = auto()
    CALLEE_IS_FULL = auto()
    CALLEE_LEFT = auto()
    CALLER_LEFT = auto()
    CALLER_CANCELLED = auto()
    GIVEN_UP = auto()


INVOCATION: Final[Table[CallState, CallEvent]] = {
    CallState.WAITING: {
        CallEvent.ANSWER_CAME: CallState.ANSWERED,
        CallEvent.CALLEE_IS_FULL: CallState.UNDELIVERED,
        CallEvent.CALLEE_LEFT: CallState.STOPPED,
        CallEvent.CALLER_LEFT: CallState.ABANDONED,
        CallEvent.CALLER_CANCELLED: CallState.ABANDONED,
        CallEvent.GIVEN_UP: CallState.STOPPED,
    },
    CallState.ANSWERED: {},
    CallState.UNDELIVERED: {},
    CallState.STOPPED: {},
    CallState.ABANDONED: {},
}


@attrs.define(eq=False)
class Call:
    """One call that a callee has been given."""

    id: str
    caller: Session | None
    """None: nobody waits for the answer (void)."""
    callee: Session
    function_id: str
    """As the caller wrote it."""
    traceparent: str | None = None
    baggage: str | None = None
    receipt: str | None = None
    """Of an enqueued call: what its caller gets in place of a result."""
    state: StateMachine[CallState, CallEvent] = attrs.field(factory=lambda: StateMachine(INVOCATION, CallState.WAITING))

    def enter(self) -> None:
        """Let the answer find it."""
        self.callee.answering[self.id] = self
        if self.caller is not None:
            self.caller.made[self.id] = self

    def leave(self, cue: CallEvent) -> None:
        """It is over: forget it."""
        self.state.advance(cue)
        self.callee.answering.pop(self.id, None)
        if self.caller is not None and self.caller.made.get(self.id) is self:
            del self.caller.made[self.id]
