"""What becomes of a call: routed to its callee, answered, refused, cancelled."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Raw

from ..errors import CallError
from ..structure import BadShape, structure
from ..wire import (
    DEFAULT_NAMESPACE,
    FEATURE,
    GIVEN_UP,
    LEFT,
    Action,
    CancelInvocation,
    ErrorCode,
    InvocationResult,
    InvokeFunction,
    Undecodable,
    WireError,
    encode,
    from_json,
    to_json,
)
from .effects import Deliver, Effects, Log, Send
from .invocation import Call, CallEvent
from .later import Later
from .registry import Asked, Builtin
from .session import Session
from .unfit import why_unfit

if TYPE_CHECKING:
    from .binding import Binding
    from .hub import Hub

T = TypeVar("T")

_NULL: Final = Raw(b"null")
_NO_ERROR: Final = frozenset({b"", b"null", b"false", b"0", b'""'})
"""What SDKs take for no error."""
_error_body: Final = msgspec.json.Decoder(WireError)
_is_uuid: Final = re.compile("[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}").fullmatch

NO_QUEUE: Final = (
    "No queue provider is installed. `TriggerAction::Enqueue` routes through the `engine::queue::enqueue` provider, "
    "which the standalone queue worker registers. Add it with `iii worker add queue`. (underlying: {})"
)


def invoke(hub: Hub, session: Session, call: InvokeFunction, now: float) -> Effects:
    """A worker calls a function."""
    action = call.action
    invocation_id = call.invocation_id
    if action is not None and action.type == "void":
        invocation_id = None
    try:
        if invocation_id is not None and not _is_uuid(invocation_id):
            raise CallError(ErrorCode.DESERIALIZATION_ERROR, f"`invocation_id` must be a UUID, got {invocation_id!r}")
        if call.namespace is not None and not call.namespace.strip():
            raise CallError(ErrorCode.INVALID_NAMESPACE, BLANK_NAMESPACE.format("namespace"))
        if action is not None and action.type not in ("void", "enqueue"):
            raise bad_input(call.function_id, f"`action.type` must be `void` or `enqueue`, got {action.type!r}")
        if action is not None and action.type == "enqueue":
            if not action.queue:
                raise bad_input(call.function_id, "`action.queue` must name a queue")
            hub.check_open()
            return _enqueue(hub, session, call, action, invocation_id)
        function = hub.registry.find(call.namespace or DEFAULT_NAMESPACE, call.function_id)
        if function is None:
            raise CallError(ErrorCode.FUNCTION_NOT_FOUND, not_found(hub, call.namespace, call.function_id) + ".")
        if function.builtin is not None:
            return _ask(hub, session, function.builtin, call, invocation_id, now)
        hub.check_open()
        assert function.owner is not None
        return _deliver(
            hub, session, function.owner, call, invocation_id, with_caller(session, bytes(call.data or _NULL))
        )
    except CallError as error:
        return hub.take_effects() + _refuse(session, call, invocation_id, error)


def answer(hub: Hub, session: Session, message: InvocationResult, now: float) -> Effects:
    """A worker answers. Late, foreign and repeated answers find no call, and are ignored."""
    call = session.answering.get(message.invocation_id)
    if call is None:
        return []
    call.leave(CallEvent.ANSWER_CAME)
    if call.caller is None:
        return []
    if is_error(message.error):
        return [_error_to(call, well_formed(bytes(message.error)))]
    return [_result_to(call, message.result)]


def undelivered(hub: Hub, callee: str, invocation_id: str) -> Effects:
    """The callee's outbox was full: the call is refused to its caller, and nobody else is stalled."""
    session = hub.sessions.get(callee)
    call = session.answering.get(invocation_id) if session is not None else None
    if call is None or session is None:
        return []
    call.leave(CallEvent.CALLEE_IS_FULL)
    message = f"{session.label} does not take what waits for it; the call was not delivered"
    about = {"session": session.id, "function": call.function_id, "invocation": call.id}
    told: Effects = [Log(logging.WARNING, message, about, peer_controlled=True)]
    return told + fail(call, ErrorCode.CHANNEL_SEND_FAILED, message)


def cancel(hub: Hub, session: Session, message: CancelInvocation, now: float) -> Effects:
    """A caller no longer wants the answer (clause C5.5)."""
    call = session.made.get(message.invocation_id)
    if call is None:
        return []
    call.leave(CallEvent.CALLER_CANCELLED)
    return _cancel_handler(call, message.reason or "the caller cancelled")


