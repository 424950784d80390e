"""Run a handler for a call; its value, or its error, becomes the answer."""

from __future__ import annotations

import logging
from typing import Any

import trio
from msgspec import Raw

from ..errors import CallError, ChannelBroken
from ..text import sendable, traceback_text
from ..wire import (
    MAX_MESSAGE_BYTES,
    ErrorCode,
    InvocationResult,
    InvokeFunction,
    WireError,
    encode,
    from_json,
    to_json,
)
from .calls import Session
from .context import CURRENT, CallInfo
from .declare import Declared
from .failures import describe, sort_failure
from .payload import End, Ends, encode_payload, with_live_ends
from .serving import Serving


async def answer(serving: Serving, session: Session, message: InvokeFunction, scope: trio.CancelScope) -> None:
    """Answer one call, within `scope`, by which `session.running` may know it. Runs in the worker's nursery.

    If cancelled: the ends that the call used are aborted; nothing is answered.
    """
    declared = serving.offers.functions.get(message.function_id)
    invocation_id = message.invocation_id or ""
    if declared is None:
        session.running.pop(invocation_id, None)
        problem = f"Function '{message.function_id}' not found"
        _reply(session, message, error=CallError(ErrorCode.FUNCTION_NOT_FOUND, problem))
        return
    ends = Ends()
    why = "cancelled"
    with scope:
        try:
            await trio.lowlevel.checkpoint_if_cancelled()  # it may be unwanted before it has begun
            await _run(serving, session, message, declared, ends)
        except trio.Cancelled as cancelled:
            why = cancelled.reason or why
            raise
        finally:
            session.running.pop(invocation_id, None)
            # Nothing is left of them unless we were cancelled.
            ends.break_off(why, ErrorCode.INVOCATION_CANCELLED)
    if scope.cancelled_caught:
        _reply(session, message, error=CallError(ErrorCode.INVOCATION_CANCELLED, "the call was cancelled"))


async def _run(serving: Serving, session: Session, message: InvokeFunction, declared: Declared, ends: Ends) -> None:
    plan = declared.plan
    assert plan is not None
    try:
        payload = from_json(bytes(message.data)) if message.data and plan.takes_raw is None else None
        metadata = from_json(bytes(message.metadata)) if message.metadata else None
    except ValueError as error:
        problem = f"Failed to deserialize input for {message.function_id}: {error}"
        _reply(session, message, error=CallError(ErrorCode.DESERIALIZATION_ERROR, problem))
        return
    caller = payload.pop("_caller_worker_id", None) if isinstance(payload, dict) else None

    def make(ref: Any) -> End:
        end = serving.make_end(ref, message.invocation_id)
        ends.add(end)
        return end

    CURRENT.set(
        CallInfo(
            invocation_id=message.invocation_id or "",
            function_id=message.function_id,
            caller=caller if isinstance(caller, str) else None,
            metadata=metadata,
            traceparent=message.traceparent,
            baggage=message.baggage,
        )
    )
    try:
        if plan.takes_raw is not None:
            arguments: dict[str, Any] = {plan.takes_raw: Raw(message.data or b"null")}
            if plan.takes_metadata:
                arguments["metadata"] = metadata
        else:
            arguments = plan.arguments(with_live_ends(payload, make), metadata)
        if plan.is_async:
            value = await plan.handler(**arguments)
        else:
            value = await serving.run_sync(plan.handler, arguments)
        result = encode_payload(value, "the result")
    except BaseException as error:  # one handler's bug must not end the worker
        failure, passing = sort_failure(error)
        if failure is not None:
            _failed(serving, session, message, ends, failure)
        if passing is error:
            raise
        if passing is not None:  # cancelled, and something failed on the way out
            raise passing from None
        return
    # The closes are on their way before the result is; waiting for them could wait for the caller.
    ends.let_go(serving.finish_later)
    ends.clear()
    _reply(session, message, result=result)
    await trio.lowlevel.checkpoint()


def _failed(serving: Serving, session: Session, message: InvokeFunction, ends: Ends, error: BaseException) -> None:
    if not isinstance(error, CallError | ChannelBroken):  # an answer, or the other end's doing; all else is a bug
        about = {"function": message.function_id, "invocation": message.invocation_id or ""}
        text = f"the handler of {message.function_id} failed: {describe(error, named=True)[0]}"
        serving.log.log(trio.current_time(), logging.ERROR, text, about, error=error)
    ends.break_off(*describe(error))
    ends.clear()
    _reply(session, message, error=error)


def answer_result(session: Session, message: InvokeFunction, result: bytes) -> None:
    """Answer a call that no task answers, with JSON."""
    _reply(session, message, result=result)


def answer_error(session: Session, message: InvokeFunction, error: BaseException) -> None:
    """Answer a call that no task answers, or no handler gets."""
    _reply(session, message, error=error)


def _reply(
    session: Session, message: InvokeFunction, *, result: bytes | None = None, error: BaseException | None = None
) -> None:
    if message.invocation_id is None:
        return
    text = _answer_text(message, result, error)
    if len(text) > MAX_MESSAGE_BYTES:
        problem = (
            f"Serialized JSON envelope is {len(text)} bytes; limit is {MAX_MESSAGE_BYTES} bytes. "
            "Use channels for larger payloads: put a channel's ref into the result's place and stream it."
        )
        text = _answer_text(message, None, CallError(ErrorCode.PAYLOAD_TOO_LARGE, problem))
    session.link.send(text)


def _answer_text(message: InvokeFunction, result: bytes | None, error: BaseException | None) -> bytes:
    invocation_id = message.invocation_id or ""
    if error is None:
        return encode(InvocationResult(invocation_id, message.function_id, Raw(result or b"null")))
    reason, code = describe(error, named=True)
    stack = error.stacktrace if isinstance(error, CallError) else traceback_text(error)
    body = to_json(WireError(code or ErrorCode.INVOCATION_FAILED, reason, None if stack is None else sendable(stack)))
    return encode(InvocationResult(invocation_id, message.function_id, error=Raw(body)))
