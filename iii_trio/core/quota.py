"""The bounds on one session's registrations, by number and by bytes.

Registrations live as long as their session, so without a bound one worker could fill the engine's memory. Sessions in the
engine's own process have no bounds, because they are part of the embedding program.
"""

from __future__ import annotations

from typing import Final, Protocol

from msgspec import Raw

from ..config import Limits
from ..wire import RegisterFunction, RegisterTrigger, RegisterTriggerType
from .session import WorkerSession

_OVERHEAD: Final = 512
"""The approximate size in bytes of the engine's own record of a registration."""


class Registration(Protocol):
    """A registration that the engine keeps."""

    size: int


def detach(message: object) -> int:
    """Copy a registration's payloads and return its size in bytes.

    Until then payloads are views that keep alive the whole text in which the registration arrived.
    """
    size = _OVERHEAD
    for name in message.__struct_fields__:  # type: ignore[attr-defined]
        value = getattr(message, name)
        # A text is a copy already, but a payload is a view.
        if isinstance(value, Raw):
            setattr(message, name, value.copy())
        if isinstance(value, Raw | str):
            size += len(value)
    return size


def size_of(message: RegisterFunction | RegisterTriggerType | RegisterTrigger) -> int:
    """Return the size of a registration in bytes, as its sender wrote it."""
    values = (getattr(message, name) for name in message.__struct_fields__)
    return _OVERHEAD + sum(len(value) for value in values if isinstance(value, Raw | str))


def why_not_deferred(limits: Limits, session: WorkerSession, size: int) -> str | None:
    """Return why a registration of this size cannot wait for the session's namespace, or None if it can."""
    if session.in_process:
        return None
    # A worker may register before it declares its namespace, but not without end.
    if len(session.deferred_registrations) >= limits.held_back_registrations:
        return (
            f"more than {limits.held_back_registrations} registrations before engine::workers::register "
            "(limits.held_back_registrations)"
        )
    return _too_many_bytes(limits, session, size)


def why_not_held(limits: Limits, session: WorkerSession, size: int) -> str | None:
    """Return why a message of this size cannot wait for an auth function or a hook, or None if it can."""
    if session.held is not None and len(session.held) >= limits.held_back_registrations:
        return (
            f"more than {limits.held_back_registrations} messages wait for its access rules "
            "(limits.held_back_registrations)"
        )
    if session.held_bytes + size > limits.registration_bytes:
        return f"more than {limits.registration_bytes} bytes wait for its access rules (limits.registration_bytes)"
    return None


def why_no_room(
    limits: Limits,
    session: WorkerSession,
    kind: str,
    held: int,
    max_held: int,
    size: int,
    replaced: Registration | None,
) -> str | None:
    """Return why a session with `held` registrations of this kind may not add one of `size` bytes, or None if it may.

    `replaced` is the session's own registration that the new one takes the place of, and that takes no room any more.
    """
    if session.in_process:
        return None
    growth = size
    if replaced is not None:
        held -= 1
        growth -= replaced.size
    if held >= max_held:
        return f"it has {held} {kind}, as many as one worker may (limits.{kind.replace(' ', '_')}_per_session)"
    return _too_many_bytes(limits, session, growth)


def why_too_many_listeners(limits: Limits, held: int) -> str | None:
    """Return why there may be no more than `held` bindings to one event of the engine, or None if there may.

    Each event is a call for each binding, so that another worker's coming and going would cost too much.
    """
    if held < limits.event_bindings_per_session:
        return None
    return f"there are {held} bindings to this event, as many as there may be (limits.event_bindings_per_session)"


def _too_many_bytes(limits: Limits, session: WorkerSession, growth: int) -> str | None:
    max_bytes = limits.registration_bytes
    if session.registration_bytes + growth <= max_bytes:
        return None
    return f"its registrations would take more than {max_bytes} bytes (limits.registration_bytes)"
