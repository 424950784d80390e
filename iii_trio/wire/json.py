"""JSON as the engine and the handlers see it, and what to do with text that is not quite JSON."""

from __future__ import annotations

import json
import re
from typing import Final, TypeAlias

import msgspec

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder()


def to_json(value: object) -> bytes:
    """Encode a value as JSON. Raises TypeError or ValueError naming what JSON cannot hold."""
    try:
        return _encoder.encode(value)
    except RecursionError:
        raise ValueError("the value is nested too deeply for JSON, or contains itself") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"a text that is no Unicode cannot be sent: {error}") from None


def from_json(text: bytes) -> JsonValue:
    """Decode strict JSON (no NaN, no lone surrogates). Raises ValueError saying where it is not."""
    try:
        value: JsonValue = _decoder.decode(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    return value


_STRING: Final = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'  # or what a cut off one leaves: nothing is looked at twice
_OUTERMOST: Final = re.compile(_STRING + rb'|[{}\[\],:]|[^{}\[\],:"]++', re.DOTALL)
_DEEPER: Final = re.compile(rb"[{}\[\]]|(?:[^\"{}\[\]]++|" + _STRING + rb")++", re.DOTALL)
_MAX_TOKENS: Final = 1_000_000  # some tenths of a second, in which the engine does nothing else


def top_level_strings(text: bytes) -> dict[str, str]:
    """The string fields of the outermost object, as far as they can be made out.

    For texts that the strict decoder refuses (NaN, lone surrogates, depth, a tail cut off): whoever sent one is to be
    told which call failed, so its `type` and ids are looked for without reading the rest. Reading all of it once more
    with a tolerant decoder would fail on depth; this walk has none, takes time in proportion, and has a bound.
    """
    found: dict[str, str] = {}
    depth = at = 0
    key: bytes | None = None
    after_colon = False
    for _ in range(_MAX_TOKENS):
        match = (_OUTERMOST if depth == 1 else _DEEPER).match(text, at)
        if match is None:
            break
        at = match.end()
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
            key, after_colon = None, False
        elif token in (b"}", b"]"):
            depth -= 1
        elif depth != 1:
            continue
        elif token == b",":
            key, after_colon = None, False
        elif token == b":":
            after_colon = True
        elif token[:1] == b'"':
            if after_colon and key is not None:
                try:
                    name, value = json.loads(key), json.loads(token)
                    value.encode()
                except ValueError:
                    continue
                found.setdefault(name, value)
            elif not after_colon:
                key = token
    return found
