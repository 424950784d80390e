"""The life of one call, and the ledger of those that wait for an answer.

A call is entered before its callee can answer. It is looked up by (callee, id), so that nobody else can answer it, and
late, foreign and repeated answers find nothing.
"""

from __future__ import annotations

from enum import auto
from typing import Final

import attrs

from ..lifecycle import Lifecycle, Step, Table
from .session import Session


class Phase(Step):
    """Where a call is in its life."""

    WAITING = auto()
    ANSWERED = auto()
    UNDELIVERED = auto()  # the callee's outbox was full
    STOPPED = auto()  # the callee left, or has too many newer calls that it does not answer
    ABANDONED = auto()  # the caller left, or cancelled


class Cue(Step):
    """What happened to a call."""

    ANSWER_CAME = auto()
    CALLEE_IS_FULL = auto()
    CALLEE_LEFT = auto()
    CALLER_LEFT = auto()
    CALLER_CANCELLED = auto()
    GIVEN_UP = auto()


INVOCATION: Final[Table[Phase, Cue]] = {
    Phase.WAITING: {
        Cue.ANSWER_CAME: Phase.ANSWERED,
        Cue.CALLEE_IS_FULL: Phase.UNDELIVERED,
        Cue.CALLEE_LEFT: Phase.STOPPED,
        Cue.CALLER_LEFT: Phase.ABANDONED,
        Cue.CALLER_CANCELLED: Phase.ABANDONED,
        Cue.GIVEN_UP: Phase.STOPPED,
    },
    Phase.ANSWERED: {},
    Phase.UNDELIVERED: {},
    Phase.STOPPED: {},
    Phase.ABANDONED: {},
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
    life: Lifecycle[Phase, Cue] = attrs.field(factory=lambda: Lifecycle(INVOCATION, Phase.WAITING))

    def enter(self) -> None:
        """Let the answer find it."""
        self.callee.answering[self.id] = self
        if self.caller is not None:
            self.caller.made[self.id] = self

    def leave(self, cue: Cue) -> None:
        """It is over: forget it."""
        self.life.take(cue)
        self.callee.answering.pop(self.id, None)
        if self.caller is not None and self.caller.made.get(self.id) is self:
            del self.caller.made[self.id]
