"""The limits of other SDKs. Messages that a peer cannot read are refused instead of being lost."""

from __future__ import annotations

from ..compat.sdk_limits import RUST, RUST_DEPTH, SMALL_MESSAGE, reads_depth
from ..wire import ErrorCode, WireError
from .session import WorkerSession


def why_unfit(peer: WorkerSession, text: bytes) -> WireError | None:
    """Return the reason why this peer cannot read a JSON message, or None if it can."""
    runtime = peer.info.runtime
    if runtime != RUST and len(text) <= SMALL_MESSAGE:
        return None  # most messages are small, and other SDKs read any depth
    if len(text) > SMALL_MESSAGE and not peer.takes_large_messages:
        problem = f"The message is {len(text)} bytes; {peer.label} takes at most {SMALL_MESSAGE}. Use a channel."
        return WireError(ErrorCode.PAYLOAD_TOO_LARGE, problem)
    if not reads_depth(runtime, text):
        problem = (
            f"The message nests deeper than {RUST_DEPTH} levels, which {peer.label}, on the Rust SDK, cannot read."
        )
        return WireError(ErrorCode.SERIALIZATION_ERROR, problem)
    return None
