"""The check of JSON from peers, made once when a message arrives.

Every message is checked for depth and for integers that no SDK can read. Both checks are a few searches in C.
The parts that the engine keeps or reads later are decoded once, so that reading them again cannot fail.
Payloads that are only passed on are not decoded (decision 0014).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final

import msgspec
from msgspec import Raw

from .bounds import (
    CARRY_JOBS,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_ENGINE_INPUT_BYTES,
    MAX_ERROR_BYTES,
    MAX_ERROR_CODE,
    MAX_ERROR_MESSAGE,
    MAX_STACKTRACE,
)
from .codes import ErrorCode
from .json import from_json, to_json
from .messages import (
    CancelInvocation,
    ErrorMessage,
    InvocationResult,
    InvokeFunction,
    RegisterFunction,
    RegisterTrigger,
    RegisterTriggerType,
    TriggerRegistrationResult,
    WireError,
)

_NO_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_NO_OPENERS: Final = bytes(set(range(256)) - set(b"[{"))
_STEP: Final = [{ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}.get(byte, 0) for byte in range(256)]
SHORT: Final = 2 * MAX_DEPTH
"""Bytes of a text that cannot nest too deeply."""
_SEARCHED_FOR_DEPTH: Final = 16 * 1024
_FIRST_BRACKETS: Final = 4
_ROUNDS: Final = 16
_STRIDE: Final = 128
_DIGITS: Final = b"0123456789"
_AS_DIGIT: Final = bytes(ord("0") if byte in _DIGITS else ord("x") for byte in range(256))
_SAMPLED_RUN: Final = b"0" * (MAX_DIGITS // _STRIDE)


def why_unreadable(text: bytes | bytearray) -> str | None:
    """Return the reason why peers could not read this JSON text, or None. Short texts need no check."""
    # The decoder has a limit of its own, so longer texts are not searched for brackets.
    if len(text) <= _SEARCHED_FOR_DEPTH and nests_deeper(text, MAX_DEPTH):
        return f"nested too deeply: more than {MAX_DEPTH} levels of lists and objects"
    # A short text cannot hold a long number.
    if len(text) > MAX_DIGITS and _has_long_integer(text):
        return f"an integer of more than {MAX_DIGITS} digits, which no SDK can read: send it as a string"
    return None


def nests_deeper(text: bytes | bytearray, levels: int) -> bool:
    """Return whether a JSON text has more than this many levels of lists and objects."""
    # Each level takes two brackets, so short texts and texts of few brackets are shallow.
    if len(text) <= 2 * levels or _has_few_brackets(text, levels):
        return False
    if b"\\" in text:
        # Each quote that is left begins or ends a string.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = text.translate(None, _NO_STRUCTURE).replace(b'""', b"")
    if b'"' in brackets:
        brackets = b"".join(brackets.split(b'"')[::2])
    # Each round removes two levels at most, the innermost first. Usual payloads are gone after a few rounds.
    left = brackets
    for removed in range(0, 2 * _ROUNDS, 2):
        if len(left) // 2 + removed <= levels:
            return False
        left = left.replace(b"{}", b"").replace(b"[]", b"")
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > levels


def _has_few_brackets(text: bytes | bytearray, max_brackets: int) -> bool:
    """Return whether at most this many brackets open in a text."""
    # A text of few brackets is searched faster than it is filtered.
    left = _FIRST_BRACKETS if max_brackets > _FIRST_BRACKETS else max_brackets
    for opener in (b"{", b"["):
        at = text.find(opener)
        while at >= 0:
            if not left:
                return len(text.translate(None, _NO_OPENERS)) <= max_brackets
            left -= 1
            at = text.find(opener, at + 1)
    return True


def _has_long_integer(text: bytes | bytearray) -> bool:
    """Return whether a JSON text has an integer of more than MAX_DIGITS digits outside its strings."""
    # A long run of digits shows in a sample of the text. Few texts have any, so most are read no further.
    samples = text[::_STRIDE].translate(_AS_DIGIT)
    counted = quotes = 0
    found = samples.find(_SAMPLED_RUN)
    while found >= 0:
        at = found * _STRIDE
        before = text[max(0, at - _STRIDE) : at]
        start = at - len(before) + len(before.rstrip(_DIGITS))
        end = _end_of_digits(text, at)
        if end - start > MAX_DIGITS:
            between = text[counted:start]
            if b"\\" in between:
                between = between.replace(b"\\\\", b"").replace(b'\\"', b"")
            quotes += between.count(b'"')
            counted = start
            # An even number of quotes stands before the digits if they are outside of strings.
            # Digits behind a point, or before a point or an exponent, are those of a float, which may be long.
            is_float = text[start - 1 : start] == b"." or text[end : end + 1] in (b".", b"e", b"E")
            if quotes % 2 == 0 and not is_float:
                return True
        found = samples.find(_SAMPLED_RUN, end // _STRIDE + 1)
    return False


def _end_of_digits(text: bytes | bytearray, at: int) -> int:
    while at < len(text):
        piece = text[at : at + 4096]
        left = len(piece.lstrip(_DIGITS))
        if left:
            return at + len(piece) - left
        at += len(piece)
    return at


# --- the parts that are read again


def _decode_all(*fields: str) -> Callable[[Any], str | None]:
    def check(message: Any) -> str | None:
        for field in fields:
            value = bytes(getattr(message, field))
            # An absent field is empty.
            if value:
                if nests_deeper(value, MAX_DEPTH - 1):
                    return f"nested too deeply: more than {MAX_DEPTH} levels - in `{field}`"
                try:
                    from_json(value)
                except ValueError as error:
                    return f"{error} - in `{field}`"
        return None

    return check


_error_body: Final = msgspec.json.Decoder(WireError)


def _trim_error(message: InvocationResult | TriggerRegistrationResult | ErrorMessage) -> str | None:
    """Replace an error that is unreadable or too long by one that every peer can read and keep."""
    if not message.error:
        return None
    body = bytes(message.error)
    try:
        from_json(body)
        error = _error_body.decode(body)
    except msgspec.ValidationError:
        # The error is JSON, but not an object of a code and a message.
        # Its shape is judged where it is answered. Only its size matters here.
        if len(body) > MAX_ERROR_BYTES:
            problem = f"An error of no known shape and {len(body)} bytes was left out"
            message.error = Raw(to_json(WireError(ErrorCode.INVOCATION_FAILED, problem)))
        return None
    except ValueError as problem:
        unreadable = WireError(ErrorCode.SERIALIZATION_ERROR, f"The error cannot be read: {problem}")
        message.error = Raw(to_json(unreadable))
        return None
    short = WireError(
        error.code[:MAX_ERROR_CODE],
        cut(error.message, MAX_ERROR_MESSAGE),
        None if error.stacktrace is None else cut(error.stacktrace, MAX_STACKTRACE),
    )
    if short != error or len(body) > MAX_ERROR_BYTES:
        message.error = Raw(to_json(short))
    return None


def cut(text: str, max_length: int) -> str:
    """Shorten a text and say by how much."""
    if len(text) <= max_length:
        return text
    note = f"… ({len(text)} characters in all)"
    return text[: max_length - len(note)] + note


_data: Final = _decode_all("data")
_metadata: Final = _decode_all("metadata")


def _check_job(call: InvokeFunction) -> str | None:
    """Check the payload and the metadata of a call that a queue keeps. Those of other calls are only passed on."""
    action = call.action
    if (action is None or action.type != "enqueue") and call.function_id not in CARRY_JOBS:
        return None
    # Decoding a larger payload would hold up the engine. Its reader answers if it cannot read it.
    problem = _data(call) if len(call.data) <= MAX_ENGINE_INPUT_BYTES else None
    return problem or (_metadata(call) if call.metadata else None)


def _trim_reason(message: CancelInvocation) -> None:
    message.reason = cut(message.reason, MAX_ERROR_MESSAGE)


KEPT: Final[dict[type, Callable[[Any], str | None]]] = {
    RegisterFunction: _decode_all("request_format", "response_format", "metadata", "invocation"),
    RegisterTriggerType: _decode_all("trigger_request_format", "call_request_format"),
    RegisterTrigger: _decode_all("config", "metadata"),
    TriggerRegistrationResult: _trim_error,
    InvokeFunction: _check_job,
    InvocationResult: _trim_error,
    ErrorMessage: _trim_error,
    CancelInvocation: _trim_reason,
}
"""By type of message, the check of the parts that are kept or read again. It returns the problem."""
