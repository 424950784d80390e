"""Messages as an unaware Python reader can bear them (the one exception of clause C3.1).

The Python SDK reads channels with a limit of 1 MiB a message, and ends *silently* at a larger one. For such a reader
larger binary messages are cut anew; a larger text message cannot be cut without changing what is said.
"""

from __future__ import annotations

from typing import Final

from ..errors import PeerError
from ..transport.frames import BINARY, CONTINUATION, TEXT, FrameBatch, frame, frames_of
from .sdk_limits import SMALL_MESSAGE

_PIECE: Final = 256 * 1024


class TextTooLarge(PeerError):
    """A text message is larger than this reader can take."""

    def __init__(self) -> None:
        super().__init__("a text message above 1 MiB cannot be passed to this reader, whose SDK would end silently")


class MessageSplitter:
    """Cuts the messages of one channel for one reader."""

    def __init__(self) -> None:
        self._kind = BINARY
        self._so_far = 0  # payload bytes of the message that is being sent

    def split(self, batch: FrameBatch) -> FrameBatch:
        """Return the same bytes, in messages of at most 1 MiB. Raises TextTooLarge."""
        parts: list[bytes | bytearray | memoryview] = []
        for opcode, fin, payload in frames_of(batch):
            if opcode != CONTINUATION:
                self._kind, self._so_far = opcode, 0
            if opcode == CONTINUATION or len(payload) > SMALL_MESSAGE or self._kind == TEXT:
                self._cut_frame(parts, opcode, fin, payload)
            else:
                parts.append(frame(opcode, payload, fin=fin))
                self._so_far = 0 if fin else len(payload)
        # Each part is one frame, and there may be more ends of messages now than there were.
        return FrameBatch(parts, items=sum(part[0] >= 0x80 for part in parts), payload=batch.payload)

    def _cut_frame(
        self, parts: list[bytes | bytearray | memoryview], opcode: int, fin: bool, payload: memoryview
    ) -> None:
        if self._kind == TEXT and self._so_far + len(payload) > SMALL_MESSAGE:
            raise TextTooLarge
        at = 0
        while True:
            piece = payload[at : at + _PIECE]
            at += len(piece)
            last = at == len(payload)
            if self._so_far and self._so_far + len(piece) > SMALL_MESSAGE:
                parts.append(frame(CONTINUATION, b""))  # the end of one message, and the begin of the next
                opcode, self._so_far = BINARY, 0
            parts.append(frame(opcode, piece, fin=fin and last))
            self._so_far = 0 if fin and last else self._so_far + len(piece)
            opcode = CONTINUATION
            if last:
                return
