"""Building frames, and what a Close says."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from ...errors import FrameError

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

PROTOCOL_ERROR: Final = 1002
NO_STATUS_RCVD: Final = 1005
INVALID_DATA: Final = 1007
MESSAGE_TOO_BIG: Final = 1009

MAX_CONTROL: Final = 125
"""The most payload bytes that a control frame has."""

_HEAD_2: Final = struct.Struct("!BBH")
_HEAD_8: Final = struct.Struct("!BBQ")

Buffer: TypeAlias = bytes | bytearray | memoryview

if TYPE_CHECKING:

    def apply_mask(data: Buffer, mask: bytes) -> bytes: ...

    HAS_C_MASK: bool
else:
    try:
        from websockets.speedups import apply_mask

        HAS_C_MASK = True
    except ImportError:  # websockets was not compiled for this platform
        from websockets.utils import apply_mask

        HAS_C_MASK = False


class ReservedOpcode(FrameError):
    """A frame of a kind that RFC 6455 does not know: how our engine cuts a stream for an SDK (clause C6.2)."""

    def __init__(self, opcode: int) -> None:
        super().__init__(PROTOCOL_ERROR, f"the opcode {opcode} is reserved")


class CloseFrame(msgspec.Struct, frozen=True):
    """What a Close said. `code` is 1005 when it had none."""

    code: int
    reason: str = ""


def frame_head(opcode: int, length: int, *, fin: bool = True, mask: bytes | None = None) -> bytes:
    """Build the head of a frame with a payload of `length` bytes."""
    first = opcode | 0x80 if fin else opcode
    masked = 0 if mask is None else 0x80
    if length < 126:
        head = bytes((first, masked | length))
    elif length < 65_536:
        head = _HEAD_2.pack(first, masked | 126, length)
    else:
        head = _HEAD_8.pack(first, masked | 127, length)
    return head if mask is None else head + mask


@functools.lru_cache(maxsize=256)
def text_head(length: int) -> bytes:
    """Build the head of a whole text frame without a mask, which is the frame of nearly all messages to workers."""
    return frame_head(TEXT, length)


@functools.lru_cache(maxsize=256)
def _masked_text_head(length: int) -> bytes:
    return frame_head(TEXT, length, mask=b"")


def masked_text(payload: bytes, mask: bytes) -> bytes:
    """Build a whole text frame with a mask (four random bytes), which is the frame of all messages of workers."""
    return _masked_text_head(len(payload)) + mask + apply_mask(payload, mask)


def frame(opcode: int, payload: Buffer, *, fin: bool = True, mask: bytes | None = None) -> bytes:
    """Build a whole frame, masked if there is a `mask` (four random bytes)."""
    head = frame_head(opcode, len(payload), fin=fin, mask=mask)
    return head + (payload if mask is None else apply_mask(payload, mask))


def close_payload(code: int, reason: str = "") -> bytes:
    """Return the payload of a Close; a reason that is too long is cut between two characters."""
    return code.to_bytes(2, "big") + reason.encode()[: MAX_CONTROL - 2].decode(errors="ignore").encode()


def parse_close(payload: bytes) -> CloseFrame:
    """Parse the payload of a Close. Raises FrameError."""
    if not payload:
        return CloseFrame(NO_STATUS_RCVD)
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "a Close has half a code")
    code = int.from_bytes(payload[:2], "big")
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise FrameError(PROTOCOL_ERROR, f"a Close has the code {code}, which may not be sent")
    if not is_utf8(payload[2:]):
        raise FrameError(INVALID_DATA, "the reason of a Close is not UTF-8")
    return CloseFrame(code, payload[2:].decode())


def is_utf8(data: bytes) -> bool:
    """Whether `data` is text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
