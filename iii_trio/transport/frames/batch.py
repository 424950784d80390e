"""Runs: many ready-made server frames in one piece.

What a channel's writer sends becomes a batch and goes to the reader as it is: no message is ever an object of its own on
the way. Only under back-pressure is a batch looked into, to cut it at a bound or to find the frame that a write has torn;
then the frame heads inside it are walked, past the payloads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import msgspec

from .build import Buffer, frame_head

_SMALL = 8192  # bytes; joining two parts of less costs less than keeping both


@final
class FrameBatch:
    """Whole server frames, unmasked.

    `parts` are for a gathering send. A frame's head lies within one of them; its payload may go on in the next.
    `items` is how many messages end in the batch, `payload` how many payload bytes it has, `size` how many bytes in all.
    """

    __slots__ = ("items", "parts", "payload", "size")

    def __init__(self, parts: list[Buffer], items: int, payload: int) -> None:
        self.parts = parts
        self.items = items
        self.payload = payload
        self.size = sum(map(len, parts))

    def cut(self, items: int, payload: int) -> tuple[FrameBatch | None, FrameBatch | None]:
        """As many frames as have at most `items` ends of messages, and the rest.

        They also end where `payload` bytes are reached, so they may be one frame over. Either is None if it is nothing;
        a bound of 0 takes nothing.
        """
        if items <= 0 or payload <= 0:
            return None, self
        if self.items <= items and self.payload < payload:
            return self, None
        place = _walk(self.parts, items, payload, self.size)
        return self._before(place), self._behind(place)

    def followed_by(self, other: FrameBatch) -> FrameBatch:
        """Return the frames of both, in order. Small parts that meet are joined, so that many small batches stay compact."""
        parts = [*self.parts, *other.parts]
        at = len(self.parts)
        if 0 < at < len(parts) and len(parts[at - 1]) < _SMALL and len(parts[at]) < _SMALL:
            parts[at - 1 : at + 1] = [b"".join(parts[at - 1 : at + 1])]
        return FrameBatch(parts, self.items + other.items, self.payload + other.payload)

    def sent(self, n: int) -> tuple[list[Buffer], FrameBatch | None]:
        """Return the rest of the torn frame, and the frames not begun, after a write of `n` bytes."""
        place = _walk(self.parts, self.items, self.payload + 1, n)
        torn: list[Buffer] = []
        left = place.size - n
        for part in reversed(_parts_before(self.parts, place) if left else []):
            if not left:
                break
            if part:
                torn.append(part if len(part) <= left else memoryview(part)[-left:])
                left -= len(torn[-1])
        torn.reverse()
        return torn, self._behind(place)

    def _before(self, place: _Place) -> FrameBatch | None:
        if not place.size:
            return None
        return FrameBatch(_parts_before(self.parts, place), place.items, place.payload)

    def _behind(self, place: _Place) -> FrameBatch | None:
        if place.size == self.size:
            return None
        parts = self.parts[place.part :]
        if place.offset:
            parts[0] = memoryview(parts[0])[place.offset :]
        return FrameBatch(parts, self.items - place.items, self.payload - place.payload)


def message_batch(opcode: int, payload: bytes) -> FrameBatch:
    """Return a whole message as a batch."""
    size = len(payload)
    head = frame_head(opcode, size)
    # Joining a large payload with its head would copy it.
    return FrameBatch([head + payload] if size < _SMALL else [head, payload], items=1, payload=size)


def frames_of(batch: FrameBatch) -> Iterator[tuple[int, bool, memoryview]]:
    """Opcode, FIN and payload of each frame of a batch."""
    data = memoryview(batch.parts[0] if len(batch.parts) == 1 else b"".join(batch.parts))
    at = 0
    while at < len(data):
        head, payload = _lengths(data, at)
        end = at + head + payload
        yield data[at] & 15, data[at] >= 0x80, data[end - payload : end]
        at = end


def pieces_of(batch: FrameBatch) -> Iterator[tuple[int, bool, Buffer]]:
    """Opcode, FIN and bytes of each piece of a batch, without copying. Only the last piece of a frame has its FIN.

    A payload that lies in two parts comes in two pieces.
    """
    opcode, fin, left = 0, False, 0
    for part in batch.parts:
        at, size = 0, len(part)
        while at < size:
            if not left:
                first = part[at]
                opcode, fin = first & 15, first >= 0x80
                head, left = _lengths(part, at)
                at += head
                if not left:
                    yield opcode, fin, b""
                    continue
            taken = min(left, size - at)
            if taken:
                left -= taken
                yield opcode, fin and not left, part if taken == size else memoryview(part)[at : at + taken]
                at += taken


class _Place(msgspec.Struct, frozen=True):
    """A place between two frames of a batch, and what lies before it."""

    part: int
    offset: int
    items: int
    payload: int
    size: int


def _walk(parts: list[Buffer], items: int, payload: int, size: int) -> _Place:
    """Return the first place at or past so many payload bytes or bytes, or before the end of a message too many."""
    ended = paid = walked = 0
    skip = 0  # bytes of a payload that go on in the next part
    for index, part in enumerate(parts):
        at, size_here = skip, len(part)
        while at < size_here:
            first = part[at]
            if paid >= payload or walked >= size or (ended == items and first >= 0x80):
                return _Place(index, at, ended, paid, walked)
            head, length = _lengths(part, at)
            at += head + length
            walked += head + length
            paid += length
            if first >= 0x80:
                ended += 1
        skip = at - size_here
    return _Place(len(parts), 0, ended, paid, walked)


def _lengths(part: Buffer, at: int) -> tuple[int, int]:
    """Of the frame that begins there: the length of its head, and of its payload."""
    length = part[at + 1]
    if length < 126:
        return 2, length
    if length == 126:
        return 4, (part[at + 2] << 8) | part[at + 3]
    return 10, int.from_bytes(part[at + 2 : at + 10], "big")


def _parts_before(parts: list[Buffer], place: _Place) -> list[Buffer]:
    before = parts[: place.part]
    if place.offset:
        before.append(memoryview(parts[place.part])[: place.offset])
    return before
