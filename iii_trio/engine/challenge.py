"""Ask one peer for a sign of life now, instead of waiting for the heartbeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import trio


@final
class Challenge:
    """One question to a peer. Each `answered` is called exactly once, with whether a sign of life came in time."""

    def __init__(self, seconds: float, progress: Callable[[], object], still_there: Callable[[], bool]) -> None:
        """`progress` is compared at half of the time and at its end. None says that a peer has nothing to make it with."""
        self._seconds = seconds
        self._progress = progress
        self._still_there = still_there
        self._waiting: list[Callable[[bool], object]] = []
        self._resolved = trio.Event()

    def add(self, answered: Callable[[bool], object]) -> None:
        """Tell one more about the answer."""
        self._waiting.append(answered)

    def resolve(self, alive: bool) -> None:
        """Tell all that wait for the answer. Harmless when that was done already."""
        if not self._resolved.is_set():
            self._resolved.set()
            for answered in self._waiting:
                answered(alive)

    async def run(self) -> None:
        """Wait for the answer. If cancelled: the answer is still open, and the owner resolves it."""
        with trio.move_on_after(self._seconds / 2):
            await self._resolved.wait()
        halfway = self._progress()
        with trio.move_on_after(self._seconds / 2):
            await self._resolved.wait()
        # After a pause of this process the answer may be here unread, or a large message may be on its way.
        self.resolve(self._still_there() or (halfway is not None and self._progress() != halfway))
