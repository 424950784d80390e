"""Handlers that deliver, answer, refuse and cancel the calls between workers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec import Raw

from ..errors import CallError
from ..observed import CallFacts
from ..wire import (
    ABSENT,
    FEATURE,
    GIVEN_UP,
    LEFT,
    CancelInvocation,
    ErrorCode,
    InvocationResult,
    InvokeFunction,
    WireError,
    encode,
    to_json,
)
from .binding import TriggerBinding
from .call import Call, CallEvent
from .delegated import destination
from .effects import Deliver, Log, Send
from .observing import end_call
from .peer_limits import why_unfit
from .registry import Function
from .replies import error_text, is_error, not_found, read_error, result_text
from .session import WorkerSession
from .state import State

# --- a call goes out


def deliver(
    state: State,
    session: WorkerSession,
    function: Function,
    message: InvokeFunction,
    invocation_id: str | None,
    data: bytes,
    receipt: str | None = None,
    facts: CallFacts | None = None,
) -> None:
    """Give a call to the worker that runs a function. `invocation_id` is None for a void call.

    The function is the caller's, or the queue's or a middleware in its place. `receipt` becomes the result of an enqueued
    call. Raises CallError if the id is in use, and if no worker can run the function or read the message.
    The callee's work belongs to the `span`, if there is one, and to the caller's trace otherwise.
    """
    pending = state.calls
    callee = function.owner
    function_id = function.local_id or function.id
    # Only functions that another worker runs, and those without a worker, have another destination.
    if callee is None or function.invocation:
        found = destination(state, function, data)
        if isinstance(found, WireError):
            raise CallError(found.code, found.message)
        callee, function_id, data = found
    id_ = invocation_id or state.new_id()
    # Two calls of one id would share one answer.
    if id_ in pending.given[callee] or id_ in pending.made[session]:
        raise CallError(ErrorCode.INVOCATION_ERROR, f"An invocation with the id {id_} is under way already")
    caller = None if invocation_id is None else session
    traceparent, baggage = message.traceparent, message.baggage
    call = Call(id_, caller, callee, message.function_id, traceparent, baggage, receipt, None, facts)
    if facts is not None:
        traceparent = facts.traceparent
    text = encode(InvokeFunction(function_id, id_, Raw(data), traceparent, baggage, metadata=message.metadata))
    unfit = why_unfit(callee, text)
    if unfit is not None:
        raise CallError(unfit.code, unfit.message)
    _give(state, call, text)


def fire(state: State, binding: TriggerBinding, data: bytes) -> None:
    """Call the target of a binding in the name of the engine. The result is dropped."""
    fields = {"binding": binding.id, "trigger_type": binding.trigger_type, "function": binding.function_id}
    target = state.registry.find(binding.namespace, binding.function_id)
    found: tuple[WorkerSession, str, bytes] | WireError
    if target is None:
        why = not_found(state.registry.namespaces_of(binding.function_id), binding.namespace, binding.function_id)
        found = WireError(ErrorCode.FUNCTION_NOT_FOUND, why)
    else:
        found = destination(state, target, data)
    if isinstance(found, WireError):
        state.emit(
            Log(logging.DEBUG, f"{binding.trigger_type} called nobody: {found.message}", fields, peer_controlled=True)
        )
        return
    callee, function_id, data = found
    fields["session"] = callee.id
    call = Call(state.new_id(), None, callee, binding.function_id)
    text = encode(InvokeFunction(function_id, call.id, Raw(data), metadata=binding.metadata))
    unfit = why_unfit(callee, text)
    # The engine waits for no result, so the log is the only place for this problem.
    if unfit is not None:
        state.emit(Log(logging.WARNING, f"{binding.trigger_type}: {unfit.message}", fields, peer_controlled=True))
        return
    _give(state, call, text)


def _give(state: State, call: Call, text: bytes) -> None:
    """Send a call to its callee, and wait for the answer."""
    pending, caller, callee = state.calls, call.caller, call.callee
    max_calls = state.config.limits.calls_per_session
    if len(pending.given[callee]) >= max_calls or (caller is not None and len(pending.made[caller]) >= max_calls):
        _make_room(state, call, max_calls)
    pending.enter(call)  # before the message is sent, because the answer may come at once
    state.emit(Deliver(callee.id, text, call.id))


def _make_room(state: State, call: Call, max_calls: int) -> None:
    """Give up the oldest calls of this call's caller, and of its callee, until both are below the limit."""
    limits = []
    # A module calls in the name of many workers, so the bound of one caller does not apply to it.
    if call.caller is not None and not call.caller.internal:
        limits.append((state.calls.made_by(call.caller), "its caller has"))
    limits.append((state.calls.given_to(call.callee), f"{call.callee.label} has been given"))
    for pending, holder in limits:
        while len(pending) >= max_calls:
            oldest = next(iter(pending.values()))
            why = f"{GIVEN_UP}: {holder} {max_calls} newer calls that are not answered (limits.calls_per_session)"
            _leave(state, oldest, CallEvent.GIVEN_UP, ErrorCode.INVOCATION_STOPPED)
            fields = {"session": oldest.callee.id, "function": oldest.function_id, "invocation": oldest.id}
            _stop(state, oldest, why)
            _cancel_handler(state, oldest, why)
            text = f"the call {oldest.id} of {oldest.function_id} was {why}"
            state.emit(Log(logging.WARNING, text, fields, peer_controlled=True))


