"""Checks and bounds of texts that others wrote."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

MAX_CODE_BYTES: Final = 256
MAX_MESSAGE_BYTES: Final = 4096
_raw: Final = msgspec.json.Decoder(Raw)


def cut(text: str, max_bytes: int) -> str:
    """Shorten a text to so many bytes, and say so at its end. Characters that are not valid Unicode are replaced."""
    whole = text.encode(errors="replace")
    if len(whole) <= max_bytes:
        return whole.decode()
    return f"{whole[:max_bytes].decode(errors='ignore')}… ({len(whole)} bytes in all)"


def is_json(data: bytes) -> bool:
    """Whether this is JSON by its structure. Values are not looked at."""
    try:
        data.decode()
        _raw.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
