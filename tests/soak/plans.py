"""What one stream carries, and how it is to end: known to all who take part, so that each can judge what it gets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, Final

import attrs

_BLOCK: Final = bytes(i * i % 251 for i in range(65_521))  # of a prime length: no two pieces of a stream are alike

ENDINGS: Final = ("close", "close", "close", "abort", "cancel")
_SIZES: Final = (0, 1, 1_000, 20_000, 200_000, 1_000_000)
_PIECES: Final = (700, 5_000, 16_384, 65_536, 300_000)


@attrs.frozen
class Plan:
    """One stream. `ending` is `close` after `size` bytes, `abort` by the writer then, or `cancel` by the reader then.

    `cancel` has a writer that never comes to an end.
    """

    id: str
    owner: str
    writer: str
    reader: str
    size: int
    """Bytes."""
    piece: int
    """Bytes of an item."""
    pause: float
    """Seconds that the writer waits after each item."""
    offset: int
    """Where in the endless pattern it begins."""
    sha256: str
    ending: str
    buffer_size: int
    began: float
    """Seconds of the system's monotonic clock, which all processes share."""

    @classmethod
    def draw(
        cls, random: Random, id_: str, *, owner: str, writer: str, reader: str, ending: str, longest: float, now: float
    ) -> Plan:
        """A stream at random between these, of about `longest` seconds at most."""
        size = random.randrange(random.choice(_SIZES) + 1)
        piece = max(random.choice(_PIECES), size // 200)
        offset = random.randrange(len(_BLOCK))
        sha256 = hashlib.sha256(b"".join(pieces(offset, piece, size))).hexdigest()
        pause = random.choice((0, random.uniform(0, longest))) / (size // piece + 1)
        buffer_size = random.choice((1, 4, 64))
        return cls(id_, owner, writer, reader, size, piece, pause, offset, sha256, ending, buffer_size, now)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Plan:
        """A plan that travelled."""
        return cls(**told)

    def to_json(self) -> dict[str, Any]:
        """The plan, to travel."""
        return attrs.asdict(self)

    def pieces(self) -> Iterator[bytes]:
        """The items of the whole stream."""
        return pieces(self.offset, self.piece, self.size)


def pieces(offset: int, piece: int, size: int | None) -> Iterator[bytes]:
    """`size` bytes of the pattern from `offset` on, a piece at a time; without a size, for ever."""
    pattern = _BLOCK * (piece // len(_BLOCK) + 2)
    at = 0
    while size is None or at < size:
        start = (offset + at) % len(_BLOCK)
        length = piece if size is None else min(piece, size - at)
        yield pattern[start : start + length]
        at += length


class Receipt:
    """What has come of a stream so far."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.fits = True
        """Whether all of it is what the writer wrote, from the start and without a gap."""

    def take(self, data: bytes) -> None:
        """The next bytes."""
        expected = next(pieces(self._plan.offset + self.bytes, len(data), len(data)), b"")
        beyond = self._plan.ending != "cancel" and self.bytes + len(data) > self._plan.size
        self.fits = self.fits and data == expected and not beyond
        self._digest.update(data)
        self.bytes += len(data)

    @property
    def whole(self) -> bool:
        """Whether it is all that there is: length and hash."""
        return self.bytes == self._plan.size and self._digest.hexdigest() == self._plan.sha256

    def to_json(self) -> dict[str, Any]:
        """As it is told."""
        return {"bytes": self.bytes, "fits": self.fits, "whole": self.whole}