def undecodable(hub: Hub, session: Session, message: Undecodable, now: float) -> Effects:
    """A message that cannot be read. Whoever waits for it is told; nothing of it goes on."""
    about = {"session": session.id}
    effects: Effects = [
        Log(
            logging.WARNING,
            f"{session.label} sent a message that cannot be read: {message.problem}",
            about,
            peer_controlled=True,
        )
    ]
    if message.invocation_id is None:
        return effects
    if message.type == "invokefunction":
        error = bad_input(message.function_id, message.problem)
        call = InvokeFunction(message.function_id, message.invocation_id)
        effects += _refuse(session, call, message.invocation_id, error)
    elif message.type == "invocationresult":
        waiting = session.answering.get(message.invocation_id)
        if waiting is not None:
            waiting.leave(CallEvent.ANSWER_CAME)
            effects += fail(waiting, ErrorCode.SERIALIZATION_ERROR, f"The result cannot be read: {message.problem}")
    return effects


def callee_left(session: Session, reason: str, *, left: bool = False) -> Effects:
    """Fail the calls that this session was answering. `left` marks an end that no call can have caused."""
    effects: Effects = []
    for call in list(session.answering.values()):
        call.leave(CallEvent.CALLEE_LEFT)
        why = f"{LEFT}: {session.label}: {reason}" if left else f"{session.label} is gone: {reason}"
        effects += _stopped(call, why)
    return effects


def sent_away(session: Session, reason: str) -> Effects:
    """A session is about to be hung up on: its own calls are answered before, as SDKs wait on when a link is lost."""
    return [effect for call in session.made.values() for effect in _stopped(call, reason)]


def session_ended(hub: Hub, session: Session, reason: str, *, left: bool = False) -> Effects:
    """The calls' part of clause C4.5: those it was answering fail, its own are dropped and their handlers cancelled."""
    effects = callee_left(session, reason, left=left)
    for call in list(session.made.values()):
        call.leave(CallEvent.CALLER_LEFT)
        effects += _cancel_handler(call, f"the caller, {session.label}, is gone: {reason}")
    return effects


def fire(hub: Hub, binding: Binding, data: bytes) -> Effects:
    """The engine calls a binding's target. Nobody waits for the result."""
    about = {"binding": binding.id, "trigger_type": binding.trigger_type, "function": binding.function_id}
    target = hub.registry.find(binding.namespace, binding.function_id)
    if target is None or target.owner is None or target.builtin is not None:
        why = (
            not_found(hub, binding.namespace, binding.function_id) if target is None else "the engine does not call it"
        )
        return [Log(logging.DEBUG, f"{binding.trigger_type} called nobody: {why}", about)]
    about["session"] = target.owner.id
    call = Call(hub.new_id(), None, target.owner, binding.function_id)
    message = InvokeFunction(binding.function_id, call.id, Raw(data), metadata=binding.metadata)
    text = encode(message)
    unfit = why_unfit(target.owner, text)
    if unfit is not None:
        return [Log(logging.WARNING, f"{binding.trigger_type}: {unfit.message}", about)]
    most = hub.config.limits.calls_per_session
    given_up = _make_room(call, most) if len(target.owner.answering) >= most else []
    call.enter()
    return [*given_up, Deliver(target.owner.id, text, call.id)]


def _stopped(call: Call, why: str) -> Effects:
    """Log a call's caller that it was stopped; SDKs know the bare text, ours are told the cause, too."""
    told = call.caller is not None and FEATURE in call.caller.features
    return fail(call, ErrorCode.INVOCATION_STOPPED, f"Invocation stopped: {why}" if told else "Invocation stopped")


def fail(call: Call, code: str, message: str) -> Effects:
    """Log a call's caller, if it waits, that there will be no value."""
    if call.caller is None:
        return []
    return [_error_to(call, to_json(WireError(code, message)), by_engine=FEATURE in call.caller.features)]


def bad_input(function_id: str, problem: str) -> CallError:
    """The error for an input that a function of the engine cannot take."""
    return CallError(ErrorCode.DESERIALIZATION_ERROR, f"Failed to deserialize input for {function_id}: {problem}")


