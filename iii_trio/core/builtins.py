"""The engine's own functions (`engine::*`), and those of them that are about calls and channels."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import attrs

from ..report import visible
from ..wire import DEFAULT_NAMESPACE, Direction, to_json
from .calls import bad_input, read_input
from .durable import register_trigger, unregister_trigger
from .effects import Log
from .introspection import INTROSPECTION
from .registration import register_worker
from .registry import Asked, Builtin, Function

if TYPE_CHECKING:
    from .hub import Hub

# --- channels


@attrs.frozen
class CreateChannelInput:
    """The payload of `engine::channels::create` (clause C8.4 for the last two)."""

    buffer_size: int | None = None
    max_bytes: int | None = None
    expires_after_ms: float | None = None


def create_channel(hub: Hub, asked: Asked) -> object:
    """`engine::channels::create`: the refs of a new channel, owned by the caller."""
    name = "engine::channels::create"
    wanted = read_input(name, asked, CreateChannelInput)
    for field, least in (("buffer_size", 0), ("max_bytes", 1), ("expires_after_ms", 1)):
        value = getattr(wanted, field)
        if value is not None and value < least:
            raise bad_input(name, f"{field}: must be at least {least}, got {value}")
    max_bytes = hub.config.limits.channel_bytes
    if wanted.max_bytes is not None and wanted.max_bytes > max_bytes:
        raise bad_input(name, f"max_bytes: at most {max_bytes} (limits.channel_bytes), got {wanted.max_bytes}")
    hub.check_open()
    expires = hub.config.channels.expires_after_seconds
    if isinstance(asked.given, dict) and "expires_after_ms" in asked.given:
        expires = None if wanted.expires_after_ms is None else wanted.expires_after_ms / 1000
    channel = hub.channels.create(
        asked.session,
        asked.now,
        buffer_size=wanted.buffer_size,
        max_bytes=wanted.max_bytes,
        expires_after_seconds=expires,
    )
    channel.traceparent = asked.traceparent
    return {
        "writer": channel.ref(Direction.WRITE).to_json(),
        "reader": channel.ref(Direction.READ).to_json(),
    }


@attrs.frozen
class NoInput:
    """The payload of functions that need none: any object."""


def list_channels(hub: Hub, asked: Asked) -> object:
    """`engine::channels::list`: every open channel, the oldest first (clause C7.1); never its keys."""
    read_input("engine::channels::list", asked, NoInput)
    return {
        "channels": [
            {
                "id": channel.id,
                "phase": channel.state.current.name.lower(),
                "owner": channel.owner,
                "owner_name": _name_of(hub, channel.owner),
                "writer": channel.writer,
                "writer_name": _name_of(hub, channel.writer),
                "reader": channel.reader,
                "reader_name": _name_of(hub, channel.reader),
                "age_seconds": asked.now - channel.created_at,
                "idle_seconds": asked.now - channel.touched_at,
                "buffer_size": channel.buffer_size,
                "max_bytes": channel.max_bytes,
                "expires_after_seconds": channel.expires_after_seconds,
                "invocations": channel.invocations,
                **hub.look(channel, asked.now),
            }
            for channel in hub.channels
        ]
    }


@attrs.frozen
class ListEndedInput:
    """The payload of `engine::channels::ended`."""

    limit: int | None = None


def list_ended_channels(hub: Hub, asked: Asked) -> object:
    """`engine::channels::ended`: how the last ones ended, the latest first."""
    wanted = read_input("engine::channels::ended", asked, ListEndedInput)
    if wanted.limit is not None and wanted.limit < 0:
        raise bad_input("engine::channels::ended", f"limit: must be at least 0, got {wanted.limit}")
    return {
        "channels": [
            {
                "id": ended.id,
                "outcome": ended.outcome,
                "reason": ended.reason,
                "code": ended.code,
                "owner": ended.owner,
                "lasted_seconds": ended.ended_at - ended.created_at,
                "ended_seconds_ago": asked.now - ended.ended_at,
            }
            for ended in hub.channels.ended()[::-1][: wanted.limit]
        ]
    }


def count_what_is_held(hub: Hub, asked: Asked) -> object:
    """`engine::statistics`: how much the engine holds, this call with it."""
    read_input("engine::statistics", asked, NoInput)
    return dict(hub.count())


def _name_of(hub: Hub, session_id: str | None) -> str | None:
    session = hub.sessions.get(session_id) if session_id is not None else None
    return session.info.name if session is not None else None


# --- baggage and log


def _entries(baggage: str | None) -> dict[str, str]:
    """The entries of a W3C `baggage` header, without their properties."""
    found = {}
    for member in (baggage or "").split(","):
        key, sign, value = member.partition(";")[0].partition("=")
        if sign and key.strip():
            found[key.strip()] = unquote(value.strip())
    return found


@attrs.frozen
class BaggageKey:
    """The payload of `engine::baggage::get`."""

    key: str


def get_baggage(hub: Hub, asked: Asked) -> object:
    """`engine::baggage::get`: an entry of the baggage of this call."""
    return {"value": _entries(asked.baggage).get(read_input("engine::baggage::get", asked, BaggageKey).key)}


@attrs.frozen
class BaggageEntry:
    """The payload of `engine::baggage::set`."""

    key: str
    value: str


def set_baggage(hub: Hub, asked: Asked) -> object:
    """`engine::baggage::set`: not here; baggage belongs to whoever makes a call."""
    read_input("engine::baggage::set", asked, BaggageEntry)
    note = "Baggage travels with each call: put the entry into the `baggage` of the calls that you make."
    return {"success": False, "note": note}


def get_all_baggage(hub: Hub, asked: Asked) -> object:
    """`engine::baggage::get_all`: the baggage of this call."""
    read_input("engine::baggage::get_all", asked, NoInput)
    return {"baggage": _entries(asked.baggage)}


@attrs.frozen
class LogInput:
    """The payload of `engine::log::*`; `data` is any JSON, and read as it is."""

    message: str
    trace_id: str | None = None
    span_id: str | None = None
    service_name: str | None = None


_LONGEST_LINE: Final = 4096  # characters of a message, or of its data, that go into the log


def _log_at(level: int, name: str) -> Builtin:
    def log(hub: Hub, asked: Asked) -> object:
        said = read_input(name, asked, LogInput)
        about = {"session": asked.session.id}
        for field in ("trace_id", "span_id", "service_name"):
            value = getattr(said, field)
            if value is not None:
                about[field] = visible(value)[:_LONGEST_LINE]
        data = asked.given.get("data") if isinstance(asked.given, dict) else None
        if data is not None:
            about["data"] = visible(to_json(data).decode())[:_LONGEST_LINE]
        hub.also(
            [Log(level, f"{asked.session.label}: {visible(said.message)[:_LONGEST_LINE]}", about, peer_controlled=True)]
        )
        return None

    return log


# --- all of them

_LEVELS: Final = {
    "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR, "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}  # fmt: skip

BUILTINS: Final[dict[str, tuple[Builtin, str]]] = {
    "engine::channels::create": (create_channel, "make a channel: the refs of its two ends"),
    "engine::channels::list": (list_channels, "the open channels, and who waits for whom"),
    "engine::channels::ended": (list_ended_channels, "how the last channels ended"),
    "engine::statistics": (count_what_is_held, "how much the engine holds: sessions, channels, tasks, …"),
    "engine::workers::register": (register_worker, "say who this worker is"),
    "engine::register_trigger": (register_trigger, "make a binding that outlives its maker"),
    "engine::unregister_trigger": (unregister_trigger, "end a binding"),
    "engine::baggage::get": (get_baggage, "an entry of the baggage of this call"),
    "engine::baggage::set": (set_baggage, "say how baggage is set"),
    "engine::baggage::get_all": (get_all_baggage, "the baggage of this call"),
    **INTROSPECTION,
    **{
        f"engine::log::{name}": (_log_at(level, f"engine::log::{name}"), f"write a log line of level {name}")
        for name, level in _LEVELS.items()
    },
}


def register_builtins(hub: Hub) -> None:
    """Put the engine's own functions into its registry."""
    for function_id, (builtin, description) in BUILTINS.items():
        hub.registry.add(Function(DEFAULT_NAMESPACE, function_id, owner=None, builtin=builtin, description=description))
