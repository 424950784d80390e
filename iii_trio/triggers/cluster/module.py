"""The cluster module: makes several engines one mesh. A worker of its own engine, and of the engines of the other nodes.

    keep_lease    joins, renews, and joins again when it was fenced
    publish       what the engine's own workers offer, under the lease
    follow        the log of the store: the directory
    NodeLink.run  one for each other node: the link by which calls go there

All of them end in `_update`, which registers or withdraws proxies. It never waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, final

import msgspec
import trio

from ...environment import Environment
from ...errors import CallError, ConfigError, MisuseError
from ...lowlevel import InlineCall
from ...nursery import open_service_nursery
from ...transport.link import Address
from ...version import installed_version
from ...wire import DEFAULT_NAMESPACE, ChannelEnded, ErrorCode, Outcome
from ...worker import Worker, open_worker
from ..mesh import Mesh
from ..module import Host, ModuleEnvironment, RunningModule
from .directory import Difference, Directory
from .lease import Lease
from .local_offers import LocalOffers
from .names import Names
from .node_link import LOGGER, NodeLink, unreachable
from .passing import PassedCall
from .peers import Peers
from .proxies import WORKER, Proxies
from .records import WORKER as WORKERS
from .records import Changes, EntryKind, Key, Node, Position, pieces
from .relays import Relays
from .repeats import Repeats
from .routes import Routes
from .settings import ClusterConfig
from .silent_nodes import SilentNodes
from .store import Fenced, MeshStore, NodeTaken, OtherLayout, StoreUnavailable
from .versions import layout_refused, links_refused

NODES: Final = "engine::cluster::nodes"
_NO_WORKER: Final = dict.fromkeys(("id", "name", "description", "runtime", "status"))
"""The fields that every row of a worker has, whatever its node says."""
_GONE_REMEMBERED: Final = 1_000
_MAX_TRIES: Final = 7
_SEEK_SECONDS: Final = 0.01
"""The first pause before a call whose function has gone from its node is tried again. It doubles each time."""
_LEAVE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 0.5
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
        self._host = host
        self.settings = settings
        self.name = settings.node or environment.new_id()[:8]
        """The name of this node."""
        self.lease = Lease(settings.lease_seconds)
        self.mesh = Mesh(self.name, settings.lease_seconds, store.jobs, lambda: self.joined)
        """This mesh, for the other modules of the engine."""
        self.directory = Directory()
        self.links: dict[str, NodeLink] = {}
        """The links to the other nodes, by their names."""
        self.problem = ""
        """Why the store cannot be used now. Empty: it can."""
        self._store = store
        self._worker = worker
        self._nursery = nursery
        self._environment = environment
        self._address_of: Callable[[Node], Address] = getattr(store, "address_of", None) or Peers(settings).address_of
        """A model of a store brings the network too."""
        self._local = LocalOffers(host, self._local_changed)
        self._relays = Relays(address, environment, nursery, self._relay_open)
        self.proxies = Proxies(self._relays, self.name, self.directory, self._usable, self._pass_on)
        self._repeats = Repeats(
            self.name, self.directory, self._relays, self._usable, self._worker_at, lambda: self._local.rows
        )
        self._names = Names(self.name, self.directory, self.links, host, nursery, environment, lambda: self.joined)
        self._watch = SilentNodes(host, nursery, self.lease.seconds, self._worker_at)
        self.gone: OrderedDict[str, str] = OrderedDict()
        """Why nodes that were here are gone, the last ones. Their channels are lost."""
        self._unusable: dict[str, str] = {}
        """Why a node has no link, by its name."""
        self._scopes: dict[str, trio.CancelScope] = {}
        self._published: dict[Key, bytes] = {}
        self._writes = 0
        """The number of writes so far. It rises over all leases."""
        self._store_position: Position | None = None
        """How far the store was at the last renewal, and had to have been read by the next one."""
        self._cursor = ""
        self._behind = trio.Event()
        """Set to have the directory read as a whole."""
        self._asked = trio.Event()
        """Set once the store has been asked for a lease, whatever it answered."""
        self._lease_changed = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()

    async def _start(self) -> None:
        self._register_functions()
        await self._worker.wait_registered()
        self._local.read()
        self._nursery.start_soon(self._local.run)
        self._nursery.start_soon(self._keep_lease)
        self._nursery.start_soon(self._publish)
        self._nursery.start_soon(self._follow)

    # --- what it shows

    @property
    def status(self) -> str:
        """A few words for the ready line."""
        # The store may not have answered yet, and may never do so.
        return f"node {self.name} of {self.settings.url}" + ("" if self.joined else ", not joined yet")

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
        return self._published

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
                    "problem": self.problem if here else link.problem if link else self._unusable.get(name, ""),
                    "functions": self.directory.count_functions(name),
                    "calls": link.calls if link is not None else 0,
                    # A node that is cut off has not heard of the next owner, but knows that it is none itself.
                    "owns_queues": name == self.mesh.owner and (self.mesh.owns_queues or not here),
                }
            )
        return rows

    @property
    def _lines_behind(self) -> int:
        there = self._store_position
        return max(0, there.number - self.directory.position.number) if there is not None else 0

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
                "lines_behind": self._lines_behind,
                "proxies": len(self.proxies),
                "nodes": self.nodes(),
            }

    # --- the lease

    async def _keep_lease(self) -> None:
        """Keep the lease. If cancelled: it is not given up here."""
        lease = self.lease
        pause = lease.seconds / 3
        last_problem = ""
        while True:
            asked_at = trio.current_time()
            problem = ""
            try:
                with trio.move_on_after(pause) as scope:
                    await self._ask_for_lease(asked_at)
                if scope.cancelled_caught:
                    raise StoreUnavailable(f"no answer within {pause:g} s")
            # Another node may have taken over what this one offered, so all of it is published anew.
            except Fenced:
                LOGGER.warning("node %s has lost its lease, and joins again", self.name)
                lease.fenced()
                self._published = {}
                self._note_change()
                continue
            # The other engine may be a dead one, whose lease will run out.
            except NodeTaken as taken:
                problem = f"another engine, at {taken}, is node {self.name}: name this one otherwise"
            # A node that joined all the same would take the others' data for damaged, or be invisible to them.
            except OtherLayout as other:
                problem = layout_refused(other)
            except StoreUnavailable as error:
                problem = f"the store {self._store} cannot be used: {error}"
                lease.store_lost()
            self._asked.set()
            if lease.check(trio.current_time()):
                LOGGER.warning("node %s holds no lease any more: %s", self.name, problem)
                self._note_change()
            if problem != last_problem:
                if problem:
                    LOGGER.warning("%s; own workers are served on, and it is tried again", problem)
                else:
                    LOGGER.info("the store %s answers again", self._store)
                last_problem = self.problem = problem
                self._note_change()
            retry = min(_RETRY_SECONDS, pause) if problem else pause
            await trio.sleep_until(max(asked_at + retry, trio.current_time()))

    async def _ask_for_lease(self, asked_at: float) -> None:
        lease = self.lease
        if lease.node is None or not (lease.held or lease.lapsed):
            node = await self._store.join(self.name, self.settings.advertise, installed_version() or "", lease.seconds)
            lease.granted(node, asked_at)
            LOGGER.info("node %s has joined %s (fencing number %d)", self.name, self._store, node.fence)
            self._lease_granted()
            return
        position = await self._store.renew(lease.node, lease.seconds, sweep=lease.sweeps)
        lapsed = lease.lapsed
        lease.renewed(asked_at)
        if lapsed:
            self._lease_granted()
        self._compare(position)

    def _lease_granted(self) -> None:
        self._lease_changed.set()
        self._lease_changed = trio.Event()
        self._note_change()

    def _compare(self, position: Position) -> None:
        """Have everything read again after a gap in the log, or after a whole interval without its lines."""
        before, self._store_position = self._store_position, position
        known = self.directory.position
        # A store that lost everything counts anew, and its log continues no other.
        if (
            position.epoch != known.epoch
            or position.number < known.number
            or (before is not None and before.epoch == position.epoch and known.number < before.number)
        ):
            self._behind.set()

    async def _leave(self) -> None:
        """Give the lease up, so that the others need not wait for its end."""
        for link in self.links.values():
            link.close("this node leaves")
        node = self.lease.node
        # A store that does not answer must not keep this engine from its end.
        if self.joined and node is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LEAVE_SECONDS):
                try:
                    await self._store.leave(node)
                except (StoreUnavailable, Fenced) as error:
                    LOGGER.info("node %s left without giving its lease back: %s", self.name, error)
        self.lease.released()

    # --- the directory

    async def _publish(self) -> None:
        """Publish what this engine's workers offer, whenever it changes and there is a lease."""
        while True:
            changed, lease_changed = self._local.changed, self._lease_changed
            if not await self._publish_now():
                await trio.sleep(_RETRY_SECONDS)
                continue
            async with trio.open_nursery() as nursery:
                for event in (changed, lease_changed):
                    nursery.start_soon(_wait_and_cancel, event, nursery.cancel_scope)

    async def _publish_now(self) -> bool:
        """Publish the difference. Return whether there is nothing left to do until something changes."""
        node = self.lease.node
        if node is None or not self.lease.held:
            return True
        rows, published = dict(self._local.rows), self._published
        changes: dict[Key, bytes | None] = {key: row for key, row in rows.items() if published.get(key) != row}
        changes |= dict.fromkeys(published.keys() - rows.keys(), None)
        if not changes:
            return True
        try:
            for some in pieces(changes):
                self._writes += 1
                with trio.fail_after(self.settings.lease_seconds):
                    await self._store.publish(node, self._writes, some)
        # The lease may only have run out unnoticed, and the next renewal extends it. If it is lost, that says so.
        except Fenced:
            self._distrust(changes)
            return False
        # What has reached the store is not known, so all that changed is sent again.
        except (StoreUnavailable, trio.TooSlowError) as error:
            LOGGER.warning("what this node offers could not be published: %s", error or "no answer in time")
            self._distrust(changes)
            return False
        # A node that was fenced meanwhile has published nothing under its new lease.
        if self._published is published:
            self._published = rows
            self._note_change()
        return True

    def _distrust(self, changes: Changes) -> None:
        """Count these rows as published in no known form."""
        for key in changes:
            self._published[key] = b""

    async def _follow(self) -> None:
        """Keep the directory up. Whatever was missed is repaired by reading everything."""
        # Links opened before would not tell the fencing number of this node, by which the others know its sessions.
        await self._asked.wait()
        while True:
            try:
                self._behind = trio.Event()
                with trio.fail_after(self.settings.lease_seconds):
                    snapshot = await self._store.snapshot()
                self._cursor = snapshot.cursor
                self._changed_nodes(self.directory.replace(snapshot), "it has left the mesh")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_wait_and_cancel, self._behind, nursery.cancel_scope)
                    await self._follow_log()
                    nursery.cancel_scope.cancel(reason="lines of the log are missing")
            except (StoreUnavailable, trio.TooSlowError):
                await trio.sleep(_RETRY_SECONDS)  # `_keep_lease` has said so
            except BaseExceptionGroup as group:
                if group.split(StoreUnavailable)[1] is not None:
                    raise
                await trio.sleep(_RETRY_SECONDS)

    async def _follow_log(self) -> None:
        """Take the lines of the log, until one is missing."""
        while True:
            entries, self._cursor = await self._store.follow(self._cursor)
            for entry in entries:
                changed = self.directory.apply(entry)
                if changed is None:
                    return
                why = "its lease has run out" if entry.kind is EntryKind.LOST else "it has left the mesh"
                self._changed_nodes(changed, why)

    # --- links and proxies

    def _changed_nodes(self, changed: Difference, why: str) -> None:
        """Open and close links as nodes come and go, and bring the proxies up to date."""
        for name in changed.nodes - {self.name}:
            node, link = self.directory.nodes.get(name), self.links.get(name)
            self._unusable.pop(name, None)
            self.gone.pop(name, None)
            if node is None:
                self.gone[name] = why
                while len(self.gone) > _GONE_REMEMBERED:
                    self.gone.popitem(last=False)
            # The calls that the old holder of the name was given are lost with it.
            if link is not None and link.node != node:
                if node is None:
                    self._watch.ask(link)
                self._close_link(name, why if node is None else "it has joined anew")
            if node is not None and name not in self.links:
                self._open_link(node)
        self._update(changed.keys)

    def _open_link(self, node: Node) -> None:
        if not node.speaks_with_this:
            self._unusable[node.name] = why = links_refused(node)
            LOGGER.warning("node %s is not linked: %s", node.name, why)
            return
        try:
            address = self._address_of(node)
        # What another node says of itself must not end this one.
        except MisuseError as error:
            self._unusable[node.name] = str(error)
            LOGGER.warning("node %s cannot be reached: %s", node.name, error)
            return
        link = NodeLink(
            node,
            address,
            self.name,
            self.lease,
            self._environment.rng,
            self._link_changed,
            self._channel_ended,
            self._not_run,
            self._watch.ask,
        )
        self.links[node.name] = link
        self._nursery.start_soon(self._run_link, link)

    async def _run_link(self, link: NodeLink) -> None:
        with trio.CancelScope() as self._scopes[link.node.name]:
            # Another link to a node of this name may have taken its place before this task began.
            if self.links.get(link.node.name) is link:
                await link.run()

    def _close_link(self, name: str, why: str) -> None:
        link = self.links.pop(name)
        link.close(why)
        scope = self._scopes.pop(name, None)
        if scope is not None:
            scope.cancel(reason=why)
        self._update(self.directory.of_node(name))

    def _channel_ended(self, message: ChannelEnded) -> None:
        """Tell this engine's workers of a channel of another node, of which they hold ends."""
        try:
            outcome = Outcome(message.outcome)
        except ValueError:
            return  # an outcome of a newer engine: the end's own connection will tell
        self._host.channel_ended_elsewhere(message.channel_id, outcome, message.reason, message.code)

    def _link_changed(self, link: NodeLink) -> None:
        # The other node has ended them, because it has lost the link too, or is gone itself.
        if link.worker is None:
            self._host.engine_lost(link.node.name, f"node {link.node.name} is gone: {link.problem}")
        if self.links.get(link.node.name) is link:
            self._update(self.directory.of_node(link.node.name))

    def _usable(self, name: str) -> bool:
        # Where this node is the next one, its own worker has to take over.
        link = self.links.get(name)
        return name == self.name or (link is not None and link.up)

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

    def _worker_at(self, name: str) -> Worker | None:
        link = self.links.get(name)
        return link.worker if link is not None else None

    def _show_workers(self) -> None:
        """Have the engine list the workers of the other nodes beside its own."""
        rows = [
            {**_NO_WORKER, **msgspec.json.decode(offer.row), "node": name}
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

    # --- calls

    def _pass_on(self, name: str, call: InlineCall, key: Key) -> None:
        link = self.links.get(name)
        if link is None:
            raise unreachable(name or "of the mesh", key)
        link.pass_on(PassedCall(call, key))

    def _not_run(self, link: NodeLink, passed: PassedCall, error: CallError) -> None:
        """Seek another function for a call that a node has refused unread, because its function has gone or it drains."""
        if passed.tries > _MAX_TRIES:
            passed.call.fail(error)
            return
        scope = trio.CancelScope()
        passed.call.when_cancelled(lambda reason: scope.cancel(reason=reason))
        self._nursery.start_soon(self._seek, link, passed, scope)

    async def _seek(self, link: NodeLink, passed: PassedCall, scope: trio.CancelScope) -> None:
        """Wait until the directory knows better, but not for long, and have whoever took over answer the call.

        A node that is to take over may not know of it yet, and is asked again.
        """
        name, key = link.node.name, passed.key
        with scope:
            with trio.move_on_after(_SEEK_SECONDS * 2**passed.tries):
                while self.proxies.node_of(key) == name:
                    await self.wait_changed()
        if scope.cancelled_caught:
            passed.call.fail(CallError(ErrorCode.INVOCATION_CANCELLED, "the call was cancelled"))
            return
        other = self.proxies.node_of(key)
        try:
            # A worker of this engine may have taken over. If none has, the engine says so.
            if other is None:
                self.proxies.call_here(passed)
            else:
                self.links[other].pass_on(passed)
        except CallError as refused:
            passed.call.fail(refused)

    # --- the end

    async def drain(self) -> None:
        """Offer nothing any more, so that other nodes call elsewhere. Calls that came over links go on.

        The queues are handed over first, because they are reached as other offers are.
        If cancelled: nothing is offered all the same.
        """
        try:
            await self.mesh.wait_handed_over()
        finally:
            self._local.withdraw()
        with trio.move_on_after(_LEAVE_SECONDS):
            while self.lease.held and self._published:
                await self.wait_changed()


async def _wait_and_cancel(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
