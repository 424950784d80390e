"""The start of a queue: what its store has is taken over.

A few thousand jobs are loaded before the queue opens. If there are more, the queue opens then, and the rest is loaded
while it works. Jobs that come meanwhile are behind those in line.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import islice
from typing import Final, final

import trio

from ...report import get_logger
from .dispatcher import Dispatcher
from .job_loader import JobLoader
from .record import Record
from .store import Change, Damaged, ForgetLane, Loaded, Remove, SetAside, StorageError
from .subscribers import Subscribers

LOGGER: Final = get_logger("iii_trio.queue")
_JOBS_AT_ONCE: Final = 500  # a few milliseconds
_JOBS_BEFORE: Final = 5_000
_FIRST_PAUSE_SECONDS: Final = 1.0
_MAX_PAUSE_SECONDS: Final = 60.0


@final
class Loading:
    """Takes over the content of a store. `begin` comes first, and `go_on` when the queue works."""

    def __init__(self, dispatcher: Dispatcher, subscribers: Subscribers, loaded: Loaded) -> None:
        self._dispatcher = dispatcher
        self._ledger = dispatcher.ledger
        self._loader = JobLoader(dispatcher.ledger)
        self._subscribers = subscribers
        self._loaded = loaded
        self._rows = iter(loaded.jobs)
        self._settings = {saved.lane: saved.settings for saved in loaded.lanes}

    async def begin(self) -> None:
        """Take over the lanes, the subscribers and the first jobs.

        Raises StorageError. If cancelled: a part is loaded, and nothing of the store has changed.
        """
        ledger, loaded = self._ledger, self._loaded
        for warning in loaded.warnings:
            LOGGER.warning("%s", warning)
        self._subscribers.load(loaded.subscribers)
        for lane in ledger.lanes:
            if (text := self._settings.get(lane.text)) is not None:
                lane.restore_pause(text)
        if loaded.backlog is not None:
            self._loader.begin(loaded.backlog, self._settings)
        before = math.inf if loaded.backlog is None else _JOBS_BEFORE
        self._dispatcher.is_loading = True
        while await self._load_some():
            before -= _JOBS_AT_ONCE
            if before <= 0:
                return
        self._end()

    async def go_on(self) -> None:
        """Load the rest, if there is any, while the queue works. Jobs that cannot be read are read again, after a pause.

        If cancelled: the rest is not loaded, and nothing of the store has changed.
        """
        pause, trouble = _FIRST_PAUSE_SECONDS, ""
        while self._dispatcher.is_loading:
            try:
                more = await self._load_some()
            except StorageError as error:
                if str(error) != trouble:
                    LOGGER.error(
                        "%d jobs are not loaded yet, and are tried again: %s", self._ledger.room.unloaded, error
                    )
                trouble = str(error)
                await trio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
                self._rows = iter(self._loaded.jobs)
                continue
            if not more:
                self._end()
            self._dispatcher.loaded_some()

    async def _load_some(self) -> bool:
        """Load the next piece. Return False if there is none."""
        # In pieces, so that other tasks have their turns, and an engine with many jobs can be stopped meanwhile.
        records: list[Record | Damaged] = await self._dispatcher.journal.read(
            lambda: list(islice(self._rows, _JOBS_AT_ONCE))
        )
        damaged = self._loader.load(records, self._settings, self._dispatcher.timestamp)
        self._set_aside(damaged)
        await trio.lowlevel.checkpoint()
        return bool(records)

    def _end(self) -> None:
        dispatcher, ledger = self._dispatcher, self._ledger
        self._set_aside(self._loader.end(self._settings, dispatcher.timestamp))
        dispatcher.journal.write([ForgetLane(text) for text in self._settings if ledger.lanes.get(text) is None])
        dispatcher.save_settings()
        dispatcher.all_loaded()

    def _set_aside(self, damaged: list[Damaged]) -> None:
        dispatcher, changes = self._dispatcher, list[Change]()
        for row in damaged:
            LOGGER.error(
                "the job with the key %d in %s is damaged, and set aside: %s", row.key, dispatcher.place, row.problem
            )
            changes.append(SetAside(row.key, row.problem))
        dispatcher.journal.write(changes)
        for double in self._loader.doubles:
            if isinstance(double, int):
                dispatcher.journal.write([Remove(double)])
            else:
                dispatcher.journal.write([Remove(double.record.key)], partial(dispatcher.erased, [double]))
        self._loader.doubles.clear()
