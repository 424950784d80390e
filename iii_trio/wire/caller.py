"""The caller's id, which the engine puts into the payload of a call."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import Raw

from .json import to_json

CALLER_KEY: Final = "_caller_worker_id"
_KEY: Final = CALLER_KEY.encode()
# Letters of the key may be written as escapes. No usual encoder does so.
_DISGUISED: Final = re.compile(rb"\\u00(?:5[fF]|6|7)")
_UNDERSCORE: Final = ord("_")
_BACKSLASH: Final = ord("\\")
_BEFORE_AN_END: Final = b"{ \t\r\n"
_fields: Final = msgspec.json.Decoder(dict[str, Raw])


def caller_field(worker_id: str) -> bytes:
    """Return the field that names the caller, with the brace that ends the payload."""
    return b'"' + _KEY + b'":"' + worker_id.encode() + b'"}'


def with_caller_id(data: bytes, field: bytes) -> bytes:
    """Return the payload with its caller's id as the last field, if it is an object.

    A field of this name that the caller itself wrote is taken out, however its name is spelled.
    """
    if data[:1] != b"{":
        return data
    # Most payloads have no underscore and no backslash. A search for the number of one byte is the fastest of all.
    if (_UNDERSCORE in data and _KEY in data) or (_BACKSLASH in data and _DISGUISED.search(data) is not None):
        data = _without_caller_id(data)
    # Only an object without fields has a brace or a space before its last brace and nothing else.
    if data[-2] in _BEFORE_AN_END and not data[1:-1].strip():
        return b"{" + field
    return data[:-1] + b"," + field


def _without_caller_id(data: bytes) -> bytes:
    fields = _fields.decode(data)
    # The key stood in a string or in an inner object.
    if fields.pop(CALLER_KEY, None) is None:
        return data
    return to_json(fields)
