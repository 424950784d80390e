"""Who a session is, and what it offers: names, namespaces, functions, coming back."""

from __future__ import annotations

import hmac
import logging
from typing import TYPE_CHECKING, Any, Final

import attrs

from ..errors import CallError
from ..structure import BadShape, structure
from ..wire import (
    DEFAULT_NAMESPACE,
    FEATURE,
    Close,
    ErrorCode,
    JsonValue,
    Message,
    Reattach,
    RegisterFunction,
    RegistrationRejected,
    Rejection,
    UnregisterFunction,
    encode,
)
from .calls import bad_input
from .effects import Effects, Log, Send
from .quota import detach, held_back_too_much, no_room, size_of
from .registry import Asked, Function
from .session import Session, SessionEvent, SessionState, WorkerInfo, sanitised

if TYPE_CHECKING:
    from .hub import Hub


def same(a: str, b: str) -> bool:
    """Compare secrets in constant time."""
    return hmac.compare_digest(a.encode(), b.encode())


@attrs.frozen
class RegisterInput:
    """The payload of `engine::workers::register`."""

    runtime: str = "unknown"
    version: str | None = None
    name: str | None = None
    description: str | None = None
    os: str | None = None
    pid: int | None = None
    isolation: str | None = None
    namespace: str | None = None
    features: list[str] | None = None


def register_worker(hub: Hub, asked: Asked) -> object:
    """`engine::workers::register`: a session says who it is; what it registered before now takes effect."""
    session = asked.session
    try:
        said = structure(_without_nulls(asked.given), RegisterInput)
    except BadShape as problem:
        raise bad_input("engine::workers::register", str(problem)) from None
    if said.pid is not None and not 0 <= said.pid < 2**32:
        raise bad_input("engine::workers::register", "pid: expected a number from 0 to 4294967295")
    if said.namespace is not None and not said.namespace.strip():
        raise CallError(
            ErrorCode.INVALID_NAMESPACE,
            f"namespace is empty: worker '{said.name}' declared \"{said.namespace}\". "
            "Give it a name, or omit the field to register in 'default'.",
        )
    name = sanitised(said.name)
    session.features = frozenset(said.features or ())
    fixed = session.state.current is not SessionState.UNNAMED
    namespace = session.namespace if fixed else said.namespace or DEFAULT_NAMESPACE
    if fixed and said.namespace is not None and said.namespace != session.namespace:
        text = f"{session.label} names its namespace too late: it stays '{session.namespace}'"
        hub.also([Log(logging.WARNING, text, {"session": session.id}, peer_controlled=True)])
    holder = hub.registry.claim_name(namespace, name, session) if name is not None else None
    if name is not None and holder is not None:
        later = hub.newcomers.wait(asked, holder)
        if later is not None:
            return later
        _reject_worker(hub, session, namespace, name, holder, asked.now)
        return {"success": False}
    if name is None:
        hub.registry.release_name(session)
    session.info = WorkerInfo(
        said.runtime, said.version, name, sanitised(said.description), said.os, said.pid, said.isolation
    )
    session.namespace = namespace
    session.state.advance(SessionEvent.NAMED)
    _release_held_back(hub, session, asked.now)
    text = f"{session.label} serves in namespace '{namespace}'"
    hub.also([Log(session.notable, text, {"session": session.id, "namespace": namespace}, peer_controlled=fixed)])
    hub.also(hub.announcements.worker("worker_metadata_updated", session.id))
    return {"success": True}


def waited_long_enough(hub: Hub, session: Session, now: float) -> Effects:
    """The grace is over: registrations go to the default namespace."""
    session.state.advance(SessionEvent.WAITED_LONG_ENOUGH)
    if session.held_back:
        text = f"{session.label} did not name its namespace in time: '{DEFAULT_NAMESPACE}' it is"
        hub.also([Log(logging.WARNING, text, {"session": session.id})])
    _release_held_back(hub, session, now)
    return hub.take_effects()