def call_for_engine(
    state: State, function: Function, data: bytes, on_answer: Callable[[Raw, WireError | None], None]
) -> Call | WireError:
    """Call a worker's function in the name of the engine, which waits for the answer.

    Returns the error, and calls nothing, if the function cannot be called. `on_answer` is not called then.
    """
    found = destination(state, function, data)
    if isinstance(found, WireError):
        return found
    callee, function_id, data = found
    call = Call(state.new_id(), None, callee, function.id, on_answer=on_answer)
    text = encode(InvokeFunction(function_id, call.id, Raw(data)))
    unfit = why_unfit(callee, text)
    if unfit is not None:
        return unfit
    _give(state, call, text)
    return call


def give_up(state: State, call: Call, reason: str) -> None:
    """Drop a call that the engine made and no longer waits for, and tell the handler."""
    _leave(state, call, CallEvent.CALLER_CANCELLED)
    _cancel_handler(state, call, reason)


def undelivered(state: State, session_id: str, invocation_id: str) -> None:
    """Refuse a call after its callee's outbox was found full."""
    session = state.sessions.get(session_id)
    call = state.calls.given_to(session).get(invocation_id) if session is not None else None
    # The call can have been answered or cancelled by an earlier effect of the same input.
    if call is None or session is None:
        return
    _leave(state, call, CallEvent.CALLEE_IS_FULL, ErrorCode.CHANNEL_SEND_FAILED)
    text = f"{session.label} does not take what waits for it; the call was not delivered"
    fields = {"session": session.id, "function": call.function_id, "invocation": call.id}
    state.emit(Log(logging.WARNING, text, fields, peer_controlled=True))
    _fail(state, call, ErrorCode.CHANNEL_SEND_FAILED, text)


# --- an answer comes in


def answer(state: State, session: WorkerSession, message: InvocationResult, now: float) -> None:
    """Pass a result on to the caller. Late, foreign and repeated answers find no call and are ignored."""
    call = state.calls.given[session].get(message.invocation_id)
    if call is None:
        return
    if call.facts is not None and message.waited_us is not None:
        # A callee may say what it likes, and a call cannot have waited for longer than it lasts.
        call.facts.waited_us = max(0, min(message.waited_us, int((now - call.facts.began) * 1e6)))
    caller = call.caller
    # A void call has no caller to tell. It was kept so that its callee has a bounded number of calls.
    if caller is None:
        problem = read_error(message.error)[1] if is_error(message.error) else None
        _leave(state, call, CallEvent.ANSWER_CAME, problem.code if problem is not None else "")
        if call.on_answer is not None:
            call.on_answer(message.result, problem)
        return
    # The answer is built before the call leaves the ledger, so that a failure here can still be answered.
    code = ""
    if message.error and is_error(message.error):
        body, error = read_error(message.error)
        code = error.code
        text = _passed_on(call, caller, message) if session.relays else None
        text = text or _error_text(call, caller, body, error)
    else:
        # An empty receipt stands for the queue's own answer.
        result = message.result if not call.receipt else Raw(to_json({"messageReceiptId": call.receipt}))
        built = result_text(caller, call.id, call.function_id, result, call.traceparent, call.baggage)
        if isinstance(built, WireError):
            code = built.code
            text = _error_text(call, caller, to_json(built), built)
        else:
            text = built
    _leave(state, call, CallEvent.ANSWER_CAME, code)
    state.emit(Send(caller.id, text))


