"""The limits of released SDKs. README.md beside this file has the versions and the reasons."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from ..wire import LARGE_MESSAGES, nests_deeper

SMALL_MESSAGE: Final = 1024 * 1024
"""The size in bytes that every SDK accepts in one message."""
RUST_DEPTH: Final = 127
"""The nesting levels that the Rust SDK's JSON parser follows, the message itself included."""
RUST: Final = "rust"
"""The runtime of the only SDK whose parser has a limit of depth."""
ABORT_FRAME: Final = b"\x83\x00"
"""A frame with a reserved opcode. It tells an SDK's reader as clearly as possible of a cut stream (clause C6.2)."""
_MAX_INSPECTED: Final = 1024 * 1024
"""The largest message in bytes whose depth is checked. Checking larger ones would delay other workers."""


def reads_large_messages(runtime: str | None, features: Set[str]) -> bool:
    """Return whether a worker accepts a JSON message above SMALL_MESSAGE."""
    # Python SDKs before 0.25 close the connection at such a message and lose their replies.
    return runtime != "python" or LARGE_MESSAGES in features


def reads_depth(runtime: str | None, text: bytes) -> bool:
    """Return whether a worker can read a JSON message of this depth."""
    # The Rust SDK drops a message that nests too deeply, so its sender would wait for ever.
    return runtime != RUST or len(text) > _MAX_INSPECTED or not nests_deeper(text, RUST_DEPTH)


def reads_small_messages(user_agent: str) -> bool:
    """Return whether a channel's reader ends silently at a message above SMALL_MESSAGE, by its User-Agent."""
    return "websockets/" in user_agent  # the library of the Python SDK
