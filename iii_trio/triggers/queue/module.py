"""The queue module: a worker that keeps jobs and runs them."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import attrs
import trio

from ...config.data import MEMORY
from ...environment import Environment, RunBlocking
from ...nursery import open_service_nursery
from ...report import get_logger
from ...tracing import Tracing
from ...transport.link import Address
from ...transport.memory_budget import UNLIMITED_SHARE, MemoryShare
from ...worker import Worker, open_worker
from ..module import RunningModule
from .dispatcher import Dispatcher
from .functions import register
from .journal import Journal
from .loading import Loading
from .memory_store import MemoryStore
from .operators import Operators
from .room import Room
from .settings import QueueConfig
from .store import Store
from .subscribers import Subscribers
from .subscriptions import TRIGGER_TYPE, SubscriberTriggers
from .thread import open_thread

if TYPE_CHECKING:
    from .sqlite_store import SqliteStore

T = TypeVar("T")
LOGGER: Final = get_logger("iii_trio.queue")
WORKER: Final = "iii-queue"
_JITTER: Final = 0.25


@asynccontextmanager
async def open_queue(
    address: Address,
    config: QueueConfig | None = None,
    *,
    store: Store | None = None,
    environment: Environment | None = None,
    tracing: Tracing | None = None,
    memory: MemoryShare | None = None,
    namespace: str | None = None,
    owns: Callable[[], bool] = lambda: True,
    belongs: Callable[[str], bool] = lambda name: True,
    rooms: list[Room] | None = None,
    node: str | None = None,
) -> AsyncIterator[Queue]:
    """Run the queue of the engine at `address`, for the length of the block.

    Jobs are kept in `config.directory`, in memory where there is none, or in a `store` of your own, which stays yours to
    close. `environment` is for simulations. Attempts at jobs are spans of `tracing`. `memory` is the part of the engine's
    memory budget for payloads (decision 0021). A node of a mesh offers each shard of the queues in a `namespace` of its
    own. `owns` tells whether it owns the shard, and `belongs` whether the queue of a name is in it. `rooms` are those of its
    shards, which have their bounds together. `node` is the name of that node, for errors.

    Raises StorageError if the jobs cannot be kept there; ConnectionFailed and Rejected as a worker does.
    Leaving the block cancels the running jobs. They stay jobs, and it costs them nothing (Q2).
    If cancelled: as leaving the block.
    """
    config = config or QueueConfig()
    environment = environment or Environment()
    async with _open_store(config, store, environment.run_blocking) as (store, run), open_service_nursery() as tasks:
        journal = Journal(store, run)
        loaded = await run(store.load)
        room: Room | None = None
        try:
            async with open_worker(address, name=WORKER, namespace=namespace, environment=environment) as worker:
                dispatcher = Dispatcher(
                    worker,
                    journal,
                    config,
                    store.place,
                    jitter=lambda: 1 + environment.rng.random() * _JITTER,
                    wall_clock=environment.wall_clock,
                    tracing=tracing,
                    owns=owns,
                    belongs=belongs,
                    node=node,
                )
                room = dispatcher.ledger.room
                if rooms is not None:
                    room.join(rooms)
                room.count_in(memory or UNLIMITED_SHARE, is_stored_in_memory=isinstance(store, MemoryStore))
                operators = Operators(dispatcher)
                subscribers = Subscribers(dispatcher, operators)
                loading = Loading(dispatcher, subscribers, loaded)
                del loaded
                await loading.begin()
                await tasks.start(journal.keep)
                async with open_service_nursery() as jobs:
                    await jobs.start(dispatcher.serve)
                    jobs.start_soon(subscribers.end_absences)
                    jobs.start_soon(loading.go_on)
                    _offer(worker, dispatcher, operators, subscribers)
                    await worker.wait_registered()
                    yield Queue(dispatcher, subscribers, config)
                    jobs.cancel_scope.cancel()
        finally:
            tasks.cancel_scope.cancel()
            if room is not None:
                room.close()


@asynccontextmanager
async def _open_store(
    config: QueueConfig, store: Store | None, run_blocking: RunBlocking | None
) -> AsyncIterator[tuple[Store, RunBlocking]]:
    """Open the store, and what runs its blocking methods."""
    if store is None and config.directory is None:
        store, run_blocking = MemoryStore(), None
    if isinstance(store, MemoryStore) and run_blocking is None:
        yield store, _at_once  # nothing of it blocks
        return
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(open_thread()) if run_blocking is None else run_blocking
        if store is None:
            store = ours = await run(functools.partial(_sqlite_store, config))
            stack.callback(ours.close)
        yield store, run


def _sqlite_store(config: QueueConfig) -> SqliteStore:
    from .sqlite_store import SqliteStore  # here, because jobs in memory need no database

    assert config.directory is not None
    return SqliteStore(config.directory, synchronous=config.synchronous)


async def _at_once(function: Callable[[], T]) -> T:
    await trio.lowlevel.checkpoint()
    return function()


def _offer(worker: Worker, dispatcher: Dispatcher, operators: Operators, subscribers: Subscribers) -> None:
    register(worker, dispatcher, operators, subscribers)
    worker.register_trigger_type(
        TRIGGER_TYPE,
        SubscriberTriggers(subscribers),
        description="calls a function with what is published to a topic, durably",
    )


@final
class Queue(RunningModule):
    """A running queue. Made by `open_queue`."""

    def __init__(self, dispatcher: Dispatcher, subscribers: Subscribers, config: QueueConfig) -> None:
        self._dispatcher = dispatcher
        self._subscribers = subscribers
        self._config = config

    @property
    def place(self) -> str:
        """The place of the jobs: `memory`, or a file."""
        return self._dispatcher.place

    @property
    def status(self) -> str:
        """The place of the jobs, for the ready line."""
        return f"jobs in {self._config.directory or self.place}"

    @property
    def running(self) -> int:
        """The number of jobs that run."""
        return self._dispatcher.ledger.running

    def start_jobs(self) -> None:
        """Start all jobs that can start now, because this node owns the shard from now on."""
        self._dispatcher.start_jobs()

    async def drain(self, *, hands_over: bool = False) -> None:
        """Start no more jobs, and wait until those that run have ended. If cancelled: no more jobs start.

        With `hands_over`, callers that wait for jobs are left, because the front asks the next owner for them.
        """
        await self._dispatcher.drain(hands_over=hands_over)

    def reconfigure(self, settings: QueueConfig) -> Any:
        """Use these queues and bounds from now on. The place of the jobs changes at the engine's next start only."""
        kept = {}
        for what in ("directory", "synchronous"):
            before, after = getattr(self._config, what), getattr(settings, what)
            kept[what] = before
            if before != after:
                LOGGER.warning(
                    "the queue's %s stays %s until the engine is started again, and is %s then",
                    what,
                    before or MEMORY,
                    after or MEMORY,
                )
        self._config = attrs.evolve(settings, **kept)
        self._dispatcher.reconfigure(self._config)
        self._subscribers.reconfigure()
        return self._config
