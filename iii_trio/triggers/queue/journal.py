"""The one task that brings changes to the store.

All changes that come during a commit go together into the next one. A change that cannot be kept is refused to its
sender, if it has a `refused` callback. Otherwise it is tried again until it is kept, because it has happened already.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar, final

import msgspec
import trio

from ...environment import RunBlocking
from ...errors import CallError
from ...nursery import sort_failure
from ...report import get_logger
from ...text import named_error
from .store import BadChange, Change, Payload, StorageError, Store

T = TypeVar("T")
LOGGER: Final = get_logger("iii_trio.queue")
_CLOSING_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 1.0
_BREATH_SECONDS: Final = 0.05
_IDLE_SECONDS: Final = 2.0  # without a change, after which the store tidies up


class _Entry(msgspec.Struct, eq=False):
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
        self._gathered_changes: list[Change] = []
        self._gathered: list[Any] = []
        """The subjects of the gathered changes."""
        self.gathered_kept: Callable[[Sequence[Any]], object] = lambda subjects: None
        """Called with the subjects of the gathered changes that a commit has kept."""
        self._news = trio.lowlevel.ParkingLot()
        self._turn = trio.Lock()
        self._trouble = ""
        self._refusing = False
        """Whether the trouble has cost a caller its new job. Then only a new job that is kept ends it."""
        self._untidy = True
        self._commits = 0
        self._commit_seconds: deque[float] = deque(maxlen=100)
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
            if self._news:
                self._news.unpark()

    def gather(self, changes: Sequence[Change], subject: object) -> None:
        """Keep these changes, which have happened already, with all others that are gathered until the next commit.

        `gathered_kept` is called once for all of them. Each change by itself would cost a callback.
        """
        self._gathered_changes += changes
        self._gathered.append(subject)
        if self._news:
            self._news.unpark()

    async def settled(self) -> None:
        """Wait until all changes before this call are kept. If cancelled: they are kept later."""
        settled = trio.Event()
        self.write([], settled.set)
        await settled.wait()

    async def written(
        self,
        changes: Sequence[Change],
        kept: Callable[[], object] = lambda: None,
        refused: Callable[[], object] = lambda: None,
    ) -> None:
        """Keep these changes, and wait until they are kept.

        `kept` or `refused` is called, also if the wait is cancelled. Raises CallError `storage_failed` for changes that are
        refused. If cancelled: the changes are kept or refused later.
        """
        if not changes:
            return
        settled = trio.Event()
        problem: list[StorageError] = []

        def on_kept() -> None:
            kept()
            settled.set()

        def on_refused(error: StorageError) -> None:
            problem.append(error)
            refused()
            settled.set()

        self.write(changes, on_kept, on_refused)
        await settled.wait()
        if problem:
            raise CallError("storage_failed", str(problem[0]))

    @property
    def commits(self) -> dict[str, Any]:
        """How many commits there were, and how many seconds the last hundred took: their median and the longest."""
        import statistics  # here, because it loads fractions and decimals, which a start has no need of

        seconds = self._commit_seconds
        return {
            "count": self._commits,
            "median_seconds": statistics.median(seconds) if seconds else None,
            "max_seconds": max(seconds, default=None),
        }

    async def fetch(self, key: int) -> Payload | None:
        """Return the payload of a job, or None if the store has none.

        Raises StorageError. If cancelled: nothing changes.
        """
        found = await self._use(lambda: self._store.fetch([key]))
        return found.get(key)

    async def read(self, function: Callable[[], T]) -> T:
        """Run a function that reads from the store, alone. Raises StorageError. If cancelled: nothing changes."""
        return await self._use(function)

    async def backup(self, take: Callable[[bytes], Awaitable[object]]) -> None:
        """Give the pieces of a file with all jobs to `take`, and write changes between them.

        Raises StorageError, and what `take` raises. If cancelled: the rest is not read.
        """
        pieces = await self._use(self._store.backup)
        try:
            while (piece := await self._use(lambda: next(pieces, None))) is not None:
                await take(piece)
        finally:
            with trio.CancelScope(shield=True):  # a moment: it only ends the reading
                await self._use(pieces.close)
            self._untidy = True
            self._news.unpark()

    async def _use(self, function: Callable[[], T]) -> T:
        """Run a method of the store, alone. Raises StorageError."""
        try:
            async with self._turn:
                return await self._run(function)
        except BaseException as problem:  # noqa: ASYNC103 - a store's bug must not end its engine
            error = _as_storage_error(problem)
            raise error from (None if error is problem else problem)  # noqa: ASYNC104

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
                while (self._waiting or self._gathered) and await self._commit():
                    pass

    async def _wait(self) -> None:
        """Wait for changes. After a while without any, have the store tidy up once."""
        while not (self._waiting or self._gathered):
            if not self._untidy:
                await self._news.park()
                continue
            with trio.move_on_after(_IDLE_SECONDS):
                await self._news.park()
                continue
            self._untidy = await self._tidy()
            while self._untidy and not (self._waiting or self._gathered):
                self._untidy = await self._tidy()

    async def _tidy(self) -> bool:
        try:
            return await self._use(self._store.tidy)
        except StorageError as error:
            self._report(error)
            return False

    async def _commit(self) -> bool:
        """Write all that waits. Return False if any of it has to be tried again, or was refused."""
        entries, self._waiting = self._waiting, []
        if self._gathered:
            subjects, self._gathered = self._gathered, []
            changes, self._gathered_changes = self._gathered_changes, []
            # They come first, because a caller of `settled` waits for all changes before its own.
            entries.insert(0, _Entry(changes, functools.partial(self.gathered_kept, subjects), None))
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
                began = trio.current_time()
                with trio.CancelScope(shield=True):  # a commit that has begun is waited for and answered
                    await self._use(lambda: self._store.write(changes))
                self._commits += 1
                self._commit_seconds.append(trio.current_time() - began)
        except StorageError as error:
            self._report(error)
            return error
        if self._trouble and (not self._refusing or any(entry.refused is not None for entry in entries)):
            LOGGER.warning("the jobs in %s can be written to again", self._store.place)
            self._trouble, self._refusing = "", False
        self._untidy = True
        for entry in entries:
            if entry.kept is not None:
                entry.kept()
        self.after_commit()
        return None

    def _report(self, error: StorageError) -> None:
        if isinstance(error, BadChange):
            return  # the one entry that is to blame is told, or logged
        if str(error) != self._trouble:  # once, however often it is tried again
            LOGGER.error("%s", error, exc_info=error.__cause__)
        self._trouble = str(error)


def _as_storage_error(problem: BaseException) -> StorageError:
    """Return a failure of the store as a StorageError. A cancellation or a KeyboardInterrupt is raised again."""
    if isinstance(problem, StorageError):
        return problem
    failure, passing = sort_failure(problem)
    if passing is not None:
        raise passing
    assert failure is not None
    return StorageError(f"the store failed: {named_error(failure)}")