def _passed_on(call: Call, caller: WorkerSession, message: InvocationResult) -> bytes | None:
    """Return the error of another engine, as this engine would have sent it. None if it is not an engine's error."""
    if not message.by_engine:
        return None
    body, error = read_error(message.error)
    supports_extensions = FEATURE in caller.features
    # SDKs compare the bare text, and get no cause.
    if error.code == ErrorCode.INVOCATION_STOPPED and not supports_extensions:
        error = WireError(error.code, "Invocation stopped")
        body = to_json(error)
    return _error_text(call, caller, body, error, by_engine=supports_extensions)


def cancel(state: State, session: WorkerSession, message: CancelInvocation, now: float) -> None:
    """Drop a call that its caller has cancelled, and tell the handler (clause C5.5)."""
    call = state.calls.made_by(session).get(message.invocation_id)
    if call is None:
        return
    _leave(state, call, CallEvent.CALLER_CANCELLED)
    _cancel_handler(state, call, message.reason or "the caller cancelled")


def fail_unreadable(state: State, call: Call, problem: str) -> None:
    """Fail a call, because its result cannot be passed on."""
    _leave(state, call, CallEvent.ANSWER_CAME, ErrorCode.SERIALIZATION_ERROR)
    _fail(state, call, ErrorCode.SERIALIZATION_ERROR, problem)


# --- a session ends


def callee_left(state: State, session: WorkerSession, reason: str, *, left: bool) -> None:
    """Fail the calls that this session was given and has not answered. `left` says that no call caused its end."""
    why = f"{LEFT}: {session.label}: {reason}" if left else f"{session.label} is gone: {reason}"
    for call in list(state.calls.given_to(session).values()):
        _leave(state, call, CallEvent.CALLEE_LEFT, ErrorCode.INVOCATION_STOPPED)
        _stop(state, call, why)


def before_close(state: State, session: WorkerSession, reason: str) -> None:
    """Answer the calls of a session that is about to be closed, because SDKs go on waiting when a link is lost."""
    for call in state.calls.made_by(session).values():
        _stop(state, call, reason)


def session_ended(state: State, session: WorkerSession, reason: str, *, left: bool) -> None:
    """End the calls of a session (clause C4.5). Calls to it fail, and the handlers of its own calls are cancelled."""
    callee_left(state, session, reason, left=left)
    for call in list(state.calls.made_by(session).values()):
        _leave(state, call, CallEvent.CALLER_LEFT)
        _cancel_handler(state, call, f"the caller, {session.label}, is gone: {reason}")
    state.calls.remove_session(session)


# --- inside


def _leave(state: State, call: Call, event: CallEvent, code: str = "") -> None:
    """Remove a call from the ledger, count it, and give back its facts. `code` is the error that its caller is told."""
    state.calls.leave(call, event)
    # Calls of the engine's own modules, such as those of a command that lists something, tell nothing of the mesh.
    if not call.callee.internal:
        state.call_counts.count(call.function_id, failed=bool(code))
    if call.facts is not None:
        end_call(call.facts, call.state.current.name.lower(), code, state.emit)


def _stop(state: State, call: Call, why: str) -> None:
    """Tell a call's caller that it was stopped. Other SDKs compare the bare text, so only ours gets the cause."""
    supports_extensions = call.caller is not None and FEATURE in call.caller.features
    text = f"Invocation stopped: {why}" if supports_extensions else "Invocation stopped"
    _fail(state, call, ErrorCode.INVOCATION_STOPPED, text)


def _fail(state: State, call: Call, code: str, text: str) -> None:
    """Tell a call's caller, if it has one, that there will be no result."""
    caller = call.caller
    if call.on_answer is not None:
        call.on_answer(ABSENT, WireError(code, text))
    if caller is not None:
        error = WireError(code, text)
        by_engine = FEATURE in caller.features
        state.emit(Send(caller.id, _error_text(call, caller, to_json(error), error, by_engine=by_engine)))


def _error_text(call: Call, caller: WorkerSession, body: bytes, error: WireError, *, by_engine: bool = False) -> bytes:
    # The caller of an enqueued call knows nothing of the queue's functions, so their errors become an enqueue error.
    if call.receipt is not None:
        body = to_json(WireError(ErrorCode.ENQUEUE_ERROR, f"{error.code}: {error.message}"))
    return error_text(caller, call.id, call.function_id, body, call.traceparent, call.baggage, by_engine=by_engine)


def _cancel_handler(state: State, call: Call, reason: str) -> None:
    # Other SDKs do not know this message, and their handlers run to their end.
    if FEATURE in call.callee.features:
        state.emit(Send(call.callee.id, encode(CancelInvocation(call.id, reason))))
