"""A call of an engine function, which carries the means to answer it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Raw

from ..errors import CallError
from ..observed import CallFacts
from ..structure import BadShape, structure
from ..wire import FEATURE, InvokeFunction, JsonValue, WireError, bad_input, to_json
from .effects import Effect, Log, Send
from .observing import end_call
from .replies import error_text, result_text
from .session import WorkerSession

T = TypeVar("T")


class Request(msgspec.Struct, eq=False):
    """A call that the engine itself answers, with `reply` or `fail`, now or later.

    The first answer counts. Later ones, and answers to a session that is gone, are dropped.
    """

    session: WorkerSession
    message: InvokeFunction
    invocation_id: str | None
    """None for a void call: its result is dropped and its error is logged."""
    emit: Callable[[Effect], None]
    now: float
    payload: JsonValue = None
    answered: bool = False
    facts: CallFacts | None = None
    """Its facts, where it belongs to a trace that is recorded."""

    def reply(self, value: object) -> None:
        """Answer with a result. Raises TypeError or ValueError, and does not answer, if JSON cannot hold the value."""
        if self.answered or self.session.state.is_final:
            return
        result = Raw(to_json(value))
        self.answered = True
        self._observe("answered", "")
        # The caller of a void call does not wait.
        if self.invocation_id is None:
            return
        message = self.message
        text = result_text(
            self.session, self.invocation_id, message.function_id, result, message.traceparent, message.baggage
        )
        # A result that the caller's SDK cannot read becomes an error, which it can.
        if isinstance(text, WireError):
            self._send_error(self.invocation_id, text)
        else:
            self.emit(Send(self.session.id, text))

    def fail(self, error: CallError) -> None:
        """Answer with an error. The error of a void call becomes a log line."""
        if self.answered or self.session.state.is_final:
            return
        self.answered = True
        self._observe("failed", error.code)
        if self.invocation_id is not None:
            self._send_error(self.invocation_id, WireError(error.code, error.message, error.stacktrace))
            return
        fields = {"session": self.session.id, "function": self.message.function_id}
        text = f"a void call by {self.session.label} went nowhere: {error.message}"
        self.emit(Log(logging.WARNING, text, fields, peer_controlled=True))

    def read(self, into: type[T]) -> T:
        """Structure the payload. Raises CallError, naming the first field at fault."""
        try:
            return structure(self.payload, into)
        except BadShape as problem:
            raise bad_input(self.message.function_id, str(problem)) from None

    def _observe(self, outcome: str, code: str) -> None:
        if self.facts is not None:
            end_call(self.facts, outcome, code, self.emit)

    def _send_error(self, invocation_id: str, error: WireError) -> None:
        message, session = self.message, self.session
        text = error_text(
            session,
            invocation_id,
            message.function_id,
            to_json(error),
            message.traceparent,
            message.baggage,
            by_engine=FEATURE in session.features,
        )
        self.emit(Send(session.id, text))
