"""The table of the engine's own functions (`engine::*`), and those about channels, baggage and logging."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote

from ..config.settings import MAX_SECONDS
from ..errors import CallError
from ..observed import TRACE, LogLine, parse_traceparent
from ..report import visible
from ..structure import FunctionInput
from ..wire import DEFAULT_NAMESPACE, Direction, JsonValue, Ref, bad_input, is_ref, to_json
from . import introspection
from .channel import Channel, ChannelEvent
from .channels import Refused
from .durable_triggers import register_trigger, unregister_trigger
from .effects import AskChannelIo, AskRecording, AskStatistics, Log
from .identity import register_worker
from .observing import observe_channel
from .paging import Paged, reply_with_list
from .registry import Function
from .request import Request
from .state import State
from .views import Row

EngineFunction: TypeAlias = Callable[[State, Request], None]
"""A function of the engine itself. It answers the request, or raises CallError, or keeps the request for later."""

# --- channels


class CreateChannelInput(FunctionInput, frozen=True):
    """The payload of `engine::channels::create` (clause C8.4 for the last two)."""

    buffer_size: int | None = None
    max_bytes: int | None = None
    expires_after_ms: float | None = None


def create_channel(state: State, request: Request) -> None:
    """Create a channel owned by the caller (`engine::channels::create`). The answer holds the refs of its ends."""
    params = request.read(CreateChannelInput)
    for field, min_value in (("buffer_size", 0), ("max_bytes", 1), ("expires_after_ms", 1)):
        value = getattr(params, field)
        if value is not None and value < min_value:
            raise bad_input("engine::channels::create", f"{field}: must be at least {min_value}, got {value}")
    max_bytes = state.config.limits.channel_bytes
    if params.max_bytes is not None and params.max_bytes > max_bytes:
        problem = f"max_bytes: at most {max_bytes} (limits.channel_bytes), got {params.max_bytes}"
        raise bad_input("engine::channels::create", problem)
    state.check_open()
    expires = state.config.channels.expires_after_seconds
    # An explicit null means that the channel never expires. Only an absent field means the default.
    if isinstance(request.payload, dict) and "expires_after_ms" in request.payload:
        expires = None if params.expires_after_ms is None else params.expires_after_ms / 1000
    channel = state.channels.create(
        request.session,
        request.now,
        buffer_size=params.buffer_size,
        max_bytes=params.max_bytes,
        expires_after_seconds=expires,
    )
    channel.traceparent = request.message.traceparent
    # The channel belongs to the call that its maker was answering, so it stands beside the call of this function.
    channel.facts = observe_channel(state.traces, request.session, channel, request.message.traceparent, request.now)
    request.reply(
        {
            "writer": channel.ref(Direction.WRITE).to_json(),
            "reader": channel.ref(Direction.READ).to_json(),
        }
    )


class ListChannels(Paged, frozen=True):
    """The payload of `engine::channels::list`."""


class EndOfChannelInput(FunctionInput, frozen=True):
    """The payload of `engine::channels::end`, which is a ref with the way in which its end of the channel ends."""

    channel_id: str
    access_key: str
    direction: Literal["read", "write"]
    clean: bool = False
    reason: str = ""
    code: str | None = None


def end_channel(state: State, request: Request) -> None:
    """Attach an end of a channel and end it, in one step (`engine::channels::end`).

    A handshake for an end that is not used would cost far more. A writer that ends cleanly leaves an empty stream.
    The answer says whether the end was free.
    """
    params = request.read(EndOfChannelInput)
    now, direction = request.now, Direction(params.direction)
    found = state.channels.attach(params.channel_id, params.access_key, direction, now, request.session)
    # It is attached elsewhere, or over. Then there is nothing to end.
    if isinstance(found, Refused):
        request.reply({"ended": False})
        return
    if direction is Direction.READ:
        event = ChannelEvent.READER_CANCELLED
    else:
        event = ChannelEvent.WRITER_CLOSED if params.clean else ChannelEvent.WRITER_ABORTED
    state.channels.advance(found.id, event, params.reason, now, params.code)
    request.reply({"ended": True})


class NoInput(FunctionInput, frozen=True):
    """The payload of functions without parameters, which may be any object."""


def list_channels(state: State, request: Request) -> None:
    """List the open channels, oldest first (clause C7 (`engine::channels::list`).1), without their keys."""
    request.read(ListChannels)
    state.emit(AskChannelIo(state.ask(request)))


def answer_channel_list(state: State, request: Request, io: Mapping[str, Mapping[str, JsonValue]]) -> None:
    """Answer `engine::channels::list`, now that the shell has reported the I/O statistics of the channels."""

    def row(channel: Channel) -> Row:
        return {
            "id": channel.id,
            "phase": channel.state.current.name.lower(),
            "owner": channel.owner,
            "owner_name": _name_of(state, channel.owner),
            "writer": channel.writer,
            "writer_name": _name_of(state, channel.writer),
            "reader": channel.reader,
            "reader_name": _name_of(state, channel.reader),
            "age_seconds": request.now - channel.created_at,
            "idle_seconds": request.now - channel.touched_at,
            "buffer_size": channel.buffer_size,
            "max_bytes": channel.max_bytes,
            "expires_after_seconds": channel.expires_after_seconds,
            "invocations": channel.invocations,
            **io.get(channel.id, {}),
        }

    try:
        page = request.read(ListChannels)
        reply_with_list(request, "channels", state.channels, lambda each: (each.created_at, each.id), row, page)
    except CallError as error:
        request.fail(error)


class ListEndedInput(FunctionInput, frozen=True):
    """The payload of `engine::channels::ended`."""

    limit: int | None = None


def list_ended_channels(state: State, request: Request) -> None:
    """List the results of the last channels, latest first (`engine::channels::ended`)."""
    params = request.read(ListEndedInput)
    if params.limit is not None and params.limit < 0:
        raise bad_input("engine::channels::ended", f"limit: must be at least 0, got {params.limit}")
    request.reply(
        {
            "channels": [
                {
                    "id": ended.id,
                    "outcome": ended.outcome,
                    "reason": ended.reason,
                    "code": ended.code,
                    "owner": ended.owner,
                    "lasted_seconds": ended.ended_at - ended.created_at,
                    "ended_seconds_ago": request.now - ended.ended_at,
                }
                for ended in state.channels.ended()[::-1][: params.limit]
            ]
        }
    )


class StatisticsInput(FunctionInput, frozen=True):
    """The payload of `engine::statistics`."""

    calls: bool = False
    """Whether to answer with the numbers of the calls that have ended, too."""


def read_statistics(state: State, request: Request) -> None:
    """Count the objects that the engine holds, this call included (`engine::statistics`)."""
    request.read(StatisticsInput)
    state.emit(AskStatistics(state.ask(request)))


def answer_statistics(state: State, request: Request, statistics: Mapping[str, JsonValue]) -> None:
    """Answer `engine::statistics`, now that the shell has counted the objects."""
    counts = state.call_counts.to_json() if request.read(StatisticsInput).calls else {}
    request.reply({**statistics, **counts})


class SaveRecordingInput(FunctionInput, frozen=True):
    """The payload of `engine::recorder::save`. Its `writer` is the writing end of a channel."""

    last_seconds: float | None = None


def save_recording(state: State, request: Request) -> None:
    """Save the last inputs of the engine into a channel (`engine::recorder::save`). The answer describes it."""
    params = request.read(SaveRecordingInput)
    seconds = params.last_seconds
    # Written so that NaN is refused too.
    if seconds is not None and not 0 < seconds <= MAX_SECONDS:
        raise bad_input("engine::recorder::save", f"last_seconds: give a number of seconds above 0, got {seconds:g}")
    writer = request.payload.get("writer") if isinstance(request.payload, dict) else None
    if not is_ref(writer) or writer["direction"] != Direction.WRITE:
        raise bad_input("engine::recorder::save", "writer: give the ref of a channel's writing end")
    state.emit(AskRecording(state.ask(request), Ref.from_json(writer), seconds))


def _name_of(state: State, session_id: str | None) -> str | None:
    session = state.sessions.get(session_id) if session_id is not None else None
    # The session may be gone while its channel goes on.
    return session.info.name if session is not None else None


# --- baggage and log


def _entries(baggage: str | None) -> dict[str, str]:
    """Return the entries of a W3C `baggage` header, without their properties."""
    found = {}
    for member in (baggage or "").split(","):
        key, sign, value = member.partition(";")[0].partition("=")
        # A member without an equals sign is not valid and is skipped.
        if sign and key.strip():
            found[key.strip()] = unquote(value.strip())
    return found


class BaggageKey(FunctionInput, frozen=True):
    """The payload of `engine::baggage::get`."""

    key: str


def get_baggage(state: State, request: Request) -> None:
    """Return an entry of this call's baggage (`engine::baggage::get`)."""
    request.reply({"value": _entries(request.message.baggage).get(request.read(BaggageKey).key)})


