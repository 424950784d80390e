"""The engine's own functions (`engine::*`), answered from the ledgers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from ..structure import BadShape, structure
from ..wire import DEFAULT_NAMESPACE, Direction, JsonValue
from .calls import bad_input
from .registration import register_worker
from .registry import Builtin, Function
from .session import Session

if TYPE_CHECKING:
    from .hub import Hub


@attrs.frozen
class CreateChannelInput:
    """The payload of `engine::channels::create` (clause C8.4 for the last two)."""

    buffer_size: int | None = None
    max_bytes: int | None = None
    expires_after_ms: float | None = attrs.field(default=None)


def create_channel(hub: Hub, session: Session, given: JsonValue, now: float) -> JsonValue:
    """`engine::channels::create`: the refs of a new channel, owned by the caller."""
    name = "engine::channels::create"
    try:
        wanted = structure(given, CreateChannelInput)
    except BadShape as problem:
        raise bad_input(name, str(problem)) from None
    for field, least in (("buffer_size", 0), ("max_bytes", 1), ("expires_after_ms", 1)):
        value = getattr(wanted, field)
        if value is not None and value < least:
            raise bad_input(name, f"{field}: must be at least {least}, got {value}")
    expires = hub.config.channels.expires_after_seconds
    if isinstance(given, dict) and "expires_after_ms" in given:
        expires = None if wanted.expires_after_ms is None else wanted.expires_after_ms / 1000
    channel = hub.channels.create(
        session,
        now,
        buffer_size=wanted.buffer_size,
        max_bytes=wanted.max_bytes,
        expires_after_seconds=expires,
    )
    return {
        "writer": channel.ref(Direction.WRITE).to_json(),
        "reader": channel.ref(Direction.READ).to_json(),
    }


def _log(hub: Hub, session: Session, given: JsonValue, now: float) -> JsonValue:
    return None


BUILTINS: Final[dict[str, tuple[Builtin, str]]] = {
    "engine::channels::create": (create_channel, "make a channel: the refs of its two ends"),
    "engine::workers::register": (register_worker, "say who this worker is"),
    **{
        f"engine::log::{level}": (_log, f"accept a log line of level {level}")
        for level in ("info", "warn", "error", "debug", "trace")
    },
}


def register_builtins(hub: Hub) -> None:
    """Put the engine's own functions into its registry."""
    for function_id, (builtin, description) in BUILTINS.items():
        hub.registry.add(
            Function(DEFAULT_NAMESPACE, function_id, owner=None, builtin=builtin, description=description)
        )
