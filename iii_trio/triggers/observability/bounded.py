"""A queue of the latest records, bounded in their number and in their bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar, final


class Sized(Protocol):
    """A record that knows the memory that it is counted with, in bytes."""

    size: int


T = TypeVar("T", bound=Sized)


@final
class Bounded(Generic[T]):
    """Keeps the latest records, and gives up the oldest ones. The latest record is always kept, however large."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.bytes = 0
        self.dropped = 0
        """Records that were given up for newer ones."""
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._items: deque[T] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __reversed__(self) -> Iterator[T]:
        return reversed(self._items)

    def append(self, record: T) -> None:
        """Add the latest record."""
        self._items.append(record)
        self.bytes += record.size
        self._make_room()

    def popleft(self) -> T:
        """Remove and return the oldest record. Raises IndexError if there is none."""
        record = self._items.popleft()
        self.bytes -= record.size
        return record

    def clear(self) -> None:
        """Forget all records."""
        self._items.clear()
        self.bytes = 0

    def change_bounds(self, max_count: int, max_bytes: int) -> None:
        """Use these bounds from now on."""
        self._max_count, self._max_bytes = max_count, max_bytes
        self._make_room()

    def _make_room(self) -> None:
        while len(self._items) > 1 and (len(self._items) > self._max_count or self.bytes > self._max_bytes):
            self.popleft()
            self.dropped += 1
