"""The only place that knows the frames of RFC 6455. Pure: no I/O, no clock, no randomness."""

from .batch import FrameBatch, frames_of, message_batch, pieces_of
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
    masked_text,
    text_head,
)
from .scan import BatchScanner, MessageScanner, split_controls

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "HAS_C_MASK",
    "PING",
    "PONG",
    "TEXT",
    "BatchScanner",
    "Buffer",
    "CloseFrame",
    "FrameBatch",
    "MessageScanner",
    "ReservedOpcode",
    "apply_mask",
    "close_payload",
    "frame",
    "frame_head",
    "frames_of",
    "masked_text",
    "message_batch",
    "pieces_of",
    "split_controls",
    "text_head",
]
