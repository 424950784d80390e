"""JSON as the engine and the handlers see it."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder()


def to_json(value: object) -> bytes:
    """Encode a value as JSON. Raises TypeError or ValueError, which names the part that JSON cannot hold."""
    try:
        return _encoder.encode(value)
    except RecursionError:
        raise ValueError("the value is nested too deeply for JSON, or contains itself") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"a text that is not valid Unicode cannot be sent: {error}") from None


def from_json(text: bytes) -> JsonValue:
    """Decode strict JSON (no NaN, no lone surrogates). Raises ValueError, which says where it is not JSON."""
    try:
        value: JsonValue = _decoder.decode(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    return value
