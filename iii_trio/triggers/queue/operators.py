"""What operators have done with jobs: their verbs, carried out with the ledger, the journal and the running attempts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

from ...errors import CallError, StorageError
from .dispatcher import Dispatcher
from .lane import Job, Lane
from .store import Change, Remove

_JOBS_AT_ONCE: Final = 500  # a few milliseconds of purging


@final
class Operators:
    """The verbs of operators."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._ledger = dispatcher.ledger
        self._journal = dispatcher.journal

    async def redrive(self, jobs: Sequence[Job], function: tuple[str, str] | None = None) -> None:
        """Make dead letters jobs again (Q8), maybe of another function.

        Raises CallError `storage_failed`: none of them is a job again. If cancelled: they are jobs again.
        """

        def kept() -> None:
            for job in jobs:
                self._ledger.redriven(job)

        changes = [change for job in jobs for change in self._ledger.redrive(job, function)]
        await self._journal.written(changes, kept, lambda: self._still_dead(jobs))

    async def discard(self, jobs: Sequence[Job]) -> None:
        """Discard dead letters (Q8).

        Raises CallError `storage_failed`: none of them is discarded. If cancelled: they are discarded.
        """
        changes = [change for job in jobs for change in self._ledger.discard(job)]
        await self._journal.written(changes, lambda: self._dispatcher.erased(jobs), lambda: self._still_dead(jobs))

    async def purge(self, lanes: Sequence[Lane]) -> int:
        """Remove the waiting jobs of these lanes, not those that run. Return how many there were (Q17).

        If cancelled: they are removed.
        """
        jobs = [job for lane in lanes for job in self._ledger.purge(lane)]
        for at in range(0, len(jobs), _JOBS_AT_ONCE):
            piece = jobs[at : at + _JOBS_AT_ONCE]
            removals = [Remove(job.record.key) for job in piece]
            self._journal.write(removals, lambda piece=piece: self._dispatcher.erased(piece))  # type: ignore[misc]
        await self._journal.settled()
        return len(jobs)

    async def cancel(self, job: Job) -> None:
        """Remove one job that waits or runs. A handler that runs is cancelled, if its SDK supports that (Q24).

        If cancelled: it is removed.
        """
        self._dispatcher.stop(job, "the job was cancelled")
        self._journal.write(self._ledger.cancel(job), lambda: self._dispatcher.erased([job]))
        self._dispatcher.go_on()
        await self._journal.settled()

    async def pause(self, lanes: Sequence[Lane], paused: bool) -> None:
        """Pause or resume lanes, also for later engines (Q25).

        Raises CallError `storage_failed`: it holds until the engine ends only. If cancelled: it holds.
        """
        changes: list[Change] = []
        for lane in lanes:
            self._ledger.pause(lane, paused)
            changes.append(lane.save())
        self._dispatcher.start_jobs()

        def refused() -> None:
            for lane in lanes:
                lane.saved = None

        await self._journal.written(changes, refused=refused)

    async def backup(self, take: Callable[[bytes], Awaitable[object]]) -> int:
        """Give the pieces of a file with all jobs to `take` (Q32). Return the number of bytes.

        Raises CallError `storage_failed`, and what `take` raises. If cancelled: the rest is not read.
        """
        size = 0

        async def counted(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            await take(piece)

        try:
            await self._journal.backup(counted)
        except StorageError as error:
            raise CallError("storage_failed", str(error)) from None
        return size

    def _still_dead(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._ledger.still_dead(job)
