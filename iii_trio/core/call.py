"""The states of one call between two workers."""

from __future__ import annotations

from collections.abc import Callable
from enum import auto
from functools import partial
from typing import Final

import msgspec
from msgspec import Raw

from ..observed import CallFacts
from ..state_machine import StateMachine, Table, TableEnum
from ..wire import WireError
from .session import WorkerSession


class CallState(TableEnum):
    """The states of a call."""

    WAITING = auto()
    ANSWERED = auto()
    UNDELIVERED = auto()  # the callee's outbox was full
    STOPPED = auto()  # the callee left, or has too many newer calls that it does not answer
    ABANDONED = auto()  # the caller left, or cancelled


class CallEvent(TableEnum):
    """The events in the life of a call."""

    ANSWER_CAME = auto()
    CALLEE_IS_FULL = auto()
    CALLEE_LEFT = auto()
    CALLER_LEFT = auto()
    CALLER_CANCELLED = auto()
    GIVEN_UP = auto()


CALL: Final[Table[CallState, CallEvent]] = {
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


class Call(msgspec.Struct, eq=False):
    """One call that was given to a callee."""

    id: str
    caller: WorkerSession | None
    """None for a void call: its result is dropped."""
    callee: WorkerSession
    function_id: str
    """The function id as the caller wrote it."""
    traceparent: str | None = None
    baggage: str | None = None
    receipt: str | None = None
    """The receipt of an enqueued call. Its caller gets this in place of a result.

    Empty: the caller gets the queue's answer, because a job with a unique key may have the receipt of an earlier one.
    """
    on_answer: Callable[[Raw, WireError | None], None] | None = None
    """Takes the answer to a call that the engine itself makes: its result, or its error."""
    facts: CallFacts | None = None
    """Its facts, where it belongs to a trace that is recorded."""
    state: StateMachine[CallState, CallEvent] = msgspec.field(
        default_factory=partial(StateMachine, CALL, CallState.WAITING)
    )
