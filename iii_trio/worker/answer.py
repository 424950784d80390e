"""Run a handler for a call, and answer the call with its value or its error."""

from __future__ import annotations

import logging
from typing import Any

import trio
from msgspec import Raw

from ..errors import CallError, ChannelBroken
from ..nursery import sort_failure
from ..wire import ErrorCode, InvokeFunction, Ref, bad_input, from_json
from .call_context import CallContext
from .context import CURRENT, CallInfo
from .ends import ChannelWriter
from .failures import describe
from .handler_signature import HandlerSignature
from .payload import End, Ends, encode_payload, may_hold_refs, with_live_ends
from .received_call import ReceivedCall
from .replies import reply_error, reply_result


async def answer(context: CallContext, call: ReceivedCall) -> None:
    """Answer one call within the scope `call.scope`, which no other call uses until this one is answered.

    If cancelled: the ends that the call used are aborted, and nothing is answered.
    """
    session, message = call.session, call.message
    ends = Ends()
    why = "cancelled"
    try:
        try:
            signature = _signature(call)
            arguments = _arguments(context, message, signature, ends)
            # A plain function could block the event loop, so it runs in a thread.
            if signature.is_async:
                call.start()
                value = await signature.handler(**arguments)
            else:
                value = await context.run_sync(call.starting(signature.handler), arguments)
            result = encode_payload(value, "the result")
        except BaseException as error:  # noqa: ASYNC103 - one handler's bug must not end the worker
            failure, passing = sort_failure(error)
            if failure is not None:
                _failed(context, call, ends, failure)
            if passing is error:
                raise
            if passing is not None:  # cancelled, and something failed on the way out
                raise passing from None  # noqa: ASYNC104
            return  # noqa: ASYNC104
        # The closes are sent before the result. Waiting for them could be waiting for the caller, who may be the reader.
        if ends:
            ends.let_go(context.finish_later)
            ends.clear()
        reply_result(session, message, result, call.waited_us)
    except trio.Cancelled as cancelled:
        why = cancelled.reason or why
        raise
    finally:
        call.scope = None
        CURRENT.set(None)
        session.running.pop(message.invocation_id or "", None)
        # A call that was not cancelled has no ends left.
        if ends:
            ends.break_off(why, ErrorCode.INVOCATION_CANCELLED)


def _signature(call: ReceivedCall) -> HandlerSignature:
    """Return the signature of a call's handler. Raises CallError if the handler is not to start."""
    # The caller may have left before the handler starts.
    if call.cancelled:
        raise CallError(ErrorCode.INVOCATION_CANCELLED, "the call was cancelled")
    # The function may have been unregistered while the call was on its way.
    if call.spec is None or call.spec.signature is None:
        raise CallError(ErrorCode.FUNCTION_NOT_FOUND, f"Function '{call.message.function_id}' not found")
    return call.spec.signature


def _arguments(
    context: CallContext, message: InvokeFunction, signature: HandlerSignature, ends: Ends
) -> dict[str, Any]:
    """Read a call's payload and make it the current call. Return the handler's arguments, and add their ends to `ends`.

    Raises CallError for a payload that the handler does not take.
    """
    data = bytes(message.data)
    try:
        payload = from_json(data) if data and signature.takes_raw is None else None
        metadata = from_json(bytes(message.metadata)) if message.metadata else None
    # The payload came from a peer, so a fault in it is an answer and not a bug.
    except ValueError as error:
        raise bad_input(message.function_id, str(error)) from None
    caller = payload.pop("_caller_worker_id", None) if isinstance(payload, dict) else None
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
    if signature.takes_raw is not None:
        arguments: dict[str, Any] = {signature.takes_raw: Raw(data or b"null")}
        # Raw payloads bypass the signature, which would otherwise fill in the metadata.
        if signature.takes_metadata:
            arguments["metadata"] = metadata
        return arguments
    if not may_hold_refs(data):
        return signature.arguments(payload, metadata)

    def open_end(ref: Ref) -> End:
        end = context.open_end(ref, message.invocation_id)
        ends.append(end)
        return end

    live = with_live_ends(payload, open_end)
    arguments = signature.arguments(live, metadata)
    for key, value in signature.untaken(live).items() if ends else ():
        # Closed cleanly it would look like an empty stream of a function that does not stream at all.
        if isinstance(value, ChannelWriter):
            ends.remove(value)
            value.abort(f"{message.function_id} takes no `{key}`")
    return arguments


def _failed(context: CallContext, call: ReceivedCall, ends: Ends, error: BaseException) -> None:
    message = call.message
    # A CallError is an answer, and a broken channel is the other end's doing. All else is a bug of the handler.
    if not isinstance(error, CallError | ChannelBroken):
        about = {"function": message.function_id, "invocation": message.invocation_id or ""}
        text = f"the handler of {message.function_id} failed: {describe(error, named=True)[0]}"
        context.log.log(trio.current_time(), logging.ERROR, text, about, error=error)
    ends.break_off(*describe(error))
    ends.clear()
    reply_error(call.session, message, error, call.waited_us)
