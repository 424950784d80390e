"""Start and end sessions."""

from __future__ import annotations

import logging

from ..wire import FEATURE, WorkerRegistered, encode
from . import calls, engine_events
from .access import Access
from .effects import HangUp, Log, ReleaseEnds, Send
from .registration import log_takeovers
from .session import SessionEvent, SessionState, WorkerSession
from .state import State


def start_session(
    state: State,
    now: float,
    now_ms: int,
    *,
    peer: str | None,
    in_process: bool,
    max_channels: int | None,
    internal: bool,
    access: Access | None = None,
) -> WorkerSession:
    """Add a session for a new connection. Its worker is greeted, unless an auth function has to admit it first."""
    session = WorkerSession(
        id=state.new_id(),
        reattach_token=state.new_secret(),
        channel_secret=state.new_secret(),
        connected_at=now,
        connected_at_ms=now_ms,
        peer=peer,
        in_process=in_process,
        max_channels=max_channels,
        internal=internal,
        access=access,
    )
    state.sessions[session.id] = session
    state.calls.add_session(session)
    state.internal_sessions += internal
    state.call_counts.sessions_started += not internal
    if access is not None and access.auth_function is not None:
        session.state.advance(SessionEvent.AUTH_REQUIRED)
    else:
        greet(state, session, now)
    return session


def greet(state: State, session: WorkerSession, now: float) -> None:
    """Send a session its id and secrets. From now on its worker counts as connected."""
    state.start_grace(session, now + state.config.timeouts.registration_grace_seconds)
    greeting = WorkerRegistered(session.id, session.reattach_token, (FEATURE,), session.channel_secret)
    state.emit(Send(session.id, encode(greeting)))
    text = f"worker {session.id} connected"
    state.emit(Log(logging.DEBUG, text, {"session": session.id, "peer": session.peer or ""}))
    engine_events.worker_event(state, "worker_connected", session.id)


def end_session(
    state: State,
    session: WorkerSession,
    reason: str,
    now: float,
    *,
    may_come_back: bool = False,
    left: bool = False,
) -> None:
    """End a session in one step and in the order of clause C4.5, because its link is over. The second time does nothing.

    `may_come_back` says that the link was lost. If a grace is configured, its channels then wait (clause C4.6).
    `left` says that the worker ended the session on purpose, so that no call caused its end.
    """
    if session.state.is_final:
        return
    admitted = session.state.current is not SessionState.PENDING_AUTH
    session.state.advance(SessionEvent.LEFT)
    del state.sessions[session.id]
    state.internal_sessions -= session.internal
    state.call_counts.sessions_ended += not session.internal
    session.deferred_registrations.clear()
    session.held, session.held_bytes = None, 0
    waiting = state.engine_calls.remove(session)
    if waiting is not None and waiting.call is not None:
        calls.give_up(state, waiting.call, f"{session.label} is gone: {reason}")
    cause = f"{session.label} is gone: {reason}"
    grace = state.config.timeouts.reattach_grace_seconds
    # A worker that left on purpose does not come back for its channels.
    if may_come_back and grace:
        state.lost_sessions.add(session, cause, now + grace)
    else:
        state.channels.session_ended(session, cause, now)
    # They do not wait for the worker to come back: their engine knows this one's link only.
    if session.held_elsewhere:
        state.emit(ReleaseEnds(session.id, cause))
        state.ends_elsewhere.session_ended(session)
    calls.session_ended(state, session, reason, left=left)
    state.function_changes.lost(session.bindings)
    state.triggers.session_ended(session)
    log_takeovers(state, session, state.registry.remove_all_of(session))
    state.triggers.types_released(session)
    if admitted:
        engine_events.worker_event(state, "worker_disconnected", session.id)
    engine_events.check_for_changes(state, now)
    state.emit(Log(session.log_level, cause, {"session": session.id}))


def close_session(
    state: State, session: WorkerSession, code: int, reason: str, now: float, *, may_come_back: bool = False
) -> None:
    """End a session from the engine's side. Its calls are answered and its link is closed with the reason."""
    if session.state.is_final:
        return
    calls.before_close(state, session, reason)
    state.emit(HangUp(session.id, code, reason))
    end_session(state, session, reason, now, may_come_back=may_come_back)
