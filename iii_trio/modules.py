"""The modules of an engine: workers in its process, that begin after it and end before it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, final

import trio

from .config import EngineConfig
from .config_queue import MEMORY
from .engine.engine import Shell
from .engine.in_process import InProcess
from .report import get_logger
from .triggers.queue import Queue, Store, open_queue
from .triggers.queue.journal import RunBlocking

LOGGER: Final = get_logger("iii_trio.queue")


@final
class Modules:
    """What runs beside an engine, and speaks to it as workers do."""

    def __init__(
        self,
        shell: Shell,
        *,
        new_id: Callable[[], str],
        queue_store: Store | None,
        run_blocking: RunBlocking | None,
        wall_clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.queue: Queue | None = None
        """The queue, while it runs."""
        self._shell = shell
        self._queue_config = shell.config.queue
        self._new_id = new_id
        self._queue_store = queue_store
        self._run_blocking = run_blocking
        self._wall_clock = wall_clock
        self._rng = rng
        self._running = trio.CancelScope()
        self._over = trio.Event()

    async def keep(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run them; `started` when they are ready, until told to `stop`.

        Raises StorageError for a queue that cannot keep its jobs. If cancelled: they end.
        """
        config = self._queue_config
        try:
            with self._running:
                if config is None:
                    task_status.started()
                    return
                async with open_queue(
                    InProcess(self._shell, internal=True),
                    config,
                    store=self._queue_store,
                    run_blocking=self._run_blocking,
                    new_id=self._new_id,
                    rng=self._rng,
                    wall_clock=self._wall_clock,
                ) as self.queue:
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self.queue = None
            self._over.set()

    async def drain(self) -> None:
        """Wait until they have done what they have begun. If cancelled: they begin nothing more all the same."""
        if self.queue is not None:
            await self.queue.drain()

    async def stop(self) -> None:
        """End them. If cancelled: they end all the same."""
        self._running.cancel(reason="the engine closes")
        await self._over.wait()

    def reconfigure(self, config: EngineConfig) -> None:
        """These settings from now on; but for a queue that comes, goes or moves: it waits for a restart, says the log."""
        was, now = self._queue_config, config.queue
        if was is None or now is None:
            if was is not now:
                LOGGER.warning("the queue stays %s until the engine is started again", "off" if was is None else "on")
            return
        for what in ("directory", "synchronous"):
            before, after = getattr(was, what) or MEMORY, getattr(now, what) or MEMORY
            if before != after:
                LOGGER.warning(
                    "the queue's %s stays %s until the engine is started again, and is %s then", what, before, after
                )
        if self.queue is not None:
            self.queue.reconfigure(now)
