"""Handlers for a worker's name and namespace, and for its return after a lost connection."""

from __future__ import annotations

import logging
from typing import Any, Final

from ..errors import CallError
from ..structure import BadShape, structure
from ..wire import (
    DEFAULT_NAMESPACE,
    RELAY,
    Close,
    ErrorCode,
    JsonValue,
    Reattach,
    RegistrationRejected,
    Rejection,
    bad_input,
    check_name,
    encode,
)
from . import engine_events, faults
from .access import Access
from .deferred_registrations import apply_deferred
from .effects import AskSignOfLife, AskUnreadInput, Log, Send
from .name_waiters import NameWaiter
from .request import Request
from .session import SessionEvent, SessionState, WorkerSession, same_secret, sanitised
from .sessions import close_session
from .state import State
from .worker_info import RegisterInput, WorkerInfo

_TAKEN: Final = "another worker has this name"


def register_worker(state: State, request: Request) -> None:
    """Name a session, and apply its deferred registrations (`engine::workers::register`)."""
    _register(state, request, final_attempt=False)


def _register(state: State, request: Request, *, final_attempt: bool) -> None:
    session, now = request.session, request.now
    params = _read_input(request.payload)
    name = sanitised(params.name)
    session.features = frozenset(params.features or ())
    # A guarded session could write the ids of other callers.
    session.relays = RELAY in session.features and session.access is None
    # The namespace can be declared once. After that, or after the grace, it stays.
    fixed = session.state.current is not SessionState.UNNAMED
    namespace = session.namespace if fixed else params.namespace or DEFAULT_NAMESPACE
    if session.access is not None and params.namespace is not None and not session.access.allows_namespace(namespace):
        _refuse_namespace(request, session.access, namespace)
        close_session(state, session, Close.POLICY_VIOLATION, f"namespace '{namespace}' not allowed", now)
        return
    if name is not None:
        # A relay has no name of its own. It may ask in this way whether the holder of one is alive.
        ask = state.registry.worker(namespace, name) if session.relays else None
        holder = ask if session.relays else state.registry.claim_name(namespace, name, session)
        if holder is not None and final_attempt:
            _reject(state, request, namespace, name, holder)
            return
        if holder is not None:
            # The holder may have left already, if its Close was not read yet. Only the shell knows.
            state.name_waiters.add(request, holder)
            state.emit(AskUnreadInput(holder.id))
            return
    else:
        # A worker that describes itself again without a name gives the name up.
        state.registry.release_name(session)
    if fixed and params.namespace is not None and params.namespace != session.namespace:
        text = f"{session.label} names its namespace too late: it stays '{session.namespace}'"
        state.emit(Log(logging.WARNING, text, {"session": session.id}, peer_controlled=True))
    session.info = WorkerInfo(
        params.runtime,
        params.version,
        name,
        sanitised(params.description),
        params.os,
        params.pid,
        params.isolation,
    )
    session.namespace = namespace
    session.state.advance(SessionEvent.NAMED)
    apply_deferred(state, session, now)
    text = f"{session.label} serves in namespace '{namespace}'"
    fields = {"session": session.id, "namespace": namespace}
    state.emit(Log(session.log_level, text, fields, peer_controlled=fixed))
    engine_events.worker_event(state, "worker_metadata_updated", session.id)
    request.reply({"success": True})


def _refuse_namespace(request: Request, access: Access, namespace: str) -> None:
    """Refuse a namespace. The session ends, because its functions would otherwise be put into another one."""
    permitted = ", ".join(sorted(access.grants.namespaces))
    text = f"namespace '{namespace}' not allowed for this session (permitted: {permitted})"
    request.fail(CallError(ErrorCode.FORBIDDEN, text))


def _read_input(payload: JsonValue) -> RegisterInput:
    try:
        params = structure(_without_nulls(payload), RegisterInput)
    except BadShape as problem:
        raise bad_input("engine::workers::register", str(problem)) from None
    for field in ("name", "namespace"):
        check_name("engine::workers::register", field, getattr(params, field))
    # Other engines hold the process id in 32 bits and refuse the message otherwise.
    if params.pid is not None and not 0 <= params.pid < 2**32:
        raise bad_input("engine::workers::register", "pid: expected a number from 0 to 4294967295")
    if params.namespace is not None and not params.namespace.strip():
        raise CallError(
            ErrorCode.INVALID_NAMESPACE,
            f"namespace is empty: worker '{params.name}' declared \"{params.namespace}\". "
            "Give it a name, or omit the field to register in 'default'.",
        )
    return params


def _without_nulls(payload: JsonValue) -> Any:
    """Drop the fields that are null, which count as absent."""
    return {key: value for key, value in payload.items() if value is not None} if isinstance(payload, dict) else payload


def _reject(state: State, request: Request, namespace: str, name: str, holder: WorkerSession) -> None:
    """Refuse a worker for good. Its session is closed at once, so that nothing of it stays."""
    _say_rejected(state, request.session, (namespace, name), holder.id, holder.label)
    request.reply({"success": False})
    close_session(state, request.session, Close.NORMAL, _TAKEN, request.now)


