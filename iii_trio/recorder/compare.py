"""Effects as digests, so that a replay can be compared with the engine.

Each effect has two digests. One is of all that it says. The other one is of its structure only, which is its kind, its
session, and the kind and ids of its message. Texts and payloads are not part of the structure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from ..core.channel import Channel
from ..core.channels import Refused
from ..core.effects import AskRecording, CallEnded, Deliver, Effect, EndChannel, HangUp, Log, PassTelemetry, Send
from ..wire import Undecodable, decode
from .redaction import MARK

DIGEST_BYTES: Final = 8
_NOT_COMPARED: Final = frozenset({"error", "line", "facts"})
_encode: Final = msgspec.msgpack.Encoder(enc_hook=str).encode
_STRUCTURAL: Final = (
    "invocation_id", "function_id", "id", "trigger_type", "namespace", "trigger_namespace", "owner_gone", "by_engine",
    "worker_id", "code", "owner_worker_id", "worker_name", "channel_id", "outcome",
)  # fmt: skip
"""The fields of a message that belong to its structure."""
_PARTS: Final = ("data", "result", "error", "metadata", "config")
"""The fields of a message of which only the presence belongs to its structure."""


def whole(effect: Effect) -> bytes:
    """Return all that an effect says, as bytes."""
    # Facts of channels, lines and exceptions say no more than the rest of their effect does.
    fields: list[Any] = [getattr(effect, name) for name in effect.__struct_fields__ if name not in _NOT_COMPARED]
    return _encode([type(effect).__name__, *(bytes(part) if isinstance(part, bytearray) else part for part in fields)])


def structure(effect: Effect) -> bytes:
    """Return the structure of an effect, as bytes."""
    name = type(effect).__name__
    match effect:
        case Send() | Deliver():
            return _encode([name, effect.session, _message(effect.message)])
        case HangUp():
            return _encode([name, effect.session, effect.code])
        case EndChannel():
            return _encode([name, effect.channel, effect.outcome, effect.sessions])
        case Log():
            about = {key: effect.fields.get(key) for key in ("session", "channel", "function")}
            return _encode([name, effect.level, about])
        case CallEnded():
            return _encode([name, effect.call.function_id, effect.call.trace_id, effect.call.span_id])
        case AskRecording():
            return _encode([name, effect.question, effect.writer.channel_id])
        case PassTelemetry():
            return _encode([name, effect.session, effect.kind])
        case _:
            return whole(effect)


def _message(text: bytes) -> Any:
    message = decode(text)
    # The core sends only messages that can be read, unless a fault has made one.
    if isinstance(message, Undecodable):
        return ["undecodable", message.type]
    about = [getattr(message, field, None) for field in _STRUCTURAL]
    return [type(message).__name__, about, [bool(getattr(message, part, b"")) for part in _PARTS]]


def digests_of(effects: Sequence[Effect], without_secrets: Callable[[bytes], bytes]) -> bytes:
    """Return the digests of effects, one behind the other."""
    return b"".join(_digest(structure(effect)) + _digest(without_secrets(whole(effect))) for effect in effects)


def first_difference(recorded: bytes, effects: Sequence[Effect]) -> int | None:
    """Return the place of the first effect that differs from the recorded one, or None if all are the same.

    An effect with a mark of redaction is compared by its structure.
    """
    size = 2 * DIGEST_BYTES
    for at, effect in enumerate(effects):
        digests = recorded[at * size : (at + 1) * size]
        # The structure is compared in any case.
        if digests[:DIGEST_BYTES] != _digest(structure(effect)):
            return at
        said = whole(effect)
        if MARK.encode() not in said and digests[DIGEST_BYTES:] != _digest(said):
            return at
    return None if len(recorded) == len(effects) * size else len(effects)


def status_of(attached: Channel | Refused) -> int:
    """Return the result of an attaching as a number: 0, or the HTTP status of the refusal."""
    return attached.status if isinstance(attached, Refused) else 0


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
