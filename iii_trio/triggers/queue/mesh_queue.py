"""The queue module of a node whose queues are those of its mesh. One node at a time owns all of them.

The front has the queue's functions and the trigger type at this node, and passes everything on to the owner. `_keep_lease`
asks the store who owns the queues, takes them when nobody does, and renews. `_own` is the queue itself, as in an engine
without a mesh, for the length of one lease.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, final

import attrs
import trio

from ...errors import ConfigError, IIIError
from ...nursery import open_service_nursery
from ...report import get_logger
from ...transport.link import Address
from ...worker import Worker, open_worker
from ..mesh import Fenced, Mesh, Ownership, StoreUnavailable
from ..module import Host, ModuleEnvironment, RunningModule
from .front import Front, namespace_of_node
from .front_triggers import FrontTriggers
from .mesh_store import MeshJobStore, run_awaitable
from .module import WORKER, Queue, open_queue
from .ownership import OwnershipState, QueueLease
from .settings import QueueConfig
from .subscriptions import TRIGGER_TYPE

LOGGER: Final = get_logger("iii_trio.queue")
_RENEWALS: Final = 3
"""How often an owner asks in the length of a lease."""
_LOOKS: Final = 10
"""How often another node does."""
_PATIENCE: Final = 2.0
"""How many leases a call waits for an owner."""
_NO_MESH_SECONDS: Final = 0.2
_WARN_SECONDS: Final = 10.0
_POKED_SECONDS: Final = 0.1
_RELEASE_SECONDS: Final = 1.0


@asynccontextmanager
async def open_mesh_queue(
    address: Address, settings: QueueConfig, environment: ModuleEnvironment
) -> AsyncIterator[MeshQueue]:
    """Run the queue of a node of a mesh, for the length of the block.

    Raises ConfigError without an engine in this process. Leaving the block hands the queues over, if this node owns them.
    If cancelled: as leaving the block.
    """
    host = environment.host
    if host is None:
        raise ConfigError("the queues of a mesh need an engine in their process")
    async with open_worker(address, name=WORKER, environment=environment) as worker, open_service_nursery() as nursery:
        queue = MeshQueue(address, settings, environment, host, worker)
        await worker.wait_registered()
        nursery.start_soon(queue.front.run)
        nursery.start_soon(queue.run)
        try:
            yield queue
        finally:
            nursery.cancel_scope.cancel(reason="the queue closes")


@final
class MeshQueue(RunningModule):
    """The queue of one node. Made by `open_mesh_queue`."""

    def __init__(
        self, address: Address, settings: QueueConfig, environment: ModuleEnvironment, host: Host, worker: Worker
    ) -> None:
        self.lease = QueueLease()
        self.problem = ""
        """Why the store cannot be asked. Empty: it can."""
        self._lost_to = ""
        """The node that has the lease that was this one's, if the store has told."""
        self.front = Front(worker, self._poke)
        self._address = address
        self._settings = settings
        self._environment = environment
        self._host = host
        self._queue: Queue | None = None
        self._draining = False
        self._resting_until = -math.inf
        self._memory = host.open_memory_share("queue")
        self._poked = trio.Event()
        self._triggers = FrontTriggers(worker)
        self.front.offer()
        worker.register_trigger_type(
            TRIGGER_TYPE, self._triggers, description="calls a function with what is published to a topic, durably"
        )

    @property
    def status(self) -> str:
        """The place of the jobs, for the ready line."""
        return "jobs in the store of the mesh"

    @property
    def place(self) -> str:
        """The place of the jobs."""
        mesh = self._host.mesh
        return "mesh" if mesh is None else mesh.jobs.place

    async def run(self) -> None:
        """Take part in the ownership of the queues, until cancelled. They are handed over then."""
        async with trio.open_nursery() as nursery:
            await self._keep_lease(nursery)

    async def drain(self) -> None:
        """Hand the queues over. Jobs that run get the length of a lease to end.

        If cancelled: no more jobs start, and the queues are handed over when the module is closed.
        """
        self._draining = True
        mesh, queue = self._host.mesh, self._queue
        if mesh is None:
            await trio.lowlevel.checkpoint()
            return
        if queue is not None:
            # The others cannot begin before these have ended, so a long one is cancelled, and runs again there.
            with trio.move_on_after(mesh.lease_seconds):
                await queue.drain()
        self.lease.scope.cancel(reason="the node drains")
        await mesh.wait_handed_over()

    def reconfigure(self, settings: QueueConfig) -> Any:
        """Use these queues and bounds from now on, wherever this node owns the queues."""
        if not settings.in_mesh:
            LOGGER.warning("the jobs stay in the store of the mesh until the engine is started again")
            settings = attrs.evolve(settings, in_mesh=True)
        self._settings = settings
        if self._queue is not None:
            self._queue.reconfigure(settings)
        return settings

    # --- the lease

    def _poke(self) -> None:
        self._poked.set()

    async def _keep_lease(self, nursery: trio.Nursery) -> None:
        waited = 0.0
        while True:
            mesh = self._host.mesh
            # The cluster module is opened after this one, and may fail and be started again.
            if mesh is None:
                waited += _NO_MESH_SECONDS
                if abs(waited - _WARN_SECONDS) < _NO_MESH_SECONDS / 2:
                    LOGGER.warning(
                        "the queues are to be those of a mesh, and this engine is no node of one: add iii-cluster to its "
                        "configuration, or keep the jobs elsewhere (data)"
                    )
                await trio.sleep(_NO_MESH_SECONDS)
                continue
            waited = 0.0
            asked_at = trio.current_time()
            self.front.patience_seconds = _PATIENCE * mesh.lease_seconds
            await self._ask(mesh, asked_at, nursery)
            pause = mesh.lease_seconds / (_RENEWALS if self.lease.number and not self.problem else _LOOKS)
            await trio.sleep(min(_POKED_SECONDS, pause))
            with trio.move_on_at(asked_at + pause):
                await self._poked.wait()
            self._poked = trio.Event()

    async def _ask(self, mesh: Mesh, asked_at: float, nursery: trio.Nursery) -> None:
        """Ask once who owns the queues. Keep the lease, or take it."""
        lease = self.lease
        state = lease.state.current
        wanted = state is OwnershipState.OUT and not self._draining and asked_at >= self._resting_until
        wanted = wanted and mesh.has_joined()
        pause = mesh.lease_seconds / _RENEWALS
        number = lease.number
        found: Ownership | None = None
        try:
            with trio.move_on_after(pause) as scope:
                found = await mesh.jobs.claim(mesh.node, number, mesh.lease_seconds, wanted=wanted)
            if scope.cancelled_caught:
                raise StoreUnavailable(f"no answer within {pause:g} s")
        except StoreUnavailable as error:
            self._note(mesh, f"{mesh.jobs.place} cannot be used: {error}")
            return
        self._note(mesh, "")
        # The lease may have ended here while the store was asked.
        if number and lease.number == number:
            if found is not None and found.number == number:
                lease.renewed(asked_at, mesh.lease_seconds)
            else:
                self._lost_to = "" if found is None else found.node
                lease.fenced()
        elif wanted and found is not None and found.node == mesh.node:
            self._lost_to = ""
            lease.granted(found.number, asked_at, mesh.lease_seconds)
            mesh.owns_queues = True
            nursery.start_soon(self._own, mesh)
        self._show_owner(mesh, None if found is None else found.node)

    def _show_owner(self, mesh: Mesh, node: str | None) -> None:
        mesh.owner = node
        self.front.owned_by(node)
        self._triggers.owned_by(node)
        self._show_health(mesh)

    def _note(self, mesh: Mesh, problem: str) -> None:
        if problem != self.problem:
            if problem:
                LOGGER.warning("%s; this node takes no queues until it can", problem)
            else:
                LOGGER.info("%s answers again", mesh.jobs.place)
        self.problem = problem
        self._show_health(mesh)

    def _show_health(self, mesh: Mesh) -> None:
        health = {"owner": mesh.owner, "owns_queues": self.lease.owns(), "problem": self.problem}
        self._host.note_health("queue", health)

    async def _own(self, mesh: Mesh) -> None:
        """Run the queue, until the lease ends or the module closes. Then give the lease back, if it is there still."""
        lease, number = self.lease, self.lease.number
        try:
            with lease.scope:
                await self._run_queue(mesh)
            if not lease.holds():
                LOGGER.warning(
                    "node %s does not own the queues any more (fencing number %d): %s",
                    mesh.node, number, self.problem or self._why_lost(),
                )  # fmt: skip
        finally:
            lease.ended()
            self._show_health(mesh)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _RELEASE_SECONDS):
                try:
                    await mesh.jobs.release(number)
                except (StoreUnavailable, Fenced) as error:
                    LOGGER.info("node %s did not give the queues back: %s", mesh.node, error)
            lease.closed()
            mesh.owns_queues = False
            self._show_health(mesh)
            self._poke()

    def _why_lost(self) -> str:
        if self._lost_to:
            return f"node {self._lost_to} owns them"
        return "the store does not know its lease any more: another node has taken it, or the data of the store is gone"

    async def _run_queue(self, mesh: Mesh) -> None:
        lease = self.lease
        store = MeshJobStore(mesh.jobs, lease)
        try:
            async with open_queue(
                self._address,
                self._settings,
                store=store,  # type: ignore[arg-type]  # its methods are awaited by `run_awaitable`
                environment=attrs.evolve(self._environment, run_blocking=run_awaitable),
                tracing=self._environment.tracing,
                memory=self._memory,
                namespace=namespace_of_node(mesh.node),
                owns=lease.owns,
            ) as self._queue:
                lease.opened()
                self._show_health(mesh)
                LOGGER.info("node %s owns the queues (fencing number %d)", mesh.node, lease.number)
                self._queue.start_jobs()
                self._poke()
                await _warn_of_weakness(mesh)
                await trio.sleep_forever()
        except IIIError as error:
            LOGGER.error("node %s could not run the queues of the mesh: %s", mesh.node, error)
            # Another node may do better, and this one is not to take them again at once.
            self._resting_until = trio.current_time() + mesh.lease_seconds
        finally:
            self._queue = None


async def _warn_of_weakness(mesh: Mesh) -> None:
    """Say once a lease what the store may lose, because every acknowledged job relies on it."""
    try:
        weakness = await mesh.jobs.weakness()
    except StoreUnavailable:
        return  # the lease is asked for all the time, and says so
    if weakness:
        LOGGER.warning("the jobs of the mesh are in %s, and %s", mesh.jobs.place, weakness)
