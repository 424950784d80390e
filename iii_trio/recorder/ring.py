"""The last inputs of a hub, within a bound of bytes.

A ring is a row of segments. Each one begins with a snapshot of the hub, so that the oldest segment can be dropped as a
whole. Behind the snapshot stand batches. Usual messages, with what they caused, are in a batch as bytes. They take less
memory so, and the garbage collector has nothing to follow. Everything else is kept as an object.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, final

import attrs
import msgspec

from ..core.effects import Deliver, Effect, Send
from ..records import define, frozen
from . import inputs
from .inputs import Input
from .plain import Plain

SEGMENTS: Final = 4
"""The number of segments that fill a ring."""
ENTRY_BYTES: Final = 384
"""The approximate size in bytes of an entry that is kept as an object, its texts left out."""
BATCH_BYTES: Final = 32 * 1024
"""The texts of a batch. They are still in the cache of the CPU when the batch is encoded."""
LARGE_BYTES: Final = 8 * 1024
"""Texts of this size are kept and not copied."""


@final
class Entry:
    """One input with its effects."""

    __slots__ = ("arguments", "effects", "ids", "kind", "now")

    def __init__(
        self, kind: Input, now: float, ids: str, arguments: tuple[Any, ...], effects: tuple[Effect, ...]
    ) -> None:
        self.kind = kind
        self.now = now
        self.ids = ids
        """The ids and secrets that the core was given, with a space between them. A secret begins with `!`."""
        self.arguments = arguments
        self.effects = effects


@frozen(eq=False)
class Batch:
    """Entries that were encoded together."""

    data: bytes
    kept: tuple[Entry, ...]
    """The entries that are not usual messages. In `data` is a mark at the place of each."""


@define(eq=False)
class Segment:
    """A snapshot and the batches that follow it."""

    snapshot: bytes
    """The encoded snapshot of the hub."""
    started_at: float
    batches: list[Batch] = attrs.field(factory=list)
    bytes: int = 0


@final
class BatchEncoder:
    """Encodes entries, whose parts stand one behind the other in a list.

    time, session, text, effect            a message without ids that caused one message, as most do
    ids, time, session, text, effects      any other message that caused messages only
    Entry                                  any other input
    """

    def __init__(self) -> None:
        self._kept: list[Entry] = []
        self._buffer = bytearray()
        self._encode = msgspec.msgpack.Encoder(enc_hook=self._keep).encode_into

    def encode(self, parts: list[Any]) -> Batch:
        """Return a batch of these parts."""
        self._kept.clear()
        # A result of its own would take a third more memory than it needs.
        self._encode(parts, self._buffer)
        return Batch(bytes(self._buffer), tuple(self._kept))

    def _keep(self, entry: Any) -> None:
        self._kept.append(entry)


_decode: Final = msgspec.msgpack.Decoder(list[Any]).decode
_MESSAGES: Final[dict[str, type[Send] | type[Deliver]]] = {"Send": Send, "Deliver": Deliver}


def entries_of(batches: Iterable[Batch]) -> Iterator[Entry]:
    """Yield the entries of batches."""
    for batch in batches:
        parts, kept = iter(_decode(batch.data)), iter(batch.kept)
        for first in parts:
            # The encoder leaves None in the place of an entry that is kept.
            if first is None:
                yield next(kept)
            elif isinstance(first, str):
                now, session, text, effects = islice(parts, 4)
                made = tuple(_MESSAGES[name](*fields) for name, *fields in effects)
                yield Entry(inputs.RECEIVED, now, first, (session, text), made)
            else:
                session, text, (name, *fields) = islice(parts, 3)
                yield Entry(inputs.RECEIVED, first, "", (session, text), (_MESSAGES[name](*fields),))


@final
class Ring:
    """The segments of a ring, oldest first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.segments: deque[Segment] = deque()
        self.dropped = 0
        """The number of segments dropped so far."""

    @property
    def bytes(self) -> int:
        """The size of all segments."""
        return sum(segment.bytes for segment in self.segments)

    @property
    def segment_bytes(self) -> int:
        """The size at which a segment is full."""
        return self.max_bytes // SEGMENTS

    def begin(self, snapshot: Plain, now: float) -> Segment | None:
        """Begin a segment, and drop the oldest ones beyond the bound. Return None if the snapshot is too large."""
        encoded = msgspec.msgpack.encode(snapshot)
        # The other segments would have to go for it.
        if len(encoded) > self.segment_bytes:
            return None
        segment = Segment(encoded, now, bytes=len(encoded))
        self.segments.append(segment)
        # The new segment may grow to its share.
        while len(self.segments) > 1 and self.bytes + self.segment_bytes > self.max_bytes:
            self.segments.popleft()
            self.dropped += 1
        return segment

    def drop_oldest(self) -> bool:
        """Drop the oldest segment, unless it is the only one. Return whether there was another one."""
        # Entries without the snapshot before them are of no use.
        if len(self.segments) < 2:
            return False
        self.segments.popleft()
        self.dropped += 1
        return True

    def clear(self) -> None:
        """Drop everything."""
        self.dropped += len(self.segments)
        self.segments.clear()