def register_function(hub: Hub, session: Session, message: RegisterFunction, now: float) -> Effects:
    """A session offers a function, or describes one of its own anew."""
    over_http = bytes(message.invocation) not in (b"", b"null")
    reserved = message.id.startswith("engine::") and session.namespace != DEFAULT_NAMESPACE
    taken = hub.registry.find(session.namespace, message.id)
    ours = taken is not None and taken.owner is None
    if reserved or ours:
        return _reject_function(session, message.id, "", "the id is the engine's own")
    if taken is not None and taken.owner is not None and taken.owner is not session:
        return _reject_function(session, message.id, taken.owner.id, f"worker {taken.owner.id} has it")
    size, mine = size_of(message), taken is not None and taken.owner is session
    held = len(session.functions) - mine
    grows = size - (taken.size if mine and taken is not None else 0)
    full = no_room(hub, session, "functions", held, hub.config.limits.functions_per_session, grows)
    if full is not None:
        return _reject_function(session, message.id, "", full)
    hub.registry.add(
        Function(
            namespace=session.namespace,
            id=message.id,
            owner=session,
            builtin=_refuse_over_http if over_http else None,
            description=message.description,
            request_format=message.request_format,
            response_format=message.response_format,
            metadata=message.metadata,
            size=size,
        )
    )
    if over_http:
        text = f"{session.label} registered {message.id}, calls of which are refused: {_OVER_HTTP}"
        return [Log(logging.WARNING, text, {"session": session.id, "function": message.id}, peer_controlled=True)]
    return []


def unregister_function(hub: Hub, session: Session, message: UnregisterFunction, now: float) -> Effects:
    """A session withdraws a function; calls under way go on."""
    hub.registry.remove(session.namespace, message.id, session)
    return []


def reattach(hub: Hub, session: Session, message: Reattach, now: float) -> Effects:
    """A worker is back: its old connection is retired before anything else of the new one is read."""
    token = message.reattach_token or ""
    old = hub.sessions.get(message.previous_worker_id)
    effects: Effects = []
    if old is not None and old is not session and same(token, old.reattach_token):
        reason = f"it came back as {session.id}"
        effects += hub.send_away(old, Close.EVICTED, reason, now, may_come_back=True)
    back = hub.absences.end(message.previous_worker_id, token, session)
    if back is not None:
        lost, news = back
        text = f"{lost.label} is back as {session.id}: {len(session.owned)} channels of its own waited for it"
        about = {"session": session.id, "previous": lost.id}
        return [*effects, *news, Log(logging.INFO, text, about)]
    if not effects:
        text = f"{session.label} comes back as one that is gone already, or has another token: it is new"
        about = {"session": session.id, "previous": message.previous_worker_id}
        return [Log(logging.DEBUG, text, about, peer_controlled=True)]
    return effects


def hold_back(hub: Hub, session: Session, message: Message, now: float) -> Effects:
    """A registration waits until the session's namespace is known. Who says more than can wait is sent away."""
    size = detach(message)
    full = held_back_too_much(hub, session, size)
    if full is None:
        session.held_back.append(message)
        session.registration_bytes += size
        return []
    return hub.send_away(session, Close.POLICY_VIOLATION, full, now)


def _release_held_back(hub: Hub, session: Session, now: float) -> None:
    waiting, session.held_back = session.held_back, []
    session.registration_bytes = 0  # nothing was in force yet
    for message in waiting:
        hub.also(hub.handle(session, message, now))


def _reject_worker(hub: Hub, session: Session, namespace: str, name: str, holder: Session, now: float) -> None:
    """Refuse a worker for good: it is told, answered, hung up on, and gone at once, so that nothing of it stays."""
    rejection = RegistrationRejected(Rejection.WORKER, namespace, holder.id, worker_name=name)
    text = f"worker {session.id} was refused: {holder.label} has the name '{name}' in namespace '{namespace}'"
    reason = "another worker has this name"
    hub.also([Send(session.id, encode(rejection)), Log(logging.WARNING, text, {"session": session.id})])
    hub.last(hub.send_away(session, Close.NORMAL, reason, now))


_OVER_HTTP: Final = "it is to be invoked over HTTP, for which this engine has no module"


def _refuse_over_http(hub: Hub, asked: Asked) -> object:
    raise CallError(ErrorCode.FUNCTION_NOT_INVOKABLE, f"The function cannot be invoked: {_OVER_HTTP}")


def _reject_function(session: Session, function_id: str, owner: str, why: str) -> Effects:
    """Refuse a function. SDKs know one code for that, whatever the cause; ours are told the cause, too."""
    reason = why if FEATURE in session.features else None
    rejection = RegistrationRejected(
        Rejection.FUNCTION, session.namespace, owner, function_id=function_id, reason=reason
    )
    text = f"{session.label} may not register {function_id}: {why}"
    about = {"session": session.id, "function": function_id}
    return [Send(session.id, encode(rejection)), Log(logging.WARNING, text, about, peer_controlled=True)]


def _without_nulls(given: JsonValue) -> Any:
    """A null is an absent field."""
    return {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else given
