"""The cluster module: makes several engines one mesh. A worker of its own engine, and of the engines of the other nodes.

    LeaseKeeper.run  joins, renews, and joins again when it was fenced
    Publisher.run    publishes what the engine's own workers offer, under the lease
    Follower.run     follows the log of the store: the directory
    NodeLink.run     one for each other node: the link by which calls go there

All of them end in `_update`, which registers or withdraws proxies. It never waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, final

import trio

from ...environment import Environment
from ...errors import ConfigError
from ...nursery import open_service_nursery
from ...transport.link import Address
from ...version import installed_version
from ...wire import DEFAULT_NAMESPACE
from ...worker import Worker, open_worker
from ..mesh import Mesh
from ..module import Host, ModuleEnvironment, RunningModule
from .directory import Difference, Directory
from .follower import Follower
from .intake import OddRows, read_fields
from .lease import Lease
from .lease_keeper import LEAVE_SECONDS, LeaseKeeper
from .local_offers import LocalOffers
from .names import Names
from .node_link import LOGGER
from .node_links import NodeLinks
from .peers import Peers
from .proxies import WORKER, Proxies
from .publisher import Publisher
from .records import WORKER as WORKERS
from .records import Key, Odd
from .relays import Relays
from .repeats import Repeats
from .rerouting import Rerouting
from .routes import Routes
from .settings import ClusterConfig
from .store import MeshStore
from .together import BothWays

NODES: Final = "engine::cluster::nodes"
_NO_WORKER: Final = dict.fromkeys(("id", "name", "description", "runtime", "status"))
"""The fields that every row of a worker has, whatever its node says."""
_HAND_OVER_SECONDS: Final = 8.0


@asynccontextmanager
async def open_cluster(
    address: Address, settings: ClusterConfig, *, environment: ModuleEnvironment
) -> AsyncIterator[Cluster]:
    """Make the engine at `address` a node of a mesh, for the length of the block.

    The store may be unreachable, now or later: the node then serves its own workers, and joins when it can.
    Raises ConfigError if the extra `cluster` is not installed, or a certificate cannot be read.
    Leaving the block gives up the lease, and answers the calls that were passed on. If cancelled: as leaving the block.
    """
    host = environment.host
    assert host is not None, "a cluster needs an engine in its process"
    async with AsyncExitStack() as stack:
        store: MeshStore = environment.store or await stack.enter_async_context(_open_store(settings))
        surroundings = Environment(
            environment.new_id, environment.rng, environment.wall_clock, environment.run_blocking
        )
        worker = await stack.enter_async_context(open_worker(address, name=WORKER, environment=surroundings))
        nursery = await stack.enter_async_context(open_service_nursery())
        cluster = Cluster(address, settings, store, worker, nursery, surroundings, host)
        host.route_channels(Routes(cluster))
        host.enter_mesh(cluster.mesh)
        try:
            await cluster._start()
            yield cluster
        finally:
            host.enter_mesh(None)
            # The queue module closes at the same time, and needs the store until it has handed its queues over.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _HAND_OVER_SECONDS):
                await cluster.mesh.wait_handed_over()
            nursery.cancel_scope.cancel(reason="the node leaves")
            await cluster._leave()  # noqa: ASYNC102 - it has a shield and a deadline


def _open_store(settings: ClusterConfig) -> Any:
    try:
        from .valkey_store import open_valkey_store  # here, because it loads a library of 20 MB
    except ModuleNotFoundError as error:
        raise ConfigError(f"a cluster needs {error.name}: pip install 'iii-trio[cluster]'") from None
    return open_valkey_store(settings.url)


@final
class Cluster(RunningModule):
    """A running node. Made by `open_cluster`."""

    def __init__(
        self,
        address: Address,
        settings: ClusterConfig,
        store: MeshStore,
        worker: Worker,
        nursery: trio.Nursery,
        environment: Environment,
        host: Host,
    ) -> None:
        self.settings = settings
        self.name = settings.node or environment.new_id()[:8]
        """The name of this node."""
        self.lease = Lease(settings.lease_seconds)
        self.mesh = Mesh(self.name, settings.lease_seconds, store.jobs, lambda: self.joined)
        """This mesh, for the other modules of the engine."""
        self.directory = Directory()
        self._odd = OddRows()
        self._host = host
        self._worker = worker
        self._nursery = nursery
        self._changed = trio.lowlevel.ParkingLot()
        self._local = LocalOffers(host, self._local_changed)
        self._keeper = LeaseKeeper(
            self.name,
            settings,
            store,
            self.lease,
            self._note_change,
            on_grant=lambda: self._names.update(self.directory),
            on_fenced=lambda: self._publisher.forget(),
            on_position=lambda position: self._follower.compare(position),
        )
        self._publisher = Publisher(store, self._local, self.lease, self._keeper, self._note_change)
        self._follower = Follower(
            store, self.directory, settings.lease_seconds, self._keeper.joined, self._directory_changed
        )
        ways = BothWays()
        self.links = NodeLinks(
            self.name,
            self.directory,
            self.lease,
            host,
            nursery,
            environment.rng,
            getattr(store, "address_of", None) or Peers(settings).address_of,  # a model of a store brings the network
            on_change=lambda name: self._update(self.directory.of_node(name)),
            on_not_run=lambda link, passed, error: self._rerouting.not_run(link, passed, error),
            ways=ways,
        )
        """The links to the other nodes, by their names."""
        links, relays = self.links, Relays(address, environment, nursery, self._relay_open, ways)
        self._relays = relays
        self.proxies = Proxies(relays, self.name, self.directory, links.usable, links.expected, links.pass_on)
        self._rerouting = Rerouting(self.proxies, links, nursery, self.wait_changed)
        self._repeats = Repeats(
            self.name, self.directory, relays, links.usable, links.worker_at, lambda: self._local.rows
        )
        self._names = Names(self.name, self.directory, links, host, nursery, environment, lambda: self.joined)

    async def _start(self) -> None:
        self._register_functions()
        await self._worker.wait_registered()
        self._local.read()
        for task in (self._local.run, self._keeper.run, self._publisher.run, self._follower.run):
            self._nursery.start_soon(task)

    async def _leave(self) -> None:
        self.links.close()
        await self._keeper.leave()

    # --- what it shows

    @property
    def status(self) -> str:
        """A few words for the ready line."""
        # The store may not have answered yet, and may never do so.
        return f"node {self.name} of {self.settings.url}" + ("" if self.joined else ", not joined yet")

    @property
    def problem(self) -> str:
        """Why the store cannot be used now. Empty: it can."""
        return self._keeper.problem

    @property
    def gone(self) -> Mapping[str, str]:
        """Why nodes that were here are gone."""
        return self.links.gone

    @property
    def joined(self) -> bool:
        """Whether this node has its lease."""
        return self.lease.held

    @property
    def local_rows(self) -> Mapping[Key, bytes]:
        """Return the rows of this engine's own workers."""
        return self._local.rows

    @property
    def published_rows(self) -> Mapping[Key, bytes]:
        """Return the rows that the store has of them."""
        return self._publisher.published

    async def wait_changed(self) -> None:
        """Wait until the directory, a link or the lease has changed. If cancelled: nothing changes."""
        await self._changed.park()

    def nodes(self) -> list[dict[str, Any]]:
        """Return a row for each node of the mesh, this one included."""
        rows = []
        for name in sorted({self.name, *self.directory.nodes}):
            node = self.directory.nodes.get(name)
            link = self.links.get(name)
            here = name == self.name
            rows.append(
                {
                    "node": name,
                    "address": node.address if node is not None else self.settings.advertise,
                    "version": node.version if node is not None else installed_version() or "",
                    "here": here,
                    "fence": node.fence if node is not None else None,
                    "lease": self.lease.state.current.name.lower() if here else "held",
                    "link": "" if here or link is None else link.described,
                    "problem": self.problem if here else link.problem if link else self.links.unusable.get(name, ""),
                    "functions": self.directory.count_functions(name),
                    "calls": link.calls if link is not None else 0,
                    "shards": self.mesh.shards_of(name),
                    "queues": self.mesh.queues_of(name),
                }
            )
        return rows

    def _register_functions(self) -> None:
        @self._worker.function(NODES, description="list the nodes of the mesh")
        async def nodes() -> dict[str, Any]:
            position = self.directory.position
            return {
                "mesh": str(self.settings.url),
                "node": self.name,
                "joined": self.joined,
                "problem": self.problem,
                "lines": position.number,
                "lines_behind": self._follower.lines_behind,
                "proxies": len(self.proxies),
                "nodes": self.nodes(),
            }

    # --- links and proxies

    def _directory_changed(self, changed: Difference, why: str) -> None:
        """Open and close links as nodes come and go, and bring the proxies up to date."""
        self._tell_odd(changed.odd)
        self.links.update(changed.nodes, why)
        self._update(changed.keys)

    def _tell_odd(self, odd: Iterable[Odd]) -> None:
        for each in self._odd.new(odd):
            whose = f" of node {each.node}" if each.node else ""
            LOGGER.warning("left out of what the store has%s: %s: %s", whose, each.key, each.why)

    def _update(self, keys: Iterable[Key]) -> None:
        keys = list(keys)
        self.proxies.update(keys)
        self._repeats.update(keys)
        self._names.update(keys)
        if any(key.kind == WORKERS for key in keys):
            self._show_workers()
        self._relays.flush()
        self._note_change()

    def _relay_open(self, namespace: str) -> None:
        """Register what waited for the worker of a namespace."""
        self._update([key for key in self.directory if namespace in (key.namespace, DEFAULT_NAMESPACE)])

    def _local_changed(self) -> None:
        self._repeats.local_changed()
        self._relays.flush()

    def _show_workers(self) -> None:
        """Have the engine list the workers of the other nodes beside its own."""
        rows = [
            {**_NO_WORKER, **read_fields(offer.row), "node": name}
            for key in self.directory
            if key.kind == WORKERS
            for name, offer in self.directory.offers(key)
            if name != self.name
        ]
        self._host.show_workers(rows)

    def _note_change(self) -> None:
        node = {"node": self.name, "joined": self.joined, "nodes": len(self.directory.nodes), "problem": self.problem}
        self._host.note_health("cluster", node)
        self._changed.unpark_all()

    # --- the end

    async def drain(self) -> None:
        """Offer nothing any more, so that other nodes call elsewhere. Calls that came over links go on.

        The queues are handed over first, because they are reached as other offers are.
        If cancelled: nothing is offered all the same.
        """
        self.links.stop_waiting()
        try:
            await self.mesh.wait_handed_over()
        finally:
            self._local.withdraw()
        with trio.move_on_after(LEAVE_SECONDS):
            while self.lease.held and self.published_rows:
                await self.wait_changed()
