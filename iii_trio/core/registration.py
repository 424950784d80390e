"""Handlers of the registration of functions."""

from __future__ import annotations

import logging
from typing import Final

from msgspec import Raw

from ..wire import (
    ABSENT,
    DEFAULT_NAMESPACE,
    FEATURE,
    RegisterFunction,
    RegistrationRejected,
    Rejection,
    UnregisterFunction,
    encode,
    from_json,
    to_json,
)
from .effects import Log, Send
from .quota import size_of, why_no_room
from .registry import Function
from .session import WorkerSession
from .state import State

OVER_HTTP: Final = "it is to be invoked over HTTP, for which this engine has no module"


def register_function(
    state: State, session: WorkerSession, message: RegisterFunction, now: float, local_id: str | None = None
) -> None:
    """Register a session's function, or describe one of its own again.

    `local_id` is the id that the session knows, if access rules have given the function another one.
    """
    known_id = local_id or message.id
    over_http = bytes(message.invocation) not in (b"", b"null")
    reserved = message.id.startswith("engine::") and session.namespace != DEFAULT_NAMESPACE
    earlier = state.registry.find(session.namespace, message.id)
    if reserved or (earlier is not None and earlier.owner is None):
        reject_function(state, session, known_id, "", "the id is the engine's own")
        return
    holder = earlier.owner if earlier is not None and earlier.owner is not session else None
    own = earlier if holder is None else None  # it is replaced by the new description
    size = size_of(message)
    held = len(session.functions) + len(session.standbys) - (own is not None)
    growth = size - (own.size if own is not None else 0)
    limits = state.config.limits
    full = why_no_room(limits, session, "functions", held, limits.functions_per_session, growth)
    if full is not None:
        why = full if holder is None else f"worker {holder.id} has it, and this one may not stand by: {full}"
        reject_function(state, session, known_id, "" if holder is None else holder.id, why)
        return
    metadata, marked_internal = _read_metadata(message.metadata)
    function = Function(
        namespace=session.namespace,
        id=message.id,
        owner=session,
        description=message.description,
        request_format=message.request_format,
        response_format=message.response_format,
        metadata=metadata,
        marked_internal=marked_internal,
        over_http=over_http,
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
    if over_http:
        text = f"{session.label} registered {message.id}, calls of which are refused: {OVER_HTTP}"
        fields = {"session": session.id, "function": message.id}
        state.emit(Log(logging.WARNING, text, fields, peer_controlled=True))


def _read_metadata(metadata: Raw) -> tuple[Raw, bool]:
    """Return a function's metadata, and whether it marks the function as internal.

    Lists show the metadata to other workers, so metadata that cannot be decoded is replaced by the problem.
    """
    if bytes(metadata) in (b"", b"null"):
        return ABSENT, False
    try:
        value = from_json(bytes(metadata))
    except ValueError as problem:
        return Raw(to_json({"undecodable": str(problem)})), False
    return metadata, isinstance(value, dict) and value.get("internal") is True


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
    state.emit(Log(logging.WARNING, text, fields, peer_controlled=True))
