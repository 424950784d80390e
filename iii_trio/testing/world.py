"""A simulated world with one engine, its workers, the network between them, and failures."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any, Final, Literal, TypeAlias, TypeVar, Unpack, final

import attrs
import trio
import trio.testing

from ..config import EngineConfig
from ..core.channels import ChannelResult
from ..embed import Engine, open_engine, open_worker
from ..engine.spans import ChannelSpan
from ..environment import Environment
from ..errors import ConnectionFailed
from ..nursery import open_service_nursery
from ..records import define
from ..transport.link import Address, Identity, Link, ReadingEnd, WritingEnd
from ..triggers.queue import MemoryStore
from ..wire import Ref
from ..worker import Worker
from .network import Network
from .recording import RecordedAddress
from .sim_stream import ConditionOptions, Conditions, SimStream

Over: TypeAlias = Literal["network", "memory"]
T = TypeVar("T")
_EPOCH: Final = 1_700_000_000.0
"""When every history begins, by the calendar: a second of November 2023."""
Program: TypeAlias = Callable[[Worker], Awaitable[object]]


@define(eq=False)
class _Hired:
    """A worker that the world runs, so that it can be crashed and started again."""

    name: str
    program: Program
    over: Over
    conditions: ConditionOptions
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@final
class World:
    """What a scenario acts in. Made by `simulate` and `play`; everything random in it follows from the seed.

    `random` is the scenario's own. `nursery` is for its tasks; it ends with the history.
    """

    def __init__(self, seed: int, conditions: Conditions | None, config: EngineConfig, nursery: trio.Nursery) -> None:
        root = Random(seed)
        self.random = Random(root.getrandbits(64))
        self.network = Network(root.getrandbits(64), conditions)
        self.config = config
        self.nursery = nursery
        self.transcript: list[str] | None = []
        """What happened, in order, as text; None if it is not wanted."""
        self._ids = Random(root.getrandbits(64))
        self._began = trio.current_time()
        self._engine: Engine | None = None
        self._engine_scope = trio.CancelScope()
        self._engine_gone = trio.Event()
        self._stopping: Engine | None = None
        self._ended: list[ChannelResult] = []
        self.spans: list[ChannelSpan] = []
        """What each channel that ended carried, and how much of it waited at the most."""
        self.jobs = MemoryStore()
        """What the queue keeps: as a disk, it outlives the engine."""
        self._hired: dict[str, _Hired] = {}

    # --- what happens

    @property
    def now(self) -> float:
        """Virtual seconds since the history began."""
        return trio.current_time() - self._began

    def note(self, *facts: object) -> None:
        """Add a line to the transcript."""
        if self.transcript is not None:
            self.transcript.append(f"{self.now:.6f} {' '.join(map(str, facts))}")

    async def settle(self) -> None:
        """Wait until all tasks wait for time to pass. Takes no virtual time."""
        await trio.testing.wait_all_tasks_blocked()

    def new_id(self) -> str:
        """Make an id from the seed, in the form of a UUID."""
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    # --- the engine

    @property
    def engine(self) -> Engine:
        """The engine that runs. Raises ConnectionFailed while none does."""
        if self._engine is None:
            raise ConnectionFailed("the simulated engine does not run")
        return self._engine

    @property
    def ended(self) -> list[ChannelResult]:
        """The channels that ended, oldest first, of this engine and of those before it."""
        # An engine that is stopping takes no more connections, but its channels still end.
        engine = self._engine or self._stopping
        return self._ended + (engine.ended_channels() if engine is not None else [])

    async def start_engine(self) -> None:
        """Start the engine."""
        await self.nursery.start(self._run_engine)
        self.note("the engine runs")

    async def stop_engine(self, *, crash: bool = False) -> None:
        """Stop the engine in order, or as a killed process, when the kernel closes the sockets."""
        self.note("the engine", "crashes" if crash else "stops")
        # The kernel closes a killed process's sockets before any of its code could say goodbye.
        if crash:
            for _, far in self.network.connections():
                far.close()
        self._engine_scope.cancel()
        await self._engine_gone.wait()

    async def restart_engine(self, *, crash: bool = False) -> None:
        """Stop the engine and start another one."""
        await self.stop_engine(crash=crash)
        await self.start_engine()

    async def serve_stream(self, stream: trio.abc.Stream, *, peer: str | None = None) -> None:
        """Serve a connection that was dialled; without an engine, it is reset."""
        if self._engine is not None:
            await self._engine.serve_stream(stream, peer=peer)
        # A port without a listener is answered with a reset, by which workers notice and dial again.
        elif isinstance(stream, SimStream):
            stream.reset()

    async def _run_engine(self, *, task_status: trio.TaskStatus[None]) -> None:
        self._engine_gone = trio.Event()
        with trio.CancelScope() as self._engine_scope:
            async with open_engine(
                self.config,
                on_channel_span=self.spans.append,
                stores={"queue": self.jobs},
                environment=Environment(
                    self.new_id, Random(self._ids.getrandbits(64)), lambda: _EPOCH + self.now, _at_once
                ),
            ) as engine:
                self._engine = engine
                task_status.started()
                try:
                    await trio.sleep_forever()
                # An engine that leaves takes no more workers, but its channels still end and are counted.
                finally:
                    self._engine, self._stopping = None, engine
        self._stopping = None
        self._ended += engine.ended_channels()
        self._engine_gone.set()

    # --- workers

    def address(self, name: str, over: Over = "network", **conditions: Unpack[ConditionOptions]) -> Address:
        """How a worker of this name reaches the engine, whichever runs. `conditions` are those of `Conditions`."""
        inner: Address = _InMemory(self) if over == "memory" else self.network.address(self, name, **conditions)
        return RecordedAddress(inner, name, self.note) if self.transcript is not None else inner

    def open_worker(
        self, name: str, over: Over = "network", **conditions: Unpack[ConditionOptions]
    ) -> AbstractAsyncContextManager[Worker]:
        """Open a worker for the length of the block. Plain functions run inline, because threads have no virtual time."""
        return open_worker(
            self.address(name, over, **conditions),
            name=name,
            environment=Environment(self.new_id, Random(self._ids.getrandbits(64))),
            run_sync=_run_inline,
        )

    async def start_worker(
        self, name: str, program: Program | None = None, over: Over = "network", **conditions: Unpack[ConditionOptions]
    ) -> Worker:
        """Run a worker in a task of the world's: `program` (without one, it serves until it is crashed).

        Gives it back once it is connected. Raises as `open_worker` does.
        """
        self._hired[name] = _Hired(name, program or _serve_for_ever, over, conditions)
        return await self.restart_worker(name)

    def has_crashed(self, name: str) -> bool:
        """Return whether a worker has crashed and was not started again. Raises ValueError for an unknown name."""
        return self._find(name).scope.cancel_called

    async def restart_worker(self, name: str) -> Worker:
        """Start a worker anew that has crashed, or is done. Raises ValueError for an unknown name."""
        hired = self._find(name)
        hired.scope = trio.CancelScope()
        worker: Worker = await self.nursery.start(self._live, hired)
        return worker

    async def _live(self, hired: _Hired, *, task_status: trio.TaskStatus[Worker]) -> None:
        with hired.scope:
            async with self.open_worker(hired.name, hired.over, **hired.conditions) as worker:
                task_status.started(worker)
                await hired.program(worker)

    def crash_worker(self, name: str) -> None:
        """End a worker as a killed process. The kernel closes its sockets, and it sends nothing more.

        Raises ValueError for an unknown name.
        """
        hired = self._find(name)
        self.note(name, "crashes")
        for near, _ in self.network.connections(name):
            near.close()
        hired.scope.cancel()

    def _find(self, name: str) -> _Hired:
        if name not in self._hired:
            there = f"it has {', '.join(self._hired)}" if self._hired else "it has none"
            raise ValueError(f"this world has no worker {name!r}, {there}: start_worker starts one")
        return self._hired[name]

    # --- the end

    async def dissolve(self) -> None:
        """Heal the network, end every worker, and check that the engine then holds nothing (clause C4.7).

        Raises AssertionError otherwise, which names the objects.
        """
        # The ends of a partitioned worker would only be given up after the longest timeout.
        for name in {near.name[:-1] for near, _ in self.network.connections()}:
            self.network.heal(name)
        for hired in self._hired.values():
            hired.scope.cancel()
        # A scenario may leave its engine stopped, and there is nothing to hold anything then.
        if self._engine is None:
            return
        channels = self.config.channels
        await trio.sleep(max(self.config.timeouts.dead_peer_seconds, channels.expires_after_seconds or 0.0) + 60)
        held = attrs.asdict(self.engine.statistics())
        # What is held after the longest timeout has no event left that could free it.
        if any(held.values()):
            raise AssertionError(f"after everybody has left, the engine holds {held}")


@asynccontextmanager
async def open_world(
    seed: int, conditions: Conditions | None = None, config: EngineConfig | None = None
) -> AsyncIterator[World]:
    """Open a world with a running engine, for the length of the block."""
    async with open_service_nursery() as nursery:
        world = World(seed, conditions, config or EngineConfig(), nursery)
        try:
            await nursery.start(world.network.run)
            await world.start_engine()
            yield world
        finally:
            nursery.cancel_scope.cancel()


async def _at_once(function: Callable[[], T]) -> T:
    await trio.lowlevel.checkpoint()
    return function()


async def _serve_for_ever(worker: Worker) -> None:
    await trio.sleep_forever()


async def _run_inline(handler: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    await trio.lowlevel.checkpoint()
    return handler(**arguments)


@final
@define(eq=False)
class _InMemory:
    """The engine of a world, from within its process, whichever runs."""

    world: World

    def __str__(self) -> str:
        return "the simulated engine"

    async def connect(self, *, task_status: trio.TaskStatus[Link]) -> None:
        await self.world.engine.address.connect(task_status=task_status)

    async def attach_writer(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[WritingEnd]
    ) -> None:
        await self.world.engine.address.attach_writer(ref, identity, task_status=task_status)

    async def attach_reader(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[ReadingEnd]
    ) -> None:
        await self.world.engine.address.attach_reader(ref, identity, task_status=task_status)