class BaggageEntry(FunctionInput, frozen=True):
    """The payload of `engine::baggage::set`."""

    key: str
    value: str


def set_baggage(state: State, request: Request) -> None:
    """Say that baggage is not set here, because it belongs to the call of its maker (`engine::baggage::set`)."""
    request.read(BaggageEntry)
    note = "Baggage travels with each call: put the entry into the `baggage` of the calls that you make."
    request.reply({"success": False, "note": note})


def get_all_baggage(state: State, request: Request) -> None:
    """Return this call's baggage (`engine::baggage::get_all`)."""
    request.read(NoInput)
    request.reply({"baggage": _entries(request.message.baggage)})


class LogInput(FunctionInput, frozen=True):
    """The payload of `engine::log::*`. Its `data` is any JSON, and is not structured."""

    message: str
    trace_id: str | None = None
    span_id: str | None = None
    service_name: str | None = None


_MAX_LINE: Final = 4096  # characters of a message, or of its data, in the log


def _log_at(level: int) -> EngineFunction:
    def log(state: State, request: Request) -> None:
        params = request.read(LogInput)
        session = request.session
        fields = {"session": session.id}
        for field in ("trace_id", "span_id", "service_name"):
            value = getattr(params, field)
            if value is not None:
                fields[field] = visible(value)[:_MAX_LINE]
        data = request.payload.get("data") if isinstance(request.payload, dict) else None
        if data is not None:
            fields["data"] = visible(to_json(data).decode())[:_MAX_LINE]
        text = f"{session.label}: {visible(params.message)[:_MAX_LINE]}"
        parent = parse_traceparent(request.message.traceparent)
        line = LogLine(
            level,
            params.message[:_MAX_LINE],
            params.service_name or "unknown",
            {} if data is None else {"data": data},
            params.trace_id or (parent.trace_id if parent is not None else None),
            params.span_id or (parent.span_id if parent is not None and params.trace_id is None else None),
        )
        # Python knows no level for a trace.
        state.emit(Log(max(level, logging.DEBUG), text, fields, peer_controlled=True, line=line))
        request.reply(None)

    return log


