"""The only place that knows the frames of RFC 6455. Pure: no I/O, no clock, no randomness."""

from .build import (
    BINARY,
    CLOSE,
    CONTINUATION,
    HAS_C_MASK,
    PING,
    PONG,
    TEXT,
    Buffer,
    CloseFrame,
    ReservedOpcode,
    apply_mask,
    close_payload,
    frame,
    frame_head,
)
from .run import Run, frames_of
from .scan import MessageScanner, RunScanner, split_controls

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "HAS_C_MASK",
    "PING",
    "PONG",
    "TEXT",
    "Buffer",
    "CloseFrame",
    "MessageScanner",
    "ReservedOpcode",
    "Run",
    "RunScanner",
    "apply_mask",
    "close_payload",
    "frame",
    "frame_head",
    "frames_of",
    "split_controls",
]
