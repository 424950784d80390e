"""The limits of other SDKs. Messages that a peer cannot read are refused instead of being lost."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

from ..wire import ErrorCode, WireError
from .session import WorkerSession

_SMALL_MESSAGE: Final = 1024 * 1024
"""The size in bytes that every SDK accepts in one message."""
_RUST_DEPTH: Final = 127
"""The nesting levels that the Rust SDK's JSON parser follows, the message itself included."""
_MAX_INSPECTED: Final = 1024 * 1024
"""The largest message in bytes whose depth is checked. Checking larger ones would delay other workers."""

_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_NO_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_STEP: Final = [{ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}.get(byte, 0) for byte in range(256)]


def why_unfit(peer: WorkerSession, text: bytes) -> WireError | None:
    """Return the reason why this peer cannot read a JSON message, or None if it can."""
    if len(text) > _SMALL_MESSAGE and not peer.takes_large_messages:
        problem = f"The message is {len(text)} bytes; {peer.label} takes at most {_SMALL_MESSAGE}. Use a channel."
        return WireError(ErrorCode.PAYLOAD_TOO_LARGE, problem)
    # The Rust SDK drops a message that nests too deeply, so its sender would wait for ever.
    if peer.info.runtime == "rust" and len(text) <= _MAX_INSPECTED and nests_deeper(text, _RUST_DEPTH):
        problem = (
            f"The message nests deeper than {_RUST_DEPTH} levels, which {peer.label}, on the Rust SDK, cannot read."
        )
        return WireError(ErrorCode.SERIALIZATION_ERROR, problem)
    return None


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
