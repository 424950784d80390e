"""One attempt at a job: a call of its condition, if it has one, and then of its function.

No task waits for the answers, because there may be many. Each answer causes the next step.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from ...errors import CallError
from ...lowlevel import CallHandle, call_nowait, can_call
from ...tracing import Span, Tracing
from ...wire import DEFAULT_NAMESPACE, GIVEN_UP, LEFT, ErrorCode, InvokeFunction, from_json, to_json
from ...worker import Worker
from .attempt_span import begin_attempt_span, end_attempt_span
from .lane import Job
from .store import Payload


class AttemptOutcome(Enum):
    """The kinds of results of an attempt."""

    SUCCEEDED = auto()
    FAILED = auto()
    LOST = auto()  # its worker was lost
    MISSING = auto()  # no worker has its function
    POSTPONED = auto()  # its worker takes nothing just now
    RETURNED = auto()  # its worker left, or our own link was lost
    DRAINING = auto()  # the engine takes no calls any more
    DAMAGED = auto()  # the job cannot be called, now or later


class AttemptResult(msgspec.Struct, frozen=True):
    """The result of an attempt, with the code and the message of a failure."""

    outcome: AttemptOutcome
    code: str = ""
    message: str = ""
    value: Any = None
    """The value of a call that succeeded."""


_SUCCEEDED: Final = AttemptResult(AttemptOutcome.SUCCEEDED)


@final
class Attempt:
    """An attempt. After `begin`, `over` is called once with the result, unless the attempt is stopped before.

    `arrivals` is a number for its maker's use. `began` is the time now.
    """

    def __init__(
        self,
        worker: Worker,
        job: Job,
        over: Callable[[Attempt, AttemptResult], object],
        arrivals: int,
        tracing: Tracing,
        began: float,
    ) -> None:
        self.job = job
        self.arrivals = arrivals
        self.stopped = False
        self.began = began
        self.overran = False
        """Whether it was noticed that it runs much longer than usual."""
        self._worker = worker
        self._over = over
        self._asked: CallHandle | None = None
        self._metadata = Raw(b"null")
        self._tracing = tracing
        self._span: Span | None = None

    def begin(self, payload: Payload) -> None:
        """Make the first call, only while `can_call`.

        The result comes later, or at once if the job is damaged or the link ends.
        """
        if self._tracing.sink is not None:
            self._span = begin_attempt_span(self._tracing, self.job)
        try:
            self._metadata = metadata_of(self.job, payload.metadata)
        except ValueError as error:  # it was kept by an engine that did not look, or the store is damaged
            problem = f"its metadata cannot be read: {error}"
            self._end(AttemptResult(AttemptOutcome.DAMAGED, "job_damaged", problem))
            return
        condition = self.job.lane.condition
        if condition is None:
            self._ask(self.job.record.function_id, payload.data, self._done)
        else:
            self._ask(condition, payload.data, lambda: self._decide(condition, payload.data))

    def stop(self, reason: str) -> None:
        """Drop the attempt. Its handler is cancelled, if its worker supports that."""
        self.stopped = True
        if self._span is not None:
            end_attempt_span(self._tracing, self._span, "stopped")
        if self._asked is not None:
            self._asked.give_up(reason)

    def _end(self, result: AttemptResult) -> None:
        if self._span is not None:
            span, self._span = self._span, None
            end_attempt_span(self._tracing, span, result.outcome.name.lower(), result.code)
        self._over(self, result)

    def _decide(self, condition: str, data: bytes) -> None:
        """Call the function, unless the condition says that the job is not wanted."""
        try:
            wanted = self._answer() is not False
        except CallError as error:
            result = _failure(error)
            if result.outcome is AttemptOutcome.MISSING:  # a missing condition is not a missing function
                message = f"the condition {condition} failed: {error.message}"
                result = AttemptResult(AttemptOutcome.FAILED, error.code, message)
            self._end(result)
            return
        if not wanted:
            self._end(_SUCCEEDED)
        elif can_call(self._worker):
            self._ask(self.job.record.function_id, data, self._done)
        else:
            self._end(AttemptResult(AttemptOutcome.RETURNED))

    def _done(self) -> None:
        try:
            value = self._answer()
        except CallError as error:
            self._end(_failure(error))
        else:
            self._end(_SUCCEEDED if value is None else AttemptResult(AttemptOutcome.SUCCEEDED, value=value))

    def _answer(self) -> Any:
        assert self._asked is not None
        return self._asked.value()

    def _ask(self, function_id: str, data: bytes, then: Callable[[], object]) -> None:
        record = self.job.record
        message = InvokeFunction(
            function_id,
            data=Raw(data),
            traceparent=record.traceparent if self._span is None else self._span.traceparent,
            baggage=record.baggage,
            metadata=self._metadata,
            namespace=None if record.namespace == DEFAULT_NAMESPACE else record.namespace,
        )
        self._asked = None

        def settled() -> None:
            # A link that ends while the call is sent settles it before there is a handle.
            if self._asked is not None:
                then()

        try:
            self._asked = call_nowait(self._worker, message, settled)
        except CallError as error:
            self._end(_failure(error))
            return
        if self._asked.settled:
            then()


def metadata_of(job: Job, metadata: bytes | None) -> Raw:
    """Return the metadata of the call: the sender's, if that is an object, and `job` (Q10).

    A member `job` of the sender's is replaced, so that a handler can rely on it. Raises ValueError for metadata that
    cannot be decoded.
    """
    about: dict[str, Any] = {
        "id": job.record.id,
        "attempt": job.record.progress.attempts + 1,
        "max_attempts": job.lane.settings.max_attempts,
        "queue": job.lane.key.name,
    }
    given = from_json(metadata) if metadata else None
    return Raw(to_json({**given, "job": about} if isinstance(given, dict) else {"job": about}))


def _failure(error: CallError) -> AttemptResult:
    if error.origin == "link":
        return AttemptResult(AttemptOutcome.RETURNED)
    if error.origin == "engine":
        match error.code:
            case ErrorCode.INVOCATION_STOPPED:
                cause = error.message.removeprefix("Invocation stopped: ")
                if cause.startswith(LEFT):
                    return AttemptResult(AttemptOutcome.RETURNED)
                if cause.startswith(GIVEN_UP):
                    return AttemptResult(AttemptOutcome.POSTPONED)
                return AttemptResult(AttemptOutcome.LOST, message=f"its worker was lost: {error.message}")
            case ErrorCode.FUNCTION_NOT_FOUND:
                return AttemptResult(AttemptOutcome.MISSING, error.code, error.message)
            case ErrorCode.ENGINE_DRAINING:
                return AttemptResult(AttemptOutcome.DRAINING)
            case ErrorCode.CHANNEL_SEND_FAILED:
                return AttemptResult(AttemptOutcome.POSTPONED)
    return AttemptResult(AttemptOutcome.FAILED, error.code, error.message)
