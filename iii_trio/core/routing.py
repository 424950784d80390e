"""Route calls (`invokefunction`) to engine functions, workers and the queue."""

from __future__ import annotations

import re
from typing import Final

from ..errors import CallError
from ..observed import CallFacts
from ..wire import (
    ABSENT,
    DEFAULT_NAMESPACE,
    FEATURE,
    NULL,
    Action,
    ErrorCode,
    InvokeFunction,
    JsonValue,
    bad_input,
    check_engine_input,
    from_json,
    to_json,
    with_caller_id,
)
from . import calls, faults
from .access import Access, Decision, Target, refusal
from .engine_functions import ENGINE_FUNCTIONS
from .observing import name_of, observe_call
from .replies import BLANK_NAMESPACE, behind_guard, not_found
from .request import Request
from .session import WorkerSession
from .state import State

_DIGIT: Final = "[0-9a-fA-F]"
_is_uuid: Final = re.compile("-".join(f"{_DIGIT}{{{count}}}" for count in (8, 4, 4, 4, 12))).fullmatch
_ENQUEUE: Final = "engine::queue::enqueue"
NO_OPTIONS: Final = "the queue of this engine knows no `options` of jobs: leave them out, or use iii-trio's queue"

NO_FUNCTION: Final = "`function_id` is empty: name the function that is to do the job"
NO_QUEUE: Final = (
    "No queue provider is installed. `TriggerAction::Enqueue` routes through the `engine::queue::enqueue` provider, "
    "which the standalone queue worker registers. Add it with `iii worker add queue`. (underlying: {})"
)


def invoke(state: State, session: WorkerSession, message: InvokeFunction, now: float) -> None:
    """Route a call. Every error, expected or not, is answered to the caller."""
    action = message.action
    invocation_id = message.invocation_id
    if action is not None and action.type == "void":
        invocation_id = None
    request = None
    facts = None
    try:
        if invocation_id is not None and not _is_uuid(invocation_id):
            raise CallError(ErrorCode.DESERIALIZATION_ERROR, f"`invocation_id` must be a UUID, got {invocation_id!r}")
        if message.namespace is not None or action is not None:
            _check(message, action)
        if session.access is not None and _guard(state, session, session.access, message, invocation_id, now):
            return
        if action is not None and action.type == "enqueue":
            state.check_open()
            if state.traces.active:
                facts = observe_call(state.traces, session, None, message, now, action=action)
            _enqueue(state, session, message, action, invocation_id, facts)
            return
        function = state.registry.find(message.namespace or DEFAULT_NAMESPACE, message.function_id)
        if state.traces.active:
            callee = function.owner if function is not None else None
            by_engine = function is not None and callee is None
            facts = observe_call(state.traces, session, callee, message, now, by_engine=by_engine)
        if function is None:
            # The error names the other namespaces, because a missing namespace is the common cause.
            namespaces = state.registry.namespaces_of(message.function_id)
            raise CallError(
                ErrorCode.FUNCTION_NOT_FOUND, not_found(namespaces, message.namespace, message.function_id) + "."
            )
        owner = function.owner
        # The engine's own functions answer while it drains, so that its state can be read.
        if owner is None:
            request = Request(session, message, invocation_id, state.emit, now)
            request.facts, facts = facts, None
            request.payload = _read_payload(message)
            ENGINE_FUNCTIONS[message.function_id][0](state, request)
            return
        # Two engines that each believe the function at the other would pass the call to and fro.
        if session.relays and owner.relays:
            problem = f"{not_found([], message.namespace, message.function_id)}: it has left for another node."
            raise CallError(ErrorCode.FUNCTION_NOT_FOUND, problem)
        state.check_open()
        # The engine's modules read their payloads in the engine's process. A relay passes them on unread.
        if owner.internal and not owner.relays:
            check_engine_input(message.function_id, len(message.data))
        data = with_caller(session, bytes(message.data or NULL))
        calls.deliver(state, session, function, message, invocation_id, data, facts=facts)
    except Refused as refused:
        # The protocol answers a refused void call too, with an id that nothing waits for.
        Request(session, message, invocation_id or state.new_id(), state.emit, now).fail(refused)
    except CallError as error:
        request = request or Request(session, message, invocation_id, state.emit, now, facts=facts)
        request.fail(error)
    except Exception as error:
        request = request or Request(session, message, invocation_id, state.emit, now, facts=facts)
        faults.fail_request(state, request, error)


class Refused(CallError):
    """A call that the access rules of the caller's listener do not allow."""


