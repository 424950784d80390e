"""The limits of released SDKs. README.md beside this file has the versions and the reasons."""

from __future__ import annotations

import re
from collections.abc import Set
from itertools import accumulate
from typing import Final

from ..wire import LARGE_MESSAGES

SMALL_MESSAGE: Final = 1024 * 1024
"""The size in bytes that every SDK accepts in one message."""
RUST_DEPTH: Final = 127
"""The nesting levels that the Rust SDK's JSON parser follows, the message itself included."""
ABORT_FRAME: Final = b"\x83\x00"
"""A frame with a reserved opcode. It tells an SDK's reader as clearly as possible of a cut stream (clause C6.2)."""
_MAX_INSPECTED: Final = 1024 * 1024
"""The largest message in bytes whose depth is checked. Checking larger ones would delay other workers."""

_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_NO_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_STEP: Final = [{ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}.get(byte, 0) for byte in range(256)]


def reads_large_messages(runtime: str | None, features: Set[str]) -> bool:
    """Return whether a worker accepts a JSON message above SMALL_MESSAGE."""
    # Python SDKs before 0.25 close the connection at such a message and lose their replies.
    return runtime != "python" or LARGE_MESSAGES in features


def reads_depth(runtime: str | None, text: bytes) -> bool:
    """Return whether a worker can read a JSON message of this depth."""
    # The Rust SDK drops a message that nests too deeply, so its sender would wait for ever.
    return runtime != "rust" or len(text) > _MAX_INSPECTED or not nests_deeper(text, RUST_DEPTH)


def reads_small_messages(user_agent: str) -> bool:
    """Return whether a channel's reader ends silently at a message above SMALL_MESSAGE, by its User-Agent."""
    return "websockets/" in user_agent  # the library of the Python SDK


def nests_deeper(text: bytes, levels: int) -> bool:
    """Return whether a JSON text has more than `levels` levels of lists and objects.

    The check is cheap for texts with few lists and objects.
    """
    if text.count(b"[") + text.count(b"{") <= levels:
        return False
    if b"\\" in text:
        text = _ESCAPE.sub(b"", text)  # afterwards every quote begins or ends a string
    outside_of_strings = b"".join(text.translate(None, _NO_STRUCTURE).split(b'"')[::2])
    return max(accumulate(map(_STEP.__getitem__, outside_of_strings)), default=0) > levels
