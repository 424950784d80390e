"""The steps of a replay in words: what came in, which state moved, what went out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..core.effects import (
    AskChannelIo,
    AskRecording,
    AskSignOfLife,
    AskStatistics,
    AskUnreadInput,
    CallEnded,
    Deliver,
    Effect,
    EndChannel,
    HangUp,
    Log,
    PassTelemetry,
    ReleaseEnds,
    SealPipe,
    Send,
)
from ..core.hub import Hub
from ..wire import (
    CancelInvocation,
    ChannelEnded,
    InvocationResult,
    InvokeFunction,
    Undecodable,
    decode,
)
from ..wire.telemetry import telemetry_kind
from .replay import Done

_ABOUT: Final = ("function_id", "id", "trigger_type", "channel_id", "outcome", "previous_worker_id", "worker_name")


_COMMAND: Final = "iii-trio-"


class Names:
    """The names of the sessions of a replay, which stay known after their end."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._known: dict[str, str] = {}

    def update(self) -> None:
        """Learn the names of the sessions that are there."""
        for session in self._hub.sessions.values():
            if session.info.name:
                self._known[session.id] = session.info.name

    def of(self, session_id: str | None) -> str:
        """Return a session's name with the beginning of its id."""
        if session_id is None:
            return "no session"
        name = self._known.get(session_id)
        return f"{name} ({session_id[:8]})" if name else f"session {session_id[:8]}"

    def is_command(self, session_id: str) -> bool:
        """Return whether a session is that of a command of `iii-trio`, which its name tells."""
        return self._known.get(session_id, "").startswith(_COMMAND)


def describe_input(done: Done, names: Names) -> str:
    """Return one sentence about what came in."""
    kind, arguments = done.step.kind.name, done.arguments
    who = names.of(arguments.get("session"))
    match kind:
        case "connected":
            started = done.step.ids[0] if done.step.ids else ""
            where = arguments["peer"] or ("this process" if arguments["in_process"] else "an unknown address")
            return f"a connection from {where}: {names.of(started)}"
        case "received":
            return f"{who} sends {describe_message(arguments['text'])}"
        case "unreadable":
            return f"{who} sends a message that cannot be read: {arguments['problem']}"
        case "undelivered":
            return f"the outbox of {who} is full for the call {arguments['invocation_id']}"
        case "disconnected":
            return f"the link of {who} is over: {arguments['reason']}"
        case "close_session":
            return f"the engine closes {who} ({arguments['code']}): {arguments['reason']}"
        case "attach":
            return f"{who} attaches the {arguments['direction']} end of channel {arguments['channel']}"
        case "channel_event":
            reason = f": {arguments['reason']}" if arguments["reason"] else ""
            event = arguments["event"].name.lower().replace("_", " ")
            return f"channel {arguments['channel']}: {event}{reason}"
        case "unread_input_known":
            return f"{who} has {'' if arguments['has_unread_input'] else 'no '}unread input"
        case "sign_of_life_known":
            return f"{who} shows {'a' if arguments['is_alive'] else 'no'} sign of life"
        case "close":
            return f"the engine closes: {arguments['reason']}"
        case _:
            about = arguments.get("channel") or arguments.get("question") or ""
            return f"{kind.replace('_', ' ')} {about}".strip()


def describe_message(text: bytes | bytearray) -> str:
    """Return the kind of a message and its ids."""
    message = decode(text)
    if isinstance(message, Undecodable):
        kind = telemetry_kind(text)
        return "an unreadable message" if kind is None else f"telemetry ({kind})"
    match message:
        case InvokeFunction():
            call = message.invocation_id or "without an answer"
            return f"a call of {message.function_id} ({call})"
        case InvocationResult():
            what = "an error" if message.error else "the result"
            return f"{what} of {message.function_id or 'the call'} ({message.invocation_id})"
        case ChannelEnded():
            return f"the end of channel {message.channel_id}: {message.outcome}"
        case CancelInvocation():
            return f"the cancellation of the call {message.invocation_id}"
        case _:
            about = " ".join(str(value) for field in _ABOUT if (value := getattr(message, field, None)))
            return f"{_tag(message)} {about}".strip()


def _tag(message: msgspec.Struct) -> str:
    return str(message.__struct_config__.tag)


def describe_effect(effect: Effect, names: Names) -> str:
    """Return one sentence about what went out."""
    match effect:
        case Send() | Deliver():
            return f"to {names.of(effect.session)}: {describe_message(effect.message)}"
        case HangUp():
            return f"closes the link of {names.of(effect.session)} ({effect.code}): {effect.reason}"
        case SealPipe():
            return f"the clean end behind the items of channel {effect.channel}"
        case EndChannel():
            reason = f" ({effect.reason})" if effect.reason else ""
            return f"channel {effect.channel} ends: {effect.outcome}{reason}"
        case Log():
            return f"log: {effect.message}"
        case ReleaseEnds():
            return f"the ends of {names.of(effect.session)} at other engines are released"
        case CallEnded():
            return f"the facts of the call of {effect.call.function_id}, which is traced"
        case PassTelemetry():
            return f"telemetry of {names.of(effect.session)} is passed on ({effect.kind})"
        case AskUnreadInput():
            return f"asks whether {names.of(effect.session)} has unread input"
        case AskSignOfLife():
            return f"asks {names.of(effect.session)} for a sign of life"
        case AskChannelIo():
            return "asks for the statistics of the channels"
        case AskStatistics():
            return "asks for the statistics of the engine"
        case AskRecording():
            return f"saves a recording into channel {effect.writer.channel_id}"


def as_json(done: Done, names: Names, started_at: float) -> dict[str, Any]:
    """Return a step as a JSON object."""
    return {
        "step": done.number,
        "seconds": round(done.step.now - started_at, 6),
        "input": done.step.kind.name,
        "text": describe_input(done, names),
        "arguments": {name: _plain(value) for name, value in done.arguments.items()},
        "moves": [
            {"kind": move.kind, "id": move.id, "before": move.before or None, "after": move.after}
            for move in done.moves
        ],
        "effects": [
            {
                "effect": type(effect).__name__,
                "text": describe_effect(effect, names),
                **{
                    field: getattr(effect, field)
                    for field in ("session", "channel", "code", "reason", "outcome", "level")
                    if getattr(effect, field, None) is not None
                },
            }
            for effect in done.effects
        ],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode(errors="replace")
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)
