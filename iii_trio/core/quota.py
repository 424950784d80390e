"""What one session may register: how many functions, trigger types and bindings, and how many bytes of them in all.

Registrations are kept for as long as their session lives, so without a bound one worker could fill the engine's memory.
Sessions in the engine's own process have none: they are part of the program that holds the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from ..wire import RegisterFunction, RegisterTrigger, RegisterTriggerType

if TYPE_CHECKING:
    from .hub import Hub
    from .session import Session

_OVERHEAD = 512
"""Bytes that the engine's own records of a registration take, roughly."""


def detach(message: object) -> int:
    """Let go of the text that a registration was read from, which may be larger than it; the bytes that it takes.

    Payloads are views of that text until they are copied.
    """
    size = _OVERHEAD
    for name in message.__struct_fields__:  # type: ignore[attr-defined]
        value = getattr(message, name)
        if isinstance(value, Raw):
            setattr(message, name, value.copy())
        if isinstance(value, Raw | str):
            size += len(value)
    return size


def size_of(message: RegisterFunction | RegisterTriggerType | RegisterTrigger) -> int:
    """The bytes that a registration takes, as its sender wrote it."""
    values = (getattr(message, name) for name in message.__struct_fields__)
    return _OVERHEAD + sum(len(value) for value in values if isinstance(value, Raw | str))


def held_back_too_much(hub: Hub, session: Session, size: int) -> str | None:
    """Why one more registration of this size cannot wait for the session's namespace; None if it can."""
    limits = hub.config.limits
    if session.in_process:
        return None
    if len(session.held_back) >= limits.held_back_registrations:
        return (
            f"more than {limits.held_back_registrations} registrations before engine::workers::register "
            "(limits.held_back_registrations)"
        )
    return _too_many_bytes(hub, session, size)


def no_room(hub: Hub, session: Session, kind: str, held: int, most: int, size: int) -> str | None:
    """Why a session may not register one `kind` more, where it has `held` of `most`; None if it may.

    `size` is what its registrations would grow by.
    """
    if session.in_process:
        return None
    if held >= most:
        return f"it has {held} {kind}, as many as one worker may (limits.{kind.replace(' ', '_')}_per_session)"
    return _too_many_bytes(hub, session, size)


def _too_many_bytes(hub: Hub, session: Session, size: int) -> str | None:
    most = hub.config.limits.registration_bytes
    if session.registration_bytes + size <= most:
        return None
    return f"its registrations would take more than {most} bytes (limits.registration_bytes)"
