"""Answers to calls, as messages."""

from __future__ import annotations

from msgspec import Raw

from ..errors import CallError
from ..text import sendable, traceback_text
from ..wire import MAX_MESSAGE_BYTES, ErrorCode, InvocationResult, InvokeFunction, WireError, encode, to_json
from .calls import WorkerSession
from .failures import describe


def reply_result(session: WorkerSession, call: InvokeFunction, result: bytes, waited_us: int | None = None) -> None:
    """Answer a call with JSON. `waited_us` says how long it waited for its handler."""
    if call.invocation_id is None:
        return  # the caller wants no answer
    message = InvocationResult(call.invocation_id, call.function_id, Raw(result or b"null"), waited_us=waited_us)
    text = encode(message)
    if len(text) > MAX_MESSAGE_BYTES:
        text = _too_large(call.invocation_id, call.function_id, len(text), waited_us)
    session.answer(text)


def reply_error(
    session: WorkerSession, call: InvokeFunction, error: BaseException, waited_us: int | None = None
) -> None:
    """Answer a call with an error. `waited_us` says how long it waited for its handler."""
    if call.invocation_id is None:
        return  # the caller wants no answer
    text = _error(call.invocation_id, call.function_id, error, waited_us)
    if len(text) > MAX_MESSAGE_BYTES:
        text = _too_large(call.invocation_id, call.function_id, len(text), waited_us)
    session.answer(text)


def _too_large(invocation_id: str, function_id: str, size: int, waited_us: int | None) -> bytes:
    problem = (
        f"Serialized JSON envelope is {size} bytes; limit is {MAX_MESSAGE_BYTES} bytes. "
        "Use channels for larger payloads: put a channel's ref into the result's place and stream it."
    )
    return _error(invocation_id, function_id, CallError(ErrorCode.PAYLOAD_TOO_LARGE, problem), waited_us)


def _error(invocation_id: str, function_id: str, error: BaseException, waited_us: int | None) -> bytes:
    reason, code = describe(error, named=True)
    stack = error.stacktrace if isinstance(error, CallError) else traceback_text(error)
    body = to_json(WireError(code or ErrorCode.INVOCATION_FAILED, reason, None if stack is None else sendable(stack)))
    # What an engine elsewhere said stays an engine's error. Only relays are believed (`core/calls.py`).
    by_engine = isinstance(error, CallError) and error.origin != "handler"
    return encode(
        InvocationResult(invocation_id, function_id, error=Raw(body), by_engine=by_engine, waited_us=waited_us)
    )