def _guard(
    state: State,
    session: WorkerSession,
    access: Access,
    message: InvokeFunction,
    invocation_id: str | None,
    now: float,
) -> bool:
    """Check a call of a guarded session. Return whether it was given to the middleware function instead.

    Raises Refused. A function that does not exist is refused like one that does.
    """
    namespace = message.namespace or DEFAULT_NAMESPACE
    function = state.registry.find(namespace, message.function_id)
    metadata = function.metadata if function is not None else ABSENT
    decision = access.decide(Target(namespace, message.function_id, metadata))
    if decision is not Decision.ALLOWED:
        raise Refused(ErrorCode.FORBIDDEN, refusal(decision, message.function_id))
    middleware_id = access.middleware
    # The engine's own functions are never given to the middleware.
    if middleware_id is None or (function is not None and function.owner is None):
        return False
    state.check_open()
    middleware = state.registry.find(namespace, middleware_id)
    if middleware is None or middleware.owner is None:
        namespaces = state.registry.namespaces_of(middleware_id)
        raise CallError(ErrorCode.FUNCTION_NOT_FOUND, not_found(namespaces, namespace, middleware_id) + ".")
    # Its calls could come back to itself for ever, and a guarded session could take its place.
    if middleware.owner.access is not None:
        raise CallError(ErrorCode.FUNCTION_NOT_INVOKABLE, behind_guard(middleware_id))
    payload = {
        "function_id": message.function_id,
        "payload": message.data or NULL,
        "action": message.action,
        "context": access.grants.context,
        "namespace": namespace,
    }
    facts = None
    if state.traces.active:
        facts = observe_call(state.traces, session, middleware.owner, message, now)
    calls.deliver(state, session, middleware, message, invocation_id, to_json(payload), facts=facts)
    return True


def _check(message: InvokeFunction, action: Action | None) -> None:
    """Raise CallError if a call's namespace or action is not valid."""
    if message.namespace is not None and not message.namespace.strip():
        raise CallError(ErrorCode.INVALID_NAMESPACE, BLANK_NAMESPACE.format("namespace"))
    if action is None:
        return
    if action.type not in ("void", "enqueue"):
        problem = f"`action.type` must be `void` or `enqueue`, got {action.type!r}"
        raise bad_input(message.function_id, problem)
    if action.type == "enqueue" and not action.queue:
        raise bad_input(message.function_id, "`action.queue` must name a queue")
    # Its job would wait for ever, because no worker can offer such a function.
    if action.type == "enqueue" and not message.function_id.strip():
        raise CallError(ErrorCode.ENQUEUE_ERROR, NO_FUNCTION)


def _read_payload(message: InvokeFunction) -> JsonValue:
    """Decode the payload for an engine function. Null, like no payload at all, counts as an empty object."""
    check_engine_input(message.function_id, len(message.data))
    try:
        payload = from_json(bytes(message.data or NULL))
    except ValueError as error:
        raise bad_input(message.function_id, str(error)) from None
    return {} if payload is None else payload


def _enqueue(
    state: State,
    session: WorkerSession,
    message: InvokeFunction,
    action: Action,
    invocation_id: str | None,
    facts: CallFacts | None,
) -> None:
    """Turn an enqueued call into a call of the queue's function. The caller's result is a receipt."""
    provider = state.registry.find(DEFAULT_NAMESPACE, _ENQUEUE)
    if provider is None or provider.owner is None:
        problem = not_found(state.registry.namespaces_of(_ENQUEUE), DEFAULT_NAMESPACE, _ENQUEUE)
        raise CallError(ErrorCode.ENQUEUE_ERROR, NO_QUEUE.format(problem))
    receipt = state.new_id()
    job: dict[str, object] = {
        "queue": action.queue,
        "function_id": message.function_id,
        "data": message.data or NULL,
        "messageReceiptId": receipt,
        "traceparent": message.traceparent if facts is None else facts.traceparent,
        "baggage": message.baggage,
    }
    if message.namespace is not None and message.namespace != DEFAULT_NAMESPACE:
        job["namespace"] = message.namespace
    # Other queue workers know no metadata and could refuse the field.
    if message.metadata and FEATURE in provider.owner.features:
        job["metadata"] = message.metadata
    if action.options:
        if FEATURE not in provider.owner.features:
            raise CallError(ErrorCode.ENQUEUE_ERROR, NO_OPTIONS)
        job["options"] = action.options
        receipt = ""
    if facts is not None:
        facts.job_id = receipt
        facts.callee, facts.callee_id = name_of(provider.owner), provider.owner.id
    calls.deliver(state, session, provider, message, invocation_id, to_json(job), receipt, facts=facts)
    state.call_counts.enqueued += 1


def with_caller(session: WorkerSession, data: bytes) -> bytes:
    """Return an object payload with its caller's id in it, and without an id that the caller wrote itself.

    The payloads of the engine's own modules and of relays, and payloads that are not objects, stay as they are.
    """
    return data if session.internal or session.relays else with_caller_id(data, session.caller_field)
