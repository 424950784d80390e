"""One task that brings changes to the store: what waits goes together, in one commit, in a thread.

Whoever has a change says what is to be done when it is kept; many share one commit. A change that cannot be kept is
refused to who wanted it, if somebody does; else it is tried again until it is, so that nothing that has happened is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar, final

import attrs
import trio

from ...environment import RunBlocking
from ...report import get_logger
from .store import Change, StorageError, Store

T = TypeVar("T")
LOGGER: Final = get_logger("iii_trio.queue")
_LAST_WORDS_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 1.0
_BREATH_SECONDS: Final = 0.05


@attrs.define(eq=False)
class _Entry:
    changes: Sequence[Change]
    kept: Callable[[], object] | None
    refused: Callable[[StorageError], object] | None
    """None: what has happened cannot be refused, so it is tried again."""


@final
class Journal:
    """The way to the store."""

    def __init__(self, store: Store, run: RunBlocking) -> None:
        self._store = store
        self._run = run
        self._waiting: list[_Entry] = []
        self._news = trio.lowlevel.ParkingLot()
        self._turn = trio.Lock()
        self._trouble = ""
        self.commits = 0
        """How often the store was written to."""
        self.after_commit: Callable[[], object] = lambda: None
        """Called once whoever shared a commit has been told."""

    def write(
        self,
        changes: Sequence[Change],
        kept: Callable[[], object] | None = None,
        refused: Callable[[StorageError], object] | None = None,
    ) -> None:
        """Have these kept; `kept` is called once they are, or `refused`, if given, once they cannot be."""
        if changes:
            self._waiting.append(_Entry(changes, kept, refused))
            self._news.unpark()

    async def fetch(self, key: int) -> bytes:
        """The data of a job. Raises StorageError. If cancelled: nothing changes."""
        async with self._turn:
            found = await self._run(lambda: self._store.fetch([key]))
        if key not in found:
            raise StorageError(f"the job's data is not in {self._store.place} any more")
        return found[key]

    async def keep(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Bring what comes to the store, until cancelled; then what still waits."""
        try:
            task_status.started()
            while True:
                while not self._waiting:
                    await self._news.park()
                if not await self._commit():
                    await trio.sleep(_BREATH_SECONDS)  # however many callers keep coming
                    if all(entry.refused is None for entry in self._waiting):  # nobody waits for an answer
                        with trio.move_on_after(_AGAIN_SECONDS):
                            await self._news.park()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_WORDS_SECONDS):
                while self._waiting and await self._commit():
                    pass

    async def _commit(self) -> bool:
        """Write all that waits; False if it could not be."""
        entries, self._waiting = self._waiting, []
        changes = [change for entry in entries for change in entry.changes]
        try:
            with trio.CancelScope(shield=True):  # a commit that is begun is seen to its end, and answered for
                async with self._turn:
                    await self._run(lambda: self._store.write(changes))
        except Exception as problem:  # a store's bug must not end its engine
            error = problem if isinstance(problem, StorageError) else StorageError(f"the store failed: {problem!r}")
            if str(error) != self._trouble:  # once, however often it is tried again
                LOGGER.error("%s", error, exc_info=None if error is problem else problem)
            self._trouble = str(error)
            self._waiting = [entry for entry in entries if entry.refused is None] + self._waiting
            for entry in entries:
                if entry.refused is not None:
                    entry.refused(error)
            return False
        if self._trouble:
            LOGGER.warning("the jobs in %s can be written to again", self._store.place)
        self._trouble = ""
        self.commits += 1
        for entry in entries:
            if entry.kept is not None:
                entry.kept()
        self.after_commit()
        return True
