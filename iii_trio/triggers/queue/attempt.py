"""One attempt at a job: its condition is asked, if it has one; then its function is called.

No task waits for the answers: there may be many, and each says by itself what is next.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, final

import attrs
from msgspec import Raw

from ...errors import CallError
from ...lowlevel import CallHandle, call_nowait, can_call
from ...wire import GIVEN_UP, LEFT, ErrorCode, InvokeFunction, from_json, to_json
from ...worker import Worker
from .lane import Job


class AttemptOutcome(Enum):
    """How an attempt result."""

    SUCCEEDED = auto()
    FAILED = auto()
    LOST = auto()  # its worker is gone
    MISSING = auto()  # nobody has its function
    POSTPONED = auto()  # its worker takes nothing just now
    RETURNED = auto()  # our own link is gone
    DRAINING = auto()  # the engine takes no calls any more


@attrs.frozen
class AttemptResult:
    """How an attempt result, and of a failure what was said."""

    outcome: AttemptOutcome
    code: str = ""
    message: str = ""


@final
class Attempt:
    """Begun once; then `over` is called once, with how it result, unless it is stopped before. `arrivals` is its maker's."""

    def __init__(
        self, worker: Worker, job: Job, over: Callable[[Attempt, AttemptResult], object], arrivals: int
    ) -> None:
        self.job = job
        self.arrivals = arrivals
        self.stopped = False
        self._worker = worker
        self._over = over
        self._asked: CallHandle | None = None

    def begin(self, data: bytes) -> None:
        """Make the first call. What its result is decided by comes later, or at once if it cannot be made."""
        condition = self.job.lane.condition
        if condition is None:
            self._call(data)
        else:
            self._ask(condition, data, lambda: self._told(condition, data))

    def stop(self, reason: str) -> None:
        """Nobody wants to know any more: the handler is cancelled, if its worker understands."""
        self.stopped = True
        if self._asked is not None:
            self._asked.give_up(reason)

    def _told(self, condition: str, data: bytes) -> None:
        """The condition has said whether the job is wanted."""
        try:
            wanted = self._answer() is not False
        except CallError as error:
            result = _failure(error)
            if result.outcome is AttemptOutcome.MISSING:  # a missing condition is no missing function
                result = AttemptResult(
                    AttemptOutcome.FAILED, error.code, f"the condition {condition} failed: {error.message}"
                )
            self._over(self, result)
            return
        if wanted:
            self._call(data)
        else:
            self._over(self, AttemptResult(AttemptOutcome.SUCCEEDED))

    def _call(self, data: bytes) -> None:
        self._ask(self.job.record.function_id, data, self._done)

    def _done(self) -> None:
        try:
            self._answer()
        except CallError as error:
            self._over(self, _failure(error))
        else:
            self._over(self, AttemptResult(AttemptOutcome.SUCCEEDED))

    def _answer(self) -> Any:
        assert self._asked is not None
        return self._asked.value()

    def _ask(self, function_id: str, data: bytes, then: Callable[[], object]) -> None:
        record = self.job.record
        if not can_call(self._worker):
            self._over(self, AttemptResult(AttemptOutcome.RETURNED))
            return
        message = InvokeFunction(
            function_id,
            data=Raw(data),
            traceparent=record.traceparent,
            baggage=record.baggage,
            metadata=metadata_of(self.job),
            namespace=record.namespace,
        )
        try:
            self._asked = call_nowait(self._worker, message, then)
        except CallError as error:
            self._over(self, _failure(error))


def metadata_of(job: Job) -> Raw:
    """What travels beside the payload: what its caller gave, if that is an object, and who the job is (Q10)."""
    record = job.record
    given = from_json(record.metadata) if record.metadata else None
    beside = given if isinstance(given, dict) else {}
    about: dict[str, Any] = {
        "id": record.id,
        "attempt": record.attempts + 1,
        "max_attempts": job.lane.settings.max_attempts,
        "queue": job.lane.key.name,
    }
    return Raw(to_json({**beside, "job": about}))


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
