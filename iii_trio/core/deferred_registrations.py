"""Handlers of registrations, which are deferred until the session's namespace is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ..wire import (
    Close,
    Message,
    RegisterFunction,
    RegisterService,
    RegisterTrigger,
    RegisterTriggerType,
    UnregisterFunction,
    UnregisterTrigger,
    UnregisterTriggerType,
)
from . import engine_events, faults, guarded, registration, trigger_handlers
from .quota import detach, why_not_deferred
from .session import SessionState, WorkerSession
from .sessions import close_session
from .state import State


def ignore(state: State, session: WorkerSession, message: object, now: float) -> None:
    """Ignore a message that has no meaning here."""


_HANDLERS: Final[Mapping[type, Callable[[State, WorkerSession, Any, float], None]]] = {
    RegisterFunction: registration.register_function,
    UnregisterFunction: registration.unregister_function,
    RegisterService: ignore,
    RegisterTrigger: trigger_handlers.register,
    UnregisterTrigger: trigger_handlers.unregister,
    RegisterTriggerType: trigger_handlers.register_type,
    UnregisterTriggerType: trigger_handlers.unregister_type,
}
REGISTRATIONS: Final = frozenset(_HANDLERS)
"""The types of the messages that are registrations."""


def register(state: State, session: WorkerSession, message: Message, now: float) -> None:
    """Apply a registration, or defer it if the session's namespace is not known yet."""
    size = detach(message)
    if session.state.current is not SessionState.UNNAMED:
        if session.access is None or not guarded.register(state, session, session.access, message, now):
            _HANDLERS[type(message)](state, session, message, now)
        engine_events.check_for_changes(state, now)
        return
    full = why_not_deferred(state.config.limits, session, size)
    # More registrations than can wait are not those of an honest worker, so the session ends.
    if full is not None:
        close_session(state, session, Close.POLICY_VIOLATION, full, now)
        return
    session.deferred_registrations.append(message)
    session.registration_bytes += size


def apply_deferred(state: State, session: WorkerSession, now: float) -> None:
    """Apply a session's deferred registrations in order, once its namespace is known."""
    deferred, session.deferred_registrations = session.deferred_registrations, []
    session.registration_bytes = 0  # none of them has been counted as in force
    for message in deferred:
        # A hook of an earlier registration has not answered yet.
        if session.held is not None:
            session.held.append((message, 0))
            continue
        # An error ends only the registration that caused it. The others and the register call go on.
        try:
            register(state, session, message, now)
        except Exception as error:
            faults.contain(state, session, message, error)