def read_input(function_id: str, asked: Asked, into: type[T]) -> T:
    """The input of a function of the engine, structured. Raises CallError saying what is wrong with it."""
    try:
        return structure(asked.given, into)
    except BadShape as problem:
        raise bad_input(function_id, str(problem)) from None


BLANK_NAMESPACE: Final = "`{}` is empty: it was named and left blank. Give it a name, or omit it to use `default`."


def not_found(hub: Hub, namespace: str | None, function_id: str) -> str:
    """`Function … not found in namespace …`, with a hint where else it is; without its final period."""
    text = f"Function {function_id} not found in namespace {namespace or DEFAULT_NAMESPACE}"
    elsewhere = hub.registry.namespaces_of(function_id)
    return f"{text}. It is registered in namespace(s): {', '.join(elsewhere)}" if elsewhere else text


def with_caller(session: Session, data: bytes) -> bytes:
    """The payload with its caller's id in it, if it is an object, and its caller is no module of the engine."""
    if session.internal or data[:1] != b"{":
        return data
    inside = data[1:-1]
    if not inside or inside.isspace():
        return b"{" + session.caller_field
    return data[:-1] + b"," + session.caller_field


def is_error(error: Raw) -> bool:
    """Whether the `error` of a result is one."""
    return bytes(error) not in _NO_ERROR


def well_formed(body: bytes) -> bytes:
    """An error body as SDKs can take it: code and message are texts, and there."""
    try:
        _error_body.decode(body)
    except msgspec.DecodeError:
        said = body.decode(errors="replace")[:200]
        return to_json(
            WireError(ErrorCode.INVOCATION_FAILED, f"The worker answered with an error of no known shape: {said}")
        )
    return body


# --- inside


def _ask(
    hub: Hub, session: Session, builtin: Builtin, call: InvokeFunction, invocation_id: str | None, now: float
) -> Effects:
    """Have a function of the engine itself answer, now or later."""
    try:
        given = from_json(bytes(call.data or _NULL))
    except ValueError as error:
        raise bad_input(call.function_id, str(error)) from None
    result = builtin(hub, Asked(session, given, now, call.baggage, call.traceparent))
    if isinstance(result, Later):
        always = result.also_as_it_ends
        result.promise(
            lambda value: (
                []
                if session.state.is_final and not always
                else _answer_result(session, call, invocation_id, to_json(value))
            ),
            lambda error: [] if session.state.is_final and not always else _refuse(session, call, invocation_id, error),
        )
        return hub.take_effects()
    first, last = hub.take_effects(), hub.take_last_effects()
    return first + _answer_result(session, call, invocation_id, to_json(result)) + last


def _deliver(
    hub: Hub,
    session: Session,
    callee: Session,
    message: InvokeFunction,
    invocation_id: str | None,
    data: bytes,
    receipt: str | None = None,
    function_id: str | None = None,
) -> Effects:
    call = Call(
        id=invocation_id or hub.new_id(),
        caller=None if invocation_id is None else session,
        callee=callee,
        function_id=message.function_id,
        traceparent=message.traceparent,
        baggage=message.baggage,
        receipt=receipt,
    )
    if call.id in callee.answering or call.id in session.made:
        raise CallError(ErrorCode.INVOCATION_ERROR, f"An invocation with the id {call.id} is under way already")
    text = encode(
        InvokeFunction(
            function_id=function_id or message.function_id,
            invocation_id=call.id,
            data=Raw(data),
            traceparent=message.traceparent,
            baggage=message.baggage,
            metadata=message.metadata,
        )
    )
    unfit = why_unfit(callee, text)
    if unfit is not None:
        raise CallError(unfit.code, unfit.message)
    most = hub.config.limits.calls_per_session
    given_up = _make_room(call, most) if len(callee.answering) >= most or len(session.made) >= most else []
    call.enter()  # before it is sent: its answer may be there at once
    return [*given_up, Deliver(callee.id, text, call.id)]