def refuse_name(state: State, namespace: str, name: str, holder_id: str, node: str, now: float) -> None:
    """Refuse the worker that has a name here for good, because a worker of another engine had it before."""
    session = state.registry.worker(namespace, name)
    # It may have left, and a module's worker is no other engine's concern.
    if session is not None and not session.internal:
        _say_rejected(state, session, (namespace, name), holder_id, f"worker {holder_id} at node {node}")
        close_session(state, session, Close.NORMAL, _TAKEN, now)


def _say_rejected(state: State, session: WorkerSession, name: tuple[str, str], holder_id: str, holder: str) -> None:
    rejection = RegistrationRejected(Rejection.WORKER, name[0], holder_id, worker_name=name[1])
    state.emit(Send(session.id, encode(rejection)))
    text = f"worker {session.id} was refused: {holder} has the name '{name[1]}' in namespace '{name[0]}'"
    state.emit(Log(logging.WARNING, text, {"session": session.id}))


# --- waiting for a name


def unread_input_known(state: State, session_id: str, has_unread_input: bool, now: float) -> None:
    """Decide on the workers that wait for the name of this session.

    They go on waiting if it has unread input, because its Close may be in it. Otherwise it is pinged (promise R5).
    """
    if state.name_waiters.input_known(session_id, has_unread_input):
        state.emit(AskSignOfLife(session_id, state.config.timeouts.name_challenge_seconds))


def sign_of_life_known(state: State, session_id: str, is_alive: bool, now: float) -> None:
    """Refuse the workers that claim the name of a session that is alive (R6). Disconnect one that is not (R7)."""
    holder = state.sessions.get(session_id)
    if is_alive:
        _retry(state, state.name_waiters.take_refused(session_id), now, final_attempt=True)
    elif holder is not None and state.name_waiters.is_claimed(session_id):
        # Its link may come back to life, so its channels wait for it as after any loss.
        reason = "another worker claims its name, and it shows no sign of life"
        close_session(state, holder, Close.EVICTED, reason, now, may_come_back=True)
    else:
        # The workers that waited have left.
        state.name_waiters.take_refused(session_id)


def retry_name_waiters(state: State, now: float) -> None:
    """Register the workers that waited for a name, oldest first, if the name has become free."""
    # A worker that is refused here may hold a name for which others wait, so look again until none is left.
    while state.name_waiters.waiting and (freed := state.name_waiters.take_freed()):
        _retry(state, freed, now, final_attempt=False)


def expire_name_waiters(state: State, now: float) -> None:
    """Ping the holders that had unread input and did not leave in time (promise R8)."""
    for holder in state.name_waiters.did_not_leave(now):
        state.emit(AskSignOfLife(holder.id, state.config.timeouts.name_challenge_seconds))


def _retry(state: State, waiters: list[NameWaiter], now: float, *, final_attempt: bool) -> None:
    for waiter in waiters:
        request = waiter.request
        # A worker that has left needs no name.
        if request.session.state.is_final:
            continue
        request.now = now
        try:
            _register(state, request, final_attempt=final_attempt)
        except CallError as error:
            request.fail(error)
        except Exception as error:
            faults.fail_request(state, request, error)


# --- the namespace, and the return of a worker


def expire_grace(state: State, now: float) -> None:
    """Put the sessions that did not declare a namespace in time into the default one."""
    while (session := state.take_late_session(now)) is not None:
        session.state.advance(SessionEvent.WAITED_LONG_ENOUGH)
        if session.deferred_registrations:
            text = f"{session.label} did not name its namespace in time: '{DEFAULT_NAMESPACE}' it is"
            state.emit(Log(logging.WARNING, text, {"session": session.id}))
        apply_deferred(state, session, now)


def reattach(state: State, session: WorkerSession, message: Reattach, now: float) -> None:
    """Let a session succeed an earlier one of the same worker, before anything else of it is read."""
    token = message.reattach_token or ""
    previous = state.sessions.get(message.previous_worker_id)
    evicted = previous is not None and previous is not session and same_secret(token, previous.reattach_token)
    if evicted and previous is not None:
        # The engine has not noticed yet that the earlier connection is gone.
        reason = f"it came back as {session.id}"
        close_session(state, previous, Close.EVICTED, reason, now, may_come_back=True)
    lost = state.lost_sessions.reattach(message.previous_worker_id, token, session)
    if lost is not None:
        text = f"{lost.label} is back as {session.id}: {len(session.owned)} channels of its own waited for it"
        state.emit(Log(logging.INFO, text, {"session": session.id, "previous": lost.id}))
    elif not evicted:
        text = f"{session.label} comes back as one that is gone already, or has another token: it is new"
        fields = {"session": session.id, "previous": message.previous_worker_id}
        state.emit(Log(logging.DEBUG, text, fields, peer_controlled=True))


def session_by_secret(state: State, worker_id: str, secret: str) -> WorkerSession | None:
    """Return the session that `Iii-Session` names (clause C8.2), or None if the secret is not its own."""
    session = state.sessions.get(worker_id)
    return session if session is not None and same_secret(secret, session.channel_secret) else None
