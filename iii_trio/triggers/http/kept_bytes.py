"""The bytes of requests that the server keeps: JSON bodies, heads that are not whole, and bytes behind a request.

One client is bounded by the settings, and all together by this. The sum is a part of the engine's memory budget.
"""

from __future__ import annotations

from typing import Final, final

from ...transport.memory_budget import UNLIMITED_SHARE, MemoryShare

_SMALL: Final = 64 * 1024
_FOR_LARGE: Final = 7 / 8
"""The part of the limit that requests which keep more than `_SMALL` bytes may fill, so that small ones go on."""


@final
class KeptBytes:
    """Counts the bytes that all clients of one server make it keep."""

    def __init__(self, share: MemoryShare = UNLIMITED_SHARE) -> None:
        self.total = 0
        self._share = share

    def add(self, size: int) -> None:
        """Keep so many bytes more, or fewer if negative."""
        if size:
            self.total += size
            self._share.set(self.total)

    def has_room(self, limit: int, mine: int) -> bool:
        """Return whether a request may keep the `mine` bytes that it has added. `limit` is the setting for all."""
        most = min(limit, self._share.limit_bytes)
        return self.total <= (most if mine <= _SMALL else most * _FOR_LARGE)
