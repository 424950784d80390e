"""Several engines in one process, as a mesh over a model of the store, with memory links between them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any, Final

import attrs
import trio
import trio.testing

import iii_trio
from iii_trio.environment import Environment
from iii_trio.testing.network import Network
from iii_trio.testing.sim_stream import Conditions
from iii_trio.transport.dial import SocketAddress
from iii_trio.triggers.cluster.memory_store import MemoryMesh
from iii_trio.triggers.cluster.module import Cluster
from iii_trio.triggers.cluster.records import LINKS, Node
from iii_trio.triggers.cluster.settings import ClusterConfig
from iii_trio.triggers.cluster.store import StoreUnavailable

LEASE_SECONDS = 9.0
_EPOCH: Final = 1_700_000_000


@attrs.define(eq=False)
class MeshNode:
    """One node that runs."""

    name: str
    engine: iii_trio.Engine
    cluster: Cluster
    scope: trio.CancelScope
    over: trio.Event = attrs.field(factory=trio.Event)


class MeshWorld:
    """The nodes, the store between them, and what is cut."""

    def __init__(
        self, nursery: trio.Nursery, seed: int = 0, conditions: Conditions | None = None, **store: Any
    ) -> None:
        self.store = MemoryMesh(**store)
        self.nodes: dict[str, MeshNode] = {}
        self._nursery = nursery
        self.store_delay: Callable[[], float] | None = None
        """Draws the time of each way to the store and back. None: it takes none."""
        self._cut_from_store: set[str] = set()
        self._cut: set[frozenset[str]] = set()
        self.network = Network(seed, conditions)
        self._ids = Random(seed)
        self._began = trio.current_time()
        self.clock_rates: dict[str, float] = {}
        """How fast the clocks of nodes run, beside the store's. Those not named run as it does."""
        self.wall_offsets: dict[str, float] = {}
        """How many seconds the calendars of nodes are ahead."""
        self.link_versions: dict[str, tuple[int, int]] = {}
        """The versions of links that nodes understand. Those not named are of this version."""

    def __getitem__(self, name: str) -> MeshNode:
        return self.nodes[name]

    async def start(
        self, name: str, *, modules: dict[str, Any] | None = None, joins: bool = True, **settings: Any
    ) -> MeshNode:
        """Start a node, and wait until it has joined if it `joins`. `modules` are the settings of its other modules."""
        return await self._nursery.start(self._run, name, settings, modules, joins)

    async def _run(
        self,
        name: str,
        settings: Any,
        settings_of_modules: dict[str, Any] | None,
        joins: bool,
        *,
        task_status: trio.TaskStatus[MeshNode],
    ) -> None:
        async def reach() -> None:
            if name in self._cut_from_store:
                await trio.sleep(1)
                raise StoreUnavailable("the network is cut")
            if self.store_delay is not None:
                await trio.sleep(self.store_delay())

        def address_of(node: Node) -> SocketAddress:
            async def dial() -> trio.abc.Stream:
                return await self._dial(name, node.name)

            return SocketAddress(node.address, dial=dial)

        config = ClusterConfig(
            store="valkey://store/mesh",
            **{
                "advertise": f"ws://localhost:{1 + ord(name[0])}",
                "node": name,
                "lease_seconds": LEASE_SECONDS,
                **settings,
            },
        )
        modules = {"queue": None, **(settings_of_modules or {}), "cluster": config}
        way = self.store.way(
            reach=reach,
            address_of=address_of,
            network=self._nursery,
            clock_rate=self.clock_rates.get(name, 1.0),
            links=self.link_versions.get(name, LINKS),
        )
        ahead = self.wall_offsets.get(name, 0.0)
        environment = Environment(
            self._new_id,
            Random(self._ids.getrandbits(64)),
            lambda: _EPOCH + trio.current_time() - self._began + ahead,
        )
        over = trio.Event()
        try:
            with trio.CancelScope() as scope:
                async with iii_trio.open_engine(
                    iii_trio.EngineConfig(name=name, modules=modules),
                    stores={"cluster": way},
                    environment=environment,
                ) as engine:
                    cluster = engine.modules["cluster"]
                    assert isinstance(cluster, Cluster)
                    node = self.nodes[name] = MeshNode(name, engine, cluster, scope, over)
                    if joins and name not in self._cut_from_store:
                        await self.until(lambda: cluster.joined)
                    task_status.started(node)
                    await trio.sleep_forever()
        finally:
            self.nodes.pop(name, None)
            over.set()

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    async def _dial(self, here: str, there: str) -> trio.abc.Stream:
        # A port without a listener refuses at once.
        if there not in self.nodes or frozenset((here, there)) in self._cut:
            await trio.lowlevel.checkpoint()
            raise ConnectionRefusedError(111, "Connection refused")
        return await self.network.dial(self.nodes[there].engine, f"{here}>{there}")

    def open_worker(
        self, node: str, name: str, over: str = "memory", **options: Any
    ) -> AbstractAsyncContextManager[iii_trio.Worker]:
        """Open a worker of a node, in its process or over a connection."""
        if over == "memory":
            return self.nodes[node].engine.open_worker(name, **options)

        async def dial() -> trio.abc.Stream:
            return await self._dial(f"worker {name}", node)

        return iii_trio.open_worker(SocketAddress(f"ws://{node}", dial=dial), name=name, **options)

    # --- what happens

    def drop_worker(self, name: str) -> None:
        """Lose all connections of a worker that is no longer in an engine's process, as if its machine was."""
        self._drop(lambda here, there: here == f"worker {name}")

    async def stop(self, name: str) -> None:
        """Stop a node in order."""
        node = self.nodes[name]
        node.scope.cancel()
        await node.over.wait()

    async def kill(self, name: str) -> None:
        """Stop a node as a killed process: nothing is said to the store, and its sockets are closed by the kernel."""
        self._cut_from_store.add(name)
        self._drop(lambda here, there: name in (here, there))
        await self.stop(name)
        self._cut_from_store.discard(name)

    def cut_from_store(self, *names: str) -> None:
        """Let nodes reach the store no more."""
        self._cut_from_store |= set(names)

    def reach_store(self, *names: str) -> None:
        """Let nodes reach the store again."""
        self._cut_from_store -= set(names)

    def cut(self, one: str, other: str) -> None:
        """Cut two nodes from each other. Their connections are lost."""
        pair = frozenset((one, other))
        self._cut.add(pair)
        self._drop(lambda here, there: frozenset((here, there)) == pair)

    def mend(self, one: str, other: str) -> None:
        """Let two nodes reach each other again."""
        self._cut.discard(frozenset((one, other)))

    def silence(self, one: str, other: str) -> None:
        """Let everything between two nodes vanish, without a word to either."""
        for name in (f"{one}>{other}", f"{other}>{one}"):
            self.network.partition(name)

    def hear(self, one: str, other: str) -> None:
        """Undo `silence`."""
        for name in (f"{one}>{other}", f"{other}>{one}"):
            self.network.heal(name)

    def _drop(self, which: Callable[[str, str], bool]) -> None:
        for near, far in self.network.connections():
            here, _, there = near.name.rstrip(">").partition(">")
            if which(here, there):
                near.close()
                far.close()

    # --- waiting

    @property
    def agreed(self) -> bool:
        """Whether all nodes know all that the store knows, and their links are up."""
        snapshot = self.store.snapshot()
        names = set(self.nodes)
        return set(snapshot.nodes) == names and all(
            node.cluster.joined
            and node.cluster.directory.nodes == snapshot.nodes
            and node.cluster.directory.position == snapshot.position
            and set(node.cluster.links) == names - {node.name}
            and all(link.up for link in node.cluster.links.values())
            and node.cluster.local_rows == dict(node.cluster.published_rows)
            for node in self.nodes.values()
        )

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until something holds, as the clock jumps from event to event."""
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - what holds is in many objects of several nodes
                await trio.sleep(0.01)

    async def settle(self) -> None:
        """Wait until every node knows every other one, links are up, and all functions are offered everywhere."""
        names = set(self.nodes)

        def settled() -> bool:
            return all(
                set(node.cluster.directory.nodes) == names
                and node.cluster.directory.position.number == self.store.number
                and all(link.up for link in node.cluster.links.values())
                and node.cluster.local_rows == dict(node.cluster.published_rows)
                for node in self.nodes.values()
            )

        await trio.sleep(0.3)  # the engine's own settling time of functions
        await self.until(settled)
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def mesh_world(*names: str, conditions: Conditions | None = None, **store: Any) -> AsyncIterator[MeshWorld]:
    """Open a mesh with these nodes."""
    async with trio.open_nursery() as nursery:
        world = MeshWorld(nursery, 0, conditions, **store)
        await nursery.start(world.network.run)
        for name in names:
            await world.start(name)
        await world.settle()
        yield world
        nursery.cancel_scope.cancel()
