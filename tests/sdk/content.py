"""The bytes that every worker writes, whatever its language: a block of prime length, over and over."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

BLOCK = bytes(i * i % 251 for i in range(65_521))


def pieces(total: int, chunk: int) -> Iterator[bytes]:
    """The first `total` bytes, `chunk` at a time."""
    pattern = BLOCK * (chunk // len(BLOCK) + 2)
    for at in range(0, total, chunk):
        start = at % len(BLOCK)
        yield pattern[start : start + min(chunk, total - at)]


def sha256_of_first(total: int) -> str:
    """What the first `total` bytes hash to: a reader that has this has a prefix, unchanged."""
    digest = hashlib.sha256()
    for piece in pieces(total, 1 << 20):
        digest.update(piece)
    return digest.hexdigest()
