"""The state of the engine as the page shows it, read again and again while a browser watches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, final

import trio

from ...environment import Environment
from ...errors import CallError, ConnectionFailed
from ...report import get_logger
from ...transport.link import Address
from ...wire import ErrorCode
from ...worker import Worker, open_worker
from .sections import SECTIONS, Board, encode, request
from .settings import PageConfig

WORKER: Final = "iii-page"
LOGGER: Final = get_logger("iii_trio.page")


@final
class Watch:
    """One worker, and what it saw last. There is none while nobody needs it, so that the page costs nothing then."""

    def __init__(self, address: Address, config: PageConfig, environment: Environment) -> None:
        self._address = address
        self._config = config
        self._environment = environment
        self._worker: Worker | None = None
        self._problem: ConnectionFailed | None = None
        self._users = 0
        self._board = Board()
        self._changed = trio.lowlevel.ParkingLot()
        """Unparked when there is another user, a worker, or news."""
        self.viewers = 0
        self.closed = False

    async def keep(self) -> None:
        """Keep a worker while there are users, and look at the engine while there are viewers. Runs until cancelled."""
        while True:
            while not self._users:
                await self._changed.park()
            try:
                async with open_worker(self._address, name=WORKER, environment=self._environment) as self._worker:
                    self._problem = None
                    self._changed.unpark_all()
                    while self._users:
                        # A call needs the worker, and no look at the engine.
                        if self.viewers:
                            await self._look(self._worker)
                        await trio.sleep(self._config.every_seconds)
            # An engine that drains takes no worker. The page shows what was seen last.
            except ConnectionFailed as error:
                LOGGER.debug("the page cannot look at the engine: %s", error)
                self._problem = error
                self._changed.unpark_all()
                await trio.sleep(self._config.every_seconds)
            finally:
                self._worker = None
            # The next viewer is to see the engine as it is then.
            self._board = Board(self._board.change)

    async def _look(self, worker: Worker) -> None:
        for section in SECTIONS:
            try:
                found = await worker.trigger(section.function_id, request(section, self._config.rows))
            except CallError as error:
                # A module that is not there leaves its part of the page empty. Other errors concern this look only.
                if error.code != ErrorCode.FUNCTION_NOT_FOUND:
                    LOGGER.debug("the page has no %s this time: %s", section.name, error)
                    continue
                found = None
            self._board.put(section.name, encode(section, found, self._config.rows))
        self._changed.unpark_all()

    def close(self) -> None:
        """End all streams of events."""
        self.closed = True
        self._changed.unpark_all()

    @contextmanager
    def _used(self) -> Iterator[None]:
        self._users += 1
        self._changed.unpark_all()
        try:
            yield
        finally:
            self._users -= 1

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        """Lend the worker for the length of the block. Raises ConnectionFailed if the engine takes none."""
        self._problem = None
        with self._used():
            while self._worker is None:
                # Without this a call would wait until the engine takes workers again.
                if self._problem is not None:
                    raise self._problem
                await self._changed.park()
            yield self._worker

    @contextmanager
    def viewing(self) -> Iterator[Viewer]:
        """Look at the engine for another viewer, for the length of the block."""
        with self._used():
            self.viewers += 1
            try:
                yield Viewer(self)
            finally:
                self.viewers -= 1

    async def news(self, since: int) -> tuple[bytes | None, int]:
        """Wait for sections that changed after `since`, and return their event, and the number of the last change.

        There is no event once the page is closed. If cancelled: nothing changes.
        """
        while not self.closed:
            event = self._board.event(since)
            if event is not None:
                return event, self._board.change
            await self._changed.park()
        return None, since


@final
class Viewer:
    """One browser's place in the changes. It gets all sections first. A slow browser skips updates."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._seen = 0

    async def next_event(self) -> bytes | None:
        """Wait for the next event. None: the page is closed. If cancelled: nothing is lost."""
        event, self._seen = await self._watch.news(self._seen)
        return event
