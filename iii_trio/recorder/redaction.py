"""What a recording does not hold: secrets, and the payloads of workers unless they were asked for.

Everything here replaces a part of an input by something of equal meaning for the core, so that a replay decides as the
engine did. The same secret, and the same payload, has the same stand-in within one engine. Stand-ins are made with a key
that no recording holds, so that nobody can guess a payload and compare.

Each stand-in of a payload has the mark `~` in it. An effect with this mark is compared by its structure only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final, final

import msgspec
from msgspec import Raw

from ..core.admission import Credentials
from ..core.engine_functions import ENGINE_FUNCTIONS
from ..wire import (
    Action,
    CancelInvocation,
    ErrorMessage,
    InvocationResult,
    InvokeFunction,
    JsonValue,
    Message,
    Reattach,
    RegisterFunction,
    RegisterTrigger,
    RegisterTriggerType,
    TriggerRegistrationResult,
    Undecodable,
    WireError,
    decode,
    encode,
    from_json,
    to_json,
)
from .plain import CLASSES, Plain, fields_of

MARK: Final = "~"
_UUID: Final = re.compile(rb"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_ACCESS_KEY: Final = re.compile(rb'("access_key"\s*:\s*")([^"\\]*)(")')
_NO_CONTENT: Final = frozenset({b"", b"null", b"{}", b"[]", b'""', b"false", b"0"})
"""Payloads that say nothing. Some of them mean that there is no error."""
_READ_KEYS: Final = frozenset(
    {
        "name", "description", "version", "runtime", "os", "pid", "isolation", "namespace", "features", "function_id",
        "function_ids", "trigger_type", "trigger_namespace", "id", "worker", "workers", "buffer_size", "max_bytes",
        "expires_after_ms", "limit", "include_internal", "include_waiting", "status", "search", "prefix", "key",
        "last_seconds", "writer", "after", "calls", "channel_id", "access_key", "direction", "clean", "reason", "code",
    }
)  # fmt: skip
"""The keys of payloads of engine functions whose values the core needs."""
_ANSWER_KEYS: Final = frozenset(
    {
        "namespaces", "allowed_functions", "forbidden_functions", "allowed_trigger_types",
        "allow_trigger_type_registration", "allow_function_registration", "function_registration_prefix", "function_id",
        "description", "metadata", "trigger_id", "trigger_type", "trigger_type_id",
    }
)  # fmt: skip
"""The keys of answers of auth functions and hooks whose values the core needs."""
_PASSED_KEYS: Final = frozenset(
    {"config", "metadata", "data", "message", "trace_id", "span_id", "service_name", "value", "context"}
)
"""The keys whose values the core only passes on. All other keys mean nothing to it, and are left out."""
_REDACTED_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "TriggerBinding": ("config", "metadata"),
    "Function": ("request_format", "response_format", "invocation"),
    "Provider": ("trigger_request_format", "call_request_format"),
    "RegisterFunction": ("request_format", "response_format", "invocation"),
    "RegisterTrigger": ("config", "metadata"),
    "RegisterTriggerType": ("trigger_request_format", "call_request_format"),
}
"""The payloads in the objects of a snapshot."""
_SECRET_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "WorkerSession": ("reattach_token", "channel_secret"),
    "Channel": ("read_key", "write_key"),
    "ChannelResult": ("read_key", "write_key"),
}
_PLACES: Final = {name: {field: at for at, field in enumerate(fields_of(cls))} for name, cls in CLASSES.items()}


def _place_of(name: str, field: str) -> int:
    return _PLACES[name][field]


@final
class Redactor:
    """Replaces secrets, and payloads unless `keep_payloads`. `key` is the key of the stand-ins."""

    def __init__(self, key: bytes, *, keep_payloads: bool = False) -> None:
        self.keep_payloads = keep_payloads
        self.has_other_meaning = False
        """Whether a message was redacted to one that the core answers otherwise, so that its effects cannot be compared."""
        self._key = key
        self._secrets: dict[str, str] = {}
        self._stand_ins: set[str] = set()
        self._odd: dict[bytes, bytes] = {}
        """The secrets that are not UUIDs, with their stand-ins."""

    # --- secrets

    def add_secret(self, secret: str) -> None:
        """Know a secret, so that it is replaced wherever it stands."""
        stand_in = self.stand_in(secret)
        self._secrets[secret] = stand_in
        self._stand_ins.add(stand_in)
        if _UUID.fullmatch(secret.encode()) is None and secret:
            self._odd[secret.encode()] = stand_in.encode()

    def add_secrets_of(self, objects: Iterable[Plain]) -> None:
        """Know the secrets in the objects of a snapshot."""
        for name, *values in objects:
            for field in _SECRET_FIELDS.get(name, ()):
                self.add_secret(values[_place_of(name, field)])

    def stand_in(self, secret: str) -> str:
        """Return the stand-in of a secret, which has its form."""
        known = self._secrets.get(secret)
        # Also a stand-in that was made before has to be the same again.
        if known is not None:
            return known
        digest = self._hash(secret.encode(errors="surrogatepass"), 16)
        if _UUID.fullmatch(secret.encode(errors="replace")) is not None:
            return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"
        return (digest * (len(secret) // len(digest) + 1))[: len(secret)]

    def without_secrets(self, text: bytes) -> bytes:
        """Replace the known secrets in a text, and the values of all keys named `access_key`."""
        text = self._without_known(text)
        return _ACCESS_KEY.sub(self._replaced_key, text) if b"access_key" in text else text

    def _without_known(self, text: bytes) -> bytes:
        """Replace the known secrets. The length stays, so that this may be done to encoded data."""
        text = _UUID.sub(self._replaced, text)
        for secret, stand_in in self._odd.items():
            text = text.replace(secret, stand_in)
        return text

    def _replaced(self, match: re.Match[bytes]) -> bytes:
        found = self._secrets.get(match[0].decode())
        return match[0] if found is None else found.encode()

    def _replaced_key(self, match: re.Match[bytes]) -> bytes:
        value = match[2].decode(errors="replace")
        # It was replaced before, as a known secret.
        if value in self._stand_ins:
            return match[0]
        return match[1] + self.stand_in(value).encode(errors="replace") + match[3]

    def _hash(self, data: bytes, size: int = 8) -> str:
        return hashlib.blake2b(data, digest_size=size, key=self._key).hexdigest()

    # --- payloads

    def text(self, text: str) -> str:
        """Return the stand-in of a text that a worker wrote, of the same length."""
        # An empty text stays, because the core may ask whether there is one.
        if not text:
            return text
        return (MARK + self._hash(text.encode(errors="surrogatepass"))).ljust(len(text), ".")[: max(1, len(text))]

    def payload(self, raw: Raw | bytes) -> Raw:
        """Return the stand-in of a payload: an object, a list or a text of the same length, with a hash in it.

        A payload without content stays as it is. One that is shorter than its stand-in becomes a few bytes longer.
        """
        data = bytes(raw)
        # An absent field has to stay the same object, which the encoder leaves out.
        if data in _NO_CONTENT:
            return raw if isinstance(raw, Raw) else Raw(raw)
        before, after = {ord("{"): ('{"~":"', '"}'), ord("["): ('["~', '"]')}.get(data[0], ('"~', '"'))
        # A stand-in is as long as its payload where that has room for one, because limits are about lengths.
        room = len(data) - len(before) - len(after)
        if room < 0:
            return Raw({ord("{"): b'{"~":0}', ord("["): b'["~"]'}.get(data[0], b'"~"'))
        return Raw((before + self._hash(data).ljust(room, ".")[:room] + after).encode())

    def error(self, raw: Raw) -> Raw:
        """Return the stand-in of an error. Its code stays, and so does what means that there is no error."""
        data = bytes(raw)
        if data in _NO_CONTENT:
            return raw
        try:
            found = msgspec.json.decode(data, type=WireError)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self.payload(raw)
        trace = found.stacktrace
        return Raw(
            to_json(WireError(found.code, self.text(found.message), None if trace is None else self.text(trace)))
        )

    def value(self, value: JsonValue) -> JsonValue:
        """Return the stand-in of a decoded payload. Its type stays, because the core may name it in an error."""
        if isinstance(value, str):
            return self.text(value)
        # Inner values are of no interest to the core.
        if isinstance(value, dict | list):
            return from_json(bytes(self.payload(to_json(value))))
        return value if value is None or isinstance(value, bool) else type(value)(0)

    def read_payload(self, raw: Raw, keys: frozenset[str]) -> Raw:
        """Return the stand-in of a payload that the core reads. The values of `keys` stay."""
        if not raw:
            return raw
        try:
            value = from_json(bytes(raw))
        # The core answers a payload that is not JSON with an error, and its stand-in would be none.
        except ValueError:
            self.has_other_meaning = True
            return self.payload(raw)
        if not isinstance(value, dict):
            return Raw(to_json(self.value(value)))
        known = {key: inner for key, inner in value.items() if key in keys or key in _PASSED_KEYS}
        return Raw(to_json({key: inner if key in keys else self.value(inner) for key, inner in known.items()}))

    # --- messages

    def message(self, message: Message, own_calls: frozenset[str] | set[str]) -> Message:
        """Redact a message, which is changed. `own_calls` has the ids that the core has made, its own calls among them."""
        match message:
            case InvokeFunction():
                reads = message.function_id in ENGINE_FUNCTIONS
                message.data = self.read_payload(message.data, _READ_KEYS) if reads else self.payload(message.data)
                message.metadata = self.payload(message.metadata)
                message.baggage = None if message.baggage is None else self.text(message.baggage)
                action = message.action
                if action is not None and action.options:
                    message.action = Action(action.type, action.queue, self.payload(action.options))
            case InvocationResult():
                own = message.invocation_id in own_calls
                message.result = (
                    self.read_payload(message.result, _ANSWER_KEYS) if own else self.payload(message.result)
                )
                message.error = self.error(message.error)
                message.baggage = None if message.baggage is None else self.text(message.baggage)
            case RegisterFunction() | RegisterTrigger() | RegisterTriggerType():
                for field in _REDACTED_FIELDS[type(message).__name__]:
                    setattr(message, field, self.payload(getattr(message, field)))
            case TriggerRegistrationResult() | ErrorMessage():
                message.error = self.error(message.error)
            case CancelInvocation():
                message.reason = self.text(message.reason)
            case Reattach() if message.reattach_token:
                message.reattach_token = self.stand_in(message.reattach_token)
            case _:
                pass
        return message

    def received(self, text: bytes, own_calls: frozenset[str] | set[str]) -> bytes | Undecodable:
        """Redact the text of a message. One that the engine could not read is returned without its text."""
        message = decode(text)
        if isinstance(message, Undecodable):
            return message
        # A token of an earlier engine is a secret that this one never made.
        if self.keep_payloads:
            if isinstance(message, Reattach) and message.reattach_token:
                # A worker may send any text there, so it is not looked for anywhere else.
                return self.without_secrets(encode(self.message(message, own_calls)))
            return self.without_secrets(text)
        return self.without_secrets(encode(self.message(message, own_calls)))

    def telemetry(self, message: bytes) -> bytes:
        """Redact a message of telemetry. The core passes it on unread, so its four letters are enough."""
        return message if self.keep_payloads else message[:4] + bytes(self.payload(message[4:]))

    # --- the rest

    def credentials(self, shown: Credentials | None) -> Credentials | None:
        """Redact what a connection has shown, in every recording."""
        if shown is None:
            return None
        return Credentials(
            {name: self.text(value) for name, value in shown.headers.items()},
            {name: [self.text(value) for value in values] for name, values in shown.query_params.items()},
            shown.ip_address,
        )

    def plain(self, data: Plain) -> Plain:
        """Replace the known secrets in plain data."""
        return msgspec.msgpack.decode(self._without_known(msgspec.msgpack.encode(data)))

    def snapshot(self, encoded: bytes) -> Plain:
        """Return a snapshot without the known secrets, and without payloads unless they are kept."""
        parts, objects = msgspec.msgpack.decode(self._without_known(encoded))
        return [parts, [[name, *self._object(name, values)] for name, *values in objects]]

    def _object(self, name: str, values: list[Plain]) -> list[Plain]:
        # The context of an auth function may hold anything, and the core only passes it on.
        if name == "Grants":
            values[_place_of(name, "context")] = ["d"]
        for field in _REDACTED_FIELDS.get(name, ()):
            place = _place_of(name, field)
            raw = values[place][1]
            values[place] = ["r", self.without_secrets(raw) if self.keep_payloads else bytes(self.payload(raw))]
        if name == "Call" and not self.keep_payloads:
            place = _place_of(name, "baggage")
            values[place] = None if values[place] is None else self.text(values[place])
        return values
