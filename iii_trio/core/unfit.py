"""What a peer's SDK cannot read: it would drop the message, or its connection, and whoever waits would wait for ever."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from ..wire import ErrorCode, WireError

if TYPE_CHECKING:
    from .session import Session

_SMALL_MESSAGE: Final = 1024 * 1024
"""Bytes that every SDK takes in one message."""
_RUST_DEPTH: Final = 127
"""Levels that the Rust SDK's JSON parser follows, the message itself among them."""
_LOOKED_AT: Final = 1024 * 1024
"""Longer messages are not looked at for their depth: it would take so long that others would notice."""

_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_NO_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_STEP: Final = [{ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}.get(byte, 0) for byte in range(256)]


def why_unfit(peer: Session, text: bytes) -> WireError | None:
    """Why this message, which is JSON, is not to be sent to this peer; None if it is."""
    if len(text) > _SMALL_MESSAGE and not peer.takes_large_messages:
        problem = f"The message is {len(text)} bytes; {peer.label} takes at most {_SMALL_MESSAGE}. Use a channel."
        return WireError(ErrorCode.PAYLOAD_TOO_LARGE, problem)
    if peer.info.runtime == "rust" and len(text) <= _LOOKED_AT and nests_deeper(text, _RUST_DEPTH):
        problem = (
            f"The message nests deeper than {_RUST_DEPTH} levels, which {peer.label}, on the Rust SDK, cannot read."
        )
        return WireError(ErrorCode.SERIALIZATION_ERROR, problem)
    return None


def nests_deeper(text: bytes, levels: int) -> bool:
    """Whether a JSON text has more than so many levels of lists and objects. Cheap for texts of few lists and objects."""
    if text.count(b"[") + text.count(b"{") <= levels:
        return False
    if b"\\" in text:
        text = _ESCAPE.sub(b"", text)  # so that every quote begins or ends a string
    outside_of_strings = b"".join(text.translate(None, _NO_STRUCTURE).split(b'"')[::2])
    return max(accumulate(map(_STEP.__getitem__, outside_of_strings)), default=0) > levels
