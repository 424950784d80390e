"""Handlers of the registration of functions."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from msgspec import Raw

from ..wire import (
    ABSENT,
    DEFAULT_NAMESPACE,
    FEATURE,
    RELAY_NODE,
    RELAY_WORKER,
    JsonValue,
    RegisterFunction,
    RegistrationRejected,
    Rejection,
    UnregisterFunction,
    WireError,
    encode,
    from_json,
    is_given,
    to_json,
)
from . import calls, delegated
from .effects import Log, Send
from .quota import size_of, why_no_room
from .registry import Function
from .session import WorkerSession
from .state import State


def register_function(
    state: State, session: WorkerSession, message: RegisterFunction, now: float, local_id: str | None = None
) -> None:
    """Register a session's function, or describe one of its own again.

    `local_id` is the id that the session knows, if access rules have given the function another one.
    """
    known_id = local_id or message.id
    # Modules offer some of their functions to other engines in a namespace of their own.
    reserved = message.id.startswith("engine::") and session.namespace != DEFAULT_NAMESPACE and not session.internal
    earlier = state.registry.find(session.namespace, message.id)
    if reserved or (earlier is not None and earlier.owner is None):
        reject_function(state, session, known_id, "", "the id is the engine's own")
        return
    holder = earlier.owner if earlier is not None and earlier.owner is not session else None
    own = earlier if holder is None else None  # it is replaced by the new description
    size = size_of(message)
    held = len(session.functions) + len(session.standbys)
    limits = state.config.limits
    full = why_no_room(limits, session, "functions", held, limits.functions_per_session, size, own)
    if full is not None:
        why = full if holder is None else f"worker {holder.id} has it, and this one may not stand by: {full}"
        reject_function(state, session, known_id, "" if holder is None else holder.id, why)
        return
    metadata, said = _read_metadata(message.metadata)
    function = Function(
        namespace=session.namespace,
        id=message.id,
        owner=session,
        description=message.description,
        request_format=message.request_format,
        response_format=message.response_format,
        metadata=metadata,
        marked_internal=said.get("internal") is True,
        invocation=message.invocation if is_given(message.invocation) else ABSENT,
        node=_relay_text(session, said, RELAY_NODE),
        worker_name=_relay_text(session, said, RELAY_WORKER),
        local_id=local_id,
        size=size,
    )
    if holder is not None:
        # The id is taken, and SDKs are told so, as by iii's engine. They stay connected and keep their handlers.
        waits = state.registry.add_standby(function)
        then = "and this one takes over when it goes" if waits else "and too many others stand by for it"
        reject_function(state, session, known_id, holder.id, f"worker {holder.id} has it, {then}")
        return
    state.registry.add(function)
    if function.invocation:
        _check_invocation(state, session, function, known_id, now)


def _check_invocation(state: State, session: WorkerSession, function: Function, known_id: str, now: float) -> None:
    """Ask the worker that is to invoke a function whether it will. The function is there meanwhile."""
    check = state.registry.find(DEFAULT_NAMESPACE, delegated.CHECK)
    if check is None or delegated.find_invoker(state, delegated.CHECK) is None:
        text = f"{session.label} registered {function.id}, calls of which are refused: {delegated.NO_INVOKER}"
        fields = {"session": session.id, "function": function.id}
        state.emit(Log(logging.WARNING, text, fields, peer_controlled=True))
        return

    def answered(result: Raw, error: WireError | None) -> None:
        # An error is a fault of the invoker. It looks at the function again at each call.
        problem = from_json(bytes(result)) if is_given(result) and error is None else None
        # The function may have been replaced, or its session may be gone.
        if not isinstance(problem, str) or state.registry.find(function.namespace, function.id) is not function:
            return
        successor = state.registry.remove(function.namespace, function.id, session)
        reject_function(state, session, known_id, "", problem)
        log_takeovers(state, session, [successor] if successor is not None else [])
        state.function_changes.check(now)

    calls.call_for_engine(state, check, to_json(delegated.description(function)), answered)


def _relay_text(session: WorkerSession, fields: Mapping[str, JsonValue], key: str) -> str | None:
    """Return what a relay says of the function that it passes calls on to. Other workers have no say in it."""
    value = fields.get(key) if session.relays else None
    return value if isinstance(value, str) else None


def _read_metadata(metadata: Raw) -> tuple[Raw, Mapping[str, JsonValue]]:
    """Return a function's metadata, and its fields.

    Lists show the metadata to other workers, so metadata that cannot be decoded is replaced by the problem.
    """
    if not is_given(metadata):
        return ABSENT, {}
    try:
        value = from_json(bytes(metadata))
    except ValueError as problem:
        return Raw(to_json({"undecodable": str(problem)})), {}
    return metadata, value if isinstance(value, dict) else {}


def unregister_function(state: State, session: WorkerSession, message: UnregisterFunction, now: float) -> None:
    """Remove a session's function. Calls under way go on."""
    successor = state.registry.remove(session.namespace, message.id, session)
    log_takeovers(state, session, [successor] if successor is not None else [])


def log_takeovers(state: State, former: WorkerSession, successors: list[Function]) -> None:
    """Log the standbys that took over the functions of a session."""
    for function in successors:
        assert function.owner is not None
        text = (
            f"{function.owner.label} now serves {function.id}, for which it stood by: {former.label} has let go of it"
        )
        fields = {"session": function.owner.id, "function": function.id}
        state.emit(Log(logging.INFO, text, fields, peer_controlled=True))


def reject_function(state: State, session: WorkerSession, function_id: str, owner: str, why: str) -> None:
    """Refuse to register a function. SDKs know one code for every cause, and only ours are sent the cause too."""
    reason = why if FEATURE in session.features else None
    rejection = RegistrationRejected(
        Rejection.FUNCTION, session.namespace, owner, function_id=function_id, reason=reason
    )
    state.emit(Send(session.id, encode(rejection)))
    text = f"{session.label} may not register {function_id}: {why}"
    fields = {"session": session.id, "function": function_id}
    # A relay stands by for every function that this engine has too, which is as it should be.
    level = logging.DEBUG if session.relays and owner else logging.WARNING
    state.emit(Log(level, text, fields, peer_controlled=True))
