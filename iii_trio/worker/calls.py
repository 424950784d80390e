"""Calls that wait for an answer, and the session they were made in."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import trio

from ..errors import CallError
from ..transport.link import Link
from ..wire import ErrorCode, InvocationResult, WireError, from_json

_NO_ERROR = (b"", b"null", b"false")
_error_body = msgspec.json.Decoder(WireError)


@attrs.define(eq=False)
class PendingCall:
    """One call that waits for its answer."""

    function_id: str
    invocation_id: str
    settled: trio.Event = attrs.field(factory=trio.Event)
    answer: InvocationResult | None = None
    lost: str | None = None
    unread: str | None = None
    """What was wrong with the answer, if it could not be read."""

    def value(self) -> Any:
        """The call's value. Raises CallError."""
        answer = self.answer
        if self.unread is not None:
            raise self._failed(ErrorCode.DESERIALIZATION_ERROR, f"the answer cannot be read: {self.unread}")
        if answer is None:
            text = f"the link to the engine was lost before the answer: {self.lost}"
            raise self._failed(ErrorCode.INVOCATION_STOPPED, text)
        if bytes(answer.error) not in _NO_ERROR:
            try:
                error = _error_body.decode(bytes(answer.error))
            except msgspec.DecodeError:
                raise self._failed("UNKNOWN", bytes(answer.error).decode(errors="replace")) from None
            raise self._failed(error.code, error.message, error.stacktrace)
        try:
            return from_json(bytes(answer.result)) if answer.result else None
        except ValueError as problem:
            raise self._failed(ErrorCode.DESERIALIZATION_ERROR, f"the answer cannot be read: {problem}") from None

    def _failed(self, code: str, message: str, stacktrace: str | None = None) -> CallError:
        return CallError(
            code, message, stacktrace=stacktrace, function_id=self.function_id, invocation_id=self.invocation_id
        )


@attrs.define(eq=False)
class Session:
    """One link, and what is under way on it."""

    link: Link
    worker_id: str
    reattach_token: str | None
    channel_secret: str | None
    knows_us: bool
    """Whether the engine announced iii-trio.v1 (clause C8.1)."""
    pending: dict[str, PendingCall] = attrs.field(factory=dict)
    running: dict[str, trio.CancelScope] = attrs.field(factory=dict)
    outcomes: dict[str, trio.Event] = attrs.field(factory=dict)

    def lose(self, reason: str) -> None:
        """The link is over: whoever waits on it is told, whoever works for it stops."""
        pending, self.pending = self.pending, {}
        for call in pending.values():
            call.lost = reason
            call.settled.set()
        for scope in list(self.running.values()):
            cancel(scope, f"the link to the engine was lost: {reason}")
        for event in self.outcomes.values():
            event.set()


def cancel(scope: trio.CancelScope, reason: str) -> None:
    """Cancel a scope and say why (clause C7.2)."""
    scope.cancel(reason=reason)
