"""The task that keeps the directory up by the log of the store. Whatever was missed is repaired by reading everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import trio

from .directory import Difference, Directory
from .events import wait_and_cancel
from .lease_keeper import RETRY_SECONDS
from .records import LEFT, EntryKind, Position
from .store import MeshStore, StoreUnavailable


@final
class Follower:
    """Follows one store. `on_change` is given each difference, with the reason why nodes of it are gone."""

    def __init__(
        self,
        store: MeshStore,
        directory: Directory,
        lease_seconds: float,
        joined: trio.Event,
        on_change: Callable[[Difference, str], object],
    ) -> None:
        self._store = store
        self._directory = directory
        self._lease_seconds = lease_seconds
        self._joined = joined
        self._on_change = on_change
        self._store_position: Position | None = None
        """How far the store was at the last renewal, and had to have been read by the next one."""
        self._cursor = ""
        self._behind = trio.Event()
        """Set to have the directory read as a whole."""

    @property
    def lines_behind(self) -> int:
        """How many lines of the log are not read yet, as far as the last renewal has told."""
        there = self._store_position
        return max(0, there.number - self._directory.position.number) if there is not None else 0

    def compare(self, position: Position) -> None:
        """Have everything read again after a gap in the log, or after a whole interval without its lines."""
        before, self._store_position = self._store_position, position
        known = self._directory.position
        # A store that lost everything counts anew, and its log continues no other.
        if (
            position.epoch != known.epoch
            or position.number < known.number
            or (before is not None and before.epoch == position.epoch and known.number < before.number)
        ):
            self._behind.set()

    async def run(self) -> None:
        """Follow the log from the first lease on. If cancelled: it stops."""
        # Links that are opened before would not tell the fencing number of this node, by which the others know its
        # sessions. A node that may not join, because another one has its name, has nothing to say in the mesh at all.
        await self._joined.wait()
        while True:
            try:
                self._behind = trio.Event()
                with trio.fail_after(self._lease_seconds):
                    snapshot = await self._store.snapshot()
                self._cursor = snapshot.cursor
                self._on_change(self._directory.replace(snapshot), "it has left the mesh")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait_and_cancel, self._behind, nursery.cancel_scope)
                    await self._follow_log()
                    nursery.cancel_scope.cancel(reason="lines of the log are missing")
            except (StoreUnavailable, trio.TooSlowError):
                await trio.sleep(RETRY_SECONDS)  # the keeper of the lease has said so
            except BaseExceptionGroup as group:
                if group.split(StoreUnavailable)[1] is not None:
                    raise
                await trio.sleep(RETRY_SECONDS)

    async def _follow_log(self) -> None:
        """Take the lines of the log, until one is missing."""
        while True:
            entries, self._cursor = await self._store.follow(self._cursor)
            for entry in entries:
                changed = self._directory.apply(entry)
                if changed is None:
                    self._on_change(Difference(odd=list(entry.odd)), "")
                    return
                why = "its lease has run out" if entry.kind is EntryKind.LOST else LEFT
                self._on_change(changed, why)
