"""The one task that brings changes to the store.

All changes that come during a commit go together into the next one. A change that cannot be kept is refused to its
sender, if it has a `refused` callback. Otherwise it is tried again until it is kept, because it has happened already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar, final

import attrs
import trio

from ...environment import RunBlocking
from ...report import get_logger
from .store import BadChange, Change, Payload, StorageError, Store

T = TypeVar("T")
LOGGER: Final = get_logger("iii_trio.queue")
_CLOSING_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 1.0
_BREATH_SECONDS: Final = 0.05
_IDLE_SECONDS: Final = 2.0  # without a change, after which the store tidies up


@attrs.define(eq=False)
class _Entry:
    changes: Sequence[Change]
    kept: Callable[[], object] | None
    refused: Callable[[StorageError], object] | None
    """None: the changes have happened already, so they are tried again."""


@final
class Journal:
    """The queue of changes for a store."""

    def __init__(self, store: Store, run: RunBlocking) -> None:
        self._store = store
        self._run = run
        self._waiting: list[_Entry] = []
        self._news = trio.lowlevel.ParkingLot()
        self._turn = trio.Lock()
        self._trouble = ""
        self._refusing = False
        """Whether the trouble has cost a caller its new job. Then only a new job that is kept ends it."""
        self._untidy = True
        self.commits = 0
        """The number of commits so far."""
        self.after_commit: Callable[[], object] = lambda: None
        """Called after the callbacks of a commit."""

    def write(
        self,
        changes: Sequence[Change],
        kept: Callable[[], object] | None = None,
        refused: Callable[[StorageError], object] | None = None,
    ) -> None:
        """Keep these changes, all or none. One of the callbacks is called later.

        No changes at all, with a callback, wait for the changes before them.
        """
        if changes or kept is not None:
            self._waiting.append(_Entry(changes, kept, refused))
            self._news.unpark()

    async def fetch(self, key: int) -> Payload | None:
        """Return the payload of a job, or None if the store has none.

        Raises StorageError. If cancelled: nothing changes.
        """
        async with self._turn:
            found = await self._run(lambda: self._store.fetch([key]))
        return found.get(key)

    async def keep(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write changes until cancelled, and then those that still wait."""
        try:
            task_status.started()
            while True:
                await self._wait()
                if not await self._commit():
                    await trio.sleep(_BREATH_SECONDS)  # limits the rate of attempts, however many callers come
                    if all(entry.refused is None for entry in self._waiting):  # no caller waits for an answer
                        with trio.move_on_after(_AGAIN_SECONDS):
                            await self._news.park()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING_SECONDS):
                while self._waiting and await self._commit():
                    pass

    async def _wait(self) -> None:
        """Wait for changes. After a while without any, have the store tidy up once."""
        while not self._waiting and self._untidy:
            with trio.move_on_after(_IDLE_SECONDS):
                await self._news.park()
                continue
            self._untidy = await self._tidy()
            while self._untidy and not self._waiting:
                self._untidy = await self._tidy()
        while not self._waiting:
            await self._news.park()

    async def _tidy(self) -> bool:
        try:
            async with self._turn:
                return await self._run(self._store.tidy)
        except Exception as problem:
            self._report(_as_storage_error(problem), problem)
            return False

    async def _commit(self) -> bool:
        """Write all that waits. Return False if any of it has to be tried again, or was refused."""
        entries, self._waiting = self._waiting, []
        error = await self._try(entries)
        if error is None:
            return True
        if isinstance(error, BadChange):
            # One of the changes is to blame. Each is written by itself, so that it spoils nothing but itself.
            for at, entry in enumerate(entries):
                error = await self._try([entry])
                if isinstance(error, BadChange):
                    self._reject(entry, error)
                elif error is not None:
                    return await self._put_back(entries[at:], error)
            return True
        return await self._put_back(entries, error)

    async def _put_back(self, entries: list[_Entry], error: StorageError) -> bool:
        """Refuse what can be refused, and try the rest without it."""
        lasting = [entry for entry in entries if entry.refused is None]
        if len(lasting) < len(entries):
            self._refusing = True
            for entry in entries:
                if entry.refused is not None:
                    entry.refused(error)
            # New jobs have no room on a full disk, but removals do. They must not wait for a commit without new jobs.
            if not lasting or await self._try(lasting) is None:
                return False
        self._waiting = lasting + self._waiting  # before those that came meanwhile: changes keep their order
        return False

    def _reject(self, entry: _Entry, error: BadChange) -> None:
        if entry.refused is not None:
            entry.refused(error)
        else:
            LOGGER.error("%s; this change is not on disk, and is lost at a restart", error)
            if entry.kept is not None:
                entry.kept()

    async def _try(self, entries: Sequence[_Entry]) -> StorageError | None:
        """Write these entries in one commit, and call back if it succeeds."""
        changes = [change for entry in entries for change in entry.changes]
        try:
            if changes:
                with trio.CancelScope(shield=True):  # a commit that has begun is waited for and answered
                    async with self._turn:
                        await self._run(lambda: self._store.write(changes))
        except Exception as problem:  # a store's bug must not end its engine
            error = _as_storage_error(problem)
            self._report(error, problem)
            return error
        if self._trouble and (not self._refusing or any(entry.refused is not None for entry in entries)):
            LOGGER.warning("the jobs in %s can be written to again", self._store.place)
            self._trouble, self._refusing = "", False
        self._untidy = True
        self.commits += 1
        for entry in entries:
            if entry.kept is not None:
                entry.kept()
        self.after_commit()
        return None

    def _report(self, error: StorageError, problem: Exception) -> None:
        if isinstance(error, BadChange):
            return  # the one entry that is to blame is told, or logged
        if str(error) != self._trouble:  # once, however often it is tried again
            LOGGER.error("%s", error, exc_info=None if error is problem else problem)
        self._trouble = str(error)


def _as_storage_error(problem: Exception) -> StorageError:
    return problem if isinstance(problem, StorageError) else StorageError(f"the store failed: {problem!r}")