def _make_room(call: Call, most: int) -> Effects:
    """Give up the oldest calls that wait, of this one's caller or at its callee, where there are as many as there may be."""
    effects: Effects = []
    for calls, whose in (
        (call.caller.made if call.caller is not None and not call.caller.internal else {}, "its caller has"),
        (call.callee.answering, f"{call.callee.label} has been given"),
    ):
        while len(calls) >= most:
            oldest = next(iter(calls.values()))
            why = f"{GIVEN_UP}: {whose} {most} newer calls that are not answered (limits.calls_per_session)"
            oldest.leave(CallEvent.GIVEN_UP)
            about = {"session": oldest.callee.id, "function": oldest.function_id, "invocation": oldest.id}
            text = f"the call {oldest.id} of {oldest.function_id} was {why}"
            effects += [*_stopped(oldest, why), *_cancel_handler(oldest, why)]
            effects.append(Log(logging.WARNING, text, about, peer_controlled=True))
    return effects


def _enqueue(hub: Hub, session: Session, call: InvokeFunction, action: Action, invocation_id: str | None) -> Effects:
    provider = hub.registry.find(DEFAULT_NAMESPACE, "engine::queue::enqueue")
    if provider is None or provider.owner is None:
        raise CallError(
            ErrorCode.ENQUEUE_ERROR, NO_QUEUE.format(not_found(hub, DEFAULT_NAMESPACE, "engine::queue::enqueue"))
        )
    receipt = hub.new_id()
    job: dict[str, object] = {
        "queue": action.queue,
        "function_id": call.function_id,
        "data": call.data or _NULL,
        "messageReceiptId": receipt,
        "traceparent": call.traceparent,
        "baggage": call.baggage,
    }
    if call.namespace is not None and call.namespace != DEFAULT_NAMESPACE:
        job["namespace"] = call.namespace
    if call.metadata and FEATURE in provider.owner.features:
        job["metadata"] = call.metadata
    return _deliver(
        hub, session, provider.owner, call, invocation_id, to_json(job), receipt, function_id="engine::queue::enqueue"
    )


def _answer_result(session: Session, call: InvokeFunction, invocation_id: str | None, result: bytes) -> Effects:
    if invocation_id is None:
        return []
    text = encode(
        InvocationResult(
            invocation_id, call.function_id, Raw(result), traceparent=call.traceparent, baggage=call.baggage
        )
    )
    unfit = why_unfit(session, text)
    if unfit is not None:
        return _refuse(session, call, invocation_id, CallError(unfit.code, unfit.message))
    return [Send(session.id, text)]


def _refuse(session: Session, call: InvokeFunction, invocation_id: str | None, error: CallError) -> Effects:
    """Answer a call that goes nowhere; a void one only leaves a line in the log."""
    if invocation_id is None:
        about = {"session": session.id, "function": call.function_id}
        why = f"a void call by {session.label} went nowhere: {error.message}"
        return [Log(logging.WARNING, why, about, peer_controlled=True)]
    body = Raw(to_json(WireError(error.code, error.message, error.stacktrace)))
    text = encode(
        InvocationResult(
            invocation_id,
            call.function_id,
            error=body,
            traceparent=call.traceparent,
            baggage=call.baggage,
            by_engine=FEATURE in session.features,
        )
    )
    return [Send(session.id, text)]


def _result_to(call: Call, result: Raw) -> Send:
    assert call.caller is not None
    if call.receipt is not None:
        result = Raw(to_json({"messageReceiptId": call.receipt}))
    text = encode(
        InvocationResult(call.id, call.function_id, result, traceparent=call.traceparent, baggage=call.baggage)
    )
    unfit = why_unfit(call.caller, text)
    if unfit is not None:
        return _error_to(call, to_json(unfit))
    return Send(call.caller.id, text)


def _error_to(call: Call, body: bytes, *, by_engine: bool = False) -> Send:
    assert call.caller is not None
    if call.receipt is not None:
        error = _error_body.decode(body)
        body = to_json(WireError(ErrorCode.ENQUEUE_ERROR, f"{error.code}: {error.message}"))
    text = encode(
        InvocationResult(
            call.id,
            call.function_id,
            error=Raw(body),
            traceparent=call.traceparent,
            baggage=call.baggage,
            by_engine=by_engine,
        )
    )
    unfit = why_unfit(call.caller, text)
    if unfit is not None and len(body) > len(short := to_json(unfit)):
        return _error_to(call, short, by_engine=by_engine)
    return Send(call.caller.id, text)


def _cancel_handler(call: Call, reason: str) -> Effects:
    if FEATURE not in call.callee.features:
        return []
    return [Send(call.callee.id, encode(CancelInvocation(call.id, reason)))]
