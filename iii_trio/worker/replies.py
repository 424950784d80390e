"""Answers to calls, as messages."""

from __future__ import annotations

from msgspec import Raw

from ..errors import CallError
from ..text import sendable, traceback_text
from ..wire import MAX_MESSAGE_BYTES, ErrorCode, InvocationResult, InvokeFunction, WireError, encode, to_json
from .calls import WorkerSession
from .failures import describe


def reply_result(session: WorkerSession, call: InvokeFunction, result: bytes) -> None:
    """Answer a call with JSON."""
    _reply(session, call, result, None)


def reply_error(session: WorkerSession, call: InvokeFunction, error: BaseException) -> None:
    """Answer a call with an error."""
    _reply(session, call, None, error)


def _reply(session: WorkerSession, call: InvokeFunction, result: bytes | None, error: BaseException | None) -> None:
    if call.invocation_id is None:
        return  # the caller wants no answer
    text = _answer(call.invocation_id, call.function_id, result, error)
    if len(text) > MAX_MESSAGE_BYTES:
        problem = (
            f"Serialized JSON envelope is {len(text)} bytes; limit is {MAX_MESSAGE_BYTES} bytes. "
            "Use channels for larger payloads: put a channel's ref into the result's place and stream it."
        )
        too_large = CallError(ErrorCode.PAYLOAD_TOO_LARGE, problem)
        text = _answer(call.invocation_id, call.function_id, None, too_large)
    session.link.send(text)


def _answer(invocation_id: str, function_id: str, result: bytes | None, error: BaseException | None) -> bytes:
    if error is None:
        return encode(InvocationResult(invocation_id, function_id, Raw(result or b"null")))
    reason, code = describe(error, named=True)
    stack = error.stacktrace if isinstance(error, CallError) else traceback_text(error)
    body = to_json(WireError(code or ErrorCode.INVOCATION_FAILED, reason, None if stack is None else sendable(stack)))
    return encode(InvocationResult(invocation_id, function_id, error=Raw(body)))