# --- all of them

_LEVELS: Final = {
    "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR, "debug": logging.DEBUG, "trace": TRACE,
}  # fmt: skip

ENGINE_FUNCTIONS: Final[dict[str, tuple[EngineFunction, str]]] = {
    "engine::channels::create": (create_channel, "make a channel: the refs of its two ends"),
    "engine::channels::end": (end_channel, "end an end of a channel without attaching it"),
    "engine::channels::list": (list_channels, "the open channels, and who waits for whom"),
    "engine::channels::ended": (list_ended_channels, "how the last channels ended"),
    "engine::statistics": (read_statistics, "how much the engine holds: sessions, channels, tasks, …"),
    "engine::recorder::save": (save_recording, "write the last inputs of the engine into a channel, for a replay"),
    "engine::workers::register": (register_worker, "say who this worker is"),
    "engine::register_trigger": (register_trigger, "make a binding that outlives its maker"),
    "engine::unregister_trigger": (unregister_trigger, "end a binding"),
    "engine::baggage::get": (get_baggage, "an entry of the baggage of this call"),
    "engine::baggage::set": (set_baggage, "say how baggage is set"),
    "engine::baggage::get_all": (get_all_baggage, "the baggage of this call"),
    "engine::functions::list": (introspection.list_functions, "the functions that there are"),
    "engine::functions::info": (
        introspection.describe_functions,
        "one function, or several, with schemas and bindings",
    ),
    "engine::triggers::list": (introspection.list_triggers, "the trigger types that there are"),
    "engine::triggers::info": (introspection.describe_trigger, "one trigger type, with its schemas"),
    "engine::registered-triggers::list": (
        introspection.list_bindings,
        "the bindings of functions to trigger types",
    ),
    "engine::registered-triggers::info": (
        introspection.describe_binding,
        "one binding, with its trigger type and function",
    ),
    "engine::workers::list": (introspection.list_workers, "the workers that there are"),
    "engine::workers::info": (introspection.describe_worker, "one worker, with what it offers"),
    **{
        f"engine::log::{name}": (_log_at(level), f"write a log line of level {name}") for name, level in _LEVELS.items()
    },
}


def register_engine_functions(state: State) -> None:
    """Put the engine's own functions into its registry."""
    for function_id, (_, description) in ENGINE_FUNCTIONS.items():
        state.registry.add(Function(DEFAULT_NAMESPACE, function_id, owner=None, description=description))
