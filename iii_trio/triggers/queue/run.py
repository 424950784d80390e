"""Run one job: call its function, and tell the ledger how it went."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import attrs
import trio
from msgspec import Raw

from ...errors import CallError, ConnectionFailed
from ...wire import ErrorCode, from_json, to_json
from ...worker import Worker
from .job import Job


class How(Enum):
    """How one call of a job went."""

    SUCCEEDED = auto()
    FAILED = auto()
    LOST = auto()  # its worker is gone
    MISSING = auto()  # nobody has its function
    PUT_OFF = auto()  # its worker takes nothing just now
    RETURNED = auto()  # our own link is gone
    DRAINING = auto()  # the engine takes no calls any more


@attrs.frozen
class Went:
    """How one call of a job went, and of a failure what was said."""

    how: How
    code: str = ""
    message: str = ""


async def run(worker: Worker, job: Job, data: bytes) -> Went:
    """Call the job's function, after its condition if it has one.

    If cancelled: the handler is, too, if its worker understands; nothing is known of the job.
    """
    timeout = job.lane.settings.visibility_timeout_seconds
    try:
        if timeout is None:
            await _do(worker, job, data)
        else:
            with trio.move_on_after(timeout) as scope:
                await _do(worker, job, data)
            if scope.cancelled_caught:
                return Went(How.FAILED, "visibility_timeout", f"the attempt took longer than {timeout:g} s")
    except _ConditionFailed as failed:
        return Went(How.FAILED, failed.code, str(failed))
    except CallError as error:
        return _went_wrong(error)
    except ConnectionFailed:
        return Went(How.RETURNED)
    return Went(How.SUCCEEDED)


async def _do(worker: Worker, job: Job, data: bytes) -> None:
    condition = job.lane.condition
    if condition is None or await _wanted(worker, job, condition, data):
        await _call(worker, job, job.record.function_id, data)


class _ConditionFailed(Exception):
    def __init__(self, error: CallError) -> None:
        super().__init__(f"the condition {error.function_id} failed: {error.message}")
        self.code = error.code


async def _wanted(worker: Worker, job: Job, condition: str, data: bytes) -> bool:
    try:
        return await _call(worker, job, condition, data) is not False
    except CallError as error:
        if error.origin == "engine" and error.code == ErrorCode.FUNCTION_NOT_FOUND:
            raise _ConditionFailed(error) from None  # a missing condition is no missing function
        raise


async def _call(worker: Worker, job: Job, function_id: str, data: bytes) -> Any:
    record = job.record
    return await worker.trigger(
        function_id,
        Raw(data),
        namespace=record.namespace,
        metadata=metadata_of(job),
        traceparent=record.traceparent,
        baggage=record.baggage,
    )


def metadata_of(job: Job) -> Raw:
    """What travels beside the payload: what its caller gave, if that is an object, and who the job is (Q10)."""
    given = from_json(job.record.metadata) if job.record.metadata else None
    beside = given if isinstance(given, dict) else {}
    about: dict[str, Any] = {
        "id": job.record.id,
        "attempt": job.record.attempts + 1,
        "max_attempts": job.lane.settings.max_attempts,
        "queue": job.lane.key.name,
    }
    return Raw(to_json({**beside, "job": about}))


def _went_wrong(error: CallError) -> Went:
    if error.origin == "link":
        return Went(How.RETURNED)
    if error.origin == "engine":
        match error.code:
            case ErrorCode.INVOCATION_STOPPED:
                return Went(How.LOST, message=f"its worker was lost: {error.message}")
            case ErrorCode.FUNCTION_NOT_FOUND:
                return Went(How.MISSING, error.code, error.message)
            case ErrorCode.ENGINE_DRAINING:
                return Went(How.DRAINING)
            case ErrorCode.CHANNEL_SEND_FAILED:
                return Went(How.PUT_OFF)
    return Went(How.FAILED, error.code, error.message)
