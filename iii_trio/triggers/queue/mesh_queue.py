"""The queue module of a node whose queues are those of its mesh. They are divided into shards, and one node owns each shard.

The front has the queue's functions and the trigger type at this node, and passes everything on to the owners. `_keep_leases`
asks the store who owns which shard, takes free ones up to this node's part, and renews. `ShardOwner` runs the queue of one
shard for the length of one lease. A node that has more than its part hands one shard over at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, final

import attrs
import trio

from ...errors import ConfigError
from ...nursery import open_service_nursery
from ...report import get_logger
from ...transport.link import Address
from ...worker import Worker, open_worker
from ..mesh import Mesh, Ownerships, StoreUnavailable
from ..module import Host, ModuleEnvironment, RunningModule
from .front import Front
from .front_calls import FrontState
from .front_triggers import FrontTriggers
from .module import WORKER
from .ownership import OwnershipState
from .settings import QueueConfig
from .shard_owner import ShardHost, ShardOwner
from .shards import shard_of, shards_in_words
from .subscriptions import TRIGGER_TYPE

LOGGER: Final = get_logger("iii_trio.queue")
_ANSWERS: Final = 3
"""The part of a lease in which the store has to answer."""
_LOOKS: Final = 10
"""How often a node asks in the length of a lease."""
_PATIENCE: Final = 2.0
"""How many leases a call waits for an owner."""
_NO_MESH_SECONDS: Final = 0.2
_WARN_SECONDS: Final = 10.0
_POKED_SECONDS: Final = 0.1


@asynccontextmanager
async def open_mesh_queue(
    address: Address, settings: QueueConfig, environment: ModuleEnvironment
) -> AsyncIterator[MeshQueue]:
    """Run the queue of a node of a mesh, for the length of the block.

    Raises ConfigError without an engine in this process. Leaving the block hands over the shards that this node owns.
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
            queue.leave()
            nursery.cancel_scope.cancel(reason="the queue closes")


@final
class MeshQueue(RunningModule):
    """The queue of one node. Made by `open_mesh_queue`."""

    def __init__(
        self, address: Address, settings: QueueConfig, environment: ModuleEnvironment, host: Host, worker: Worker
    ) -> None:
        self.shards: list[ShardOwner] = []
        """All shards of the mesh, at this node. Empty: the store was not asked yet."""
        self.problem = ""
        """Why the store cannot be asked. Empty: it can."""
        self._host = host
        self._shard_host = ShardHost(address, settings, environment, host.open_memory_share("queue"), self._poke)
        self._state = FrontState(worker, self._poke)
        self.front = Front(self._state, settings.shards)
        self._draining = False
        self._handing_over = False
        self._told: frozenset[int] = frozenset()
        """The shards that were owned when the log was last told."""
        self._poked = trio.Event()
        self._triggers = FrontTriggers(worker, self.front.forget)
        self.front.offer(worker)
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

    @property
    def owned(self) -> list[int]:
        """The shards whose jobs this node may start now."""
        return [owner.shard for owner in self.shards if owner.lease.owns()]

    async def run(self) -> None:
        """Take part in the ownership of the queues, until cancelled. They are handed over then."""
        async with trio.open_nursery() as nursery:
            await self._keep_leases(nursery)

    def leave(self) -> None:
        """Take part no more, once the leases are given back."""
        self._shard_host.leaving = True

    async def drain(self) -> None:
        """Hand all shards over. Jobs that run get the length of a lease to end.

        If cancelled: no more jobs start, and the shards are handed over when the module is closed.
        """
        self._draining = True
        self.leave()
        self._poke()
        mesh = self._host.mesh
        if mesh is None:
            await trio.lowlevel.checkpoint()
            return
        async with trio.open_nursery() as nursery:
            for owner in self.shards:
                if owner.lease.number:
                    nursery.start_soon(owner.hand_over, mesh.lease_seconds, "the node drains")
        await mesh.wait_handed_over()

    def reconfigure(self, settings: QueueConfig) -> Any:
        """Use these queues and bounds from now on, for the shards that this node owns."""
        if not settings.in_mesh:
            LOGGER.warning("the jobs stay in the store of the mesh until the engine is started again")
            settings = attrs.evolve(settings, in_mesh=True)
        self._shard_host.settings = settings
        for owner in self.shards:
            if owner.queue is not None:
                owner.queue.reconfigure(settings)
        if self._host.mesh is not None:
            self._show_queues(self._host.mesh)
        return settings

    # --- the leases

    def _poke(self) -> None:
        self._poked.set()

    async def _keep_leases(self, nursery: trio.Nursery) -> None:
        waited = 0.0
        while True:
            mesh = self._host.mesh
            # The cluster module is opened after this one, and may fail and be started again.
            if mesh is None:
                waited += _NO_MESH_SECONDS
                if abs(waited - _WARN_SECONDS) < _NO_MESH_SECONDS / 2:
                    LOGGER.warning(
                        "the queues are to be those of a mesh, and this engine is not a node of one: add iii-cluster to its "
                        "configuration, or keep the jobs elsewhere (data)"
                    )
                await trio.sleep(_NO_MESH_SECONDS)
                continue
            waited = 0.0
            asked_at = trio.current_time()
            self._state.patience_seconds = _PATIENCE * mesh.lease_seconds
            await self._ask(mesh, asked_at, nursery)
            self._tell(mesh, nursery)
            pause = mesh.lease_seconds / _LOOKS
            await trio.sleep(min(_POKED_SECONDS, pause))
            with trio.move_on_at(asked_at + pause):
                await self._poked.wait()
            self._poked = trio.Event()

    async def _ask(self, mesh: Mesh, asked_at: float, nursery: trio.Nursery) -> None:
        """Ask once who owns which shard. Keep the leases, and take free ones."""
        takes_part = mesh.has_joined() and not self._draining and asked_at >= self._shard_host.resting_until
        leases = {owner.shard: owner.lease.number for owner in self.shards if owner.lease.number}
        pause = mesh.lease_seconds / _ANSWERS
        found: Ownerships | None = None
        try:
            with trio.move_on_after(pause):
                found = await mesh.jobs.claim(
                    mesh.node,
                    leases,
                    mesh.lease_seconds,
                    shards=self._shard_host.settings.shards,
                    takes_part=takes_part,
                )
            if found is None:
                raise StoreUnavailable(f"no answer within {pause:g} s")
        except StoreUnavailable as error:
            self._note(mesh, f"{mesh.jobs.place} cannot be used: {error}")
            return
        self._note(mesh, "")
        self._divide(len(found.shards))
        for owner in self.shards:
            self._take_answer(mesh, owner, leases.get(owner.shard, 0), found, asked_at, nursery)
        owners = [None if one is None else one.node for one in found.shards]
        if mesh.shard_owners != owners:
            mesh.shard_owners = owners
            self._show_queues(mesh)
        self.front.owned_by(owners)
        self._triggers.owned_by(owners)
        self._show_health(mesh)
        if takes_part:
            self._rebalance(mesh, found, nursery)

    def _divide(self, shards: int) -> None:
        """Have this number of shards."""
        # A store that was emptied may have been given another number since.
        for owner in self.shards[shards:]:
            owner.lost_to = ""
            owner.lease.fenced()
        wanted = self._shard_host.settings.shards
        if not self.shards and shards != wanted:
            LOGGER.warning(
                "the queues of this mesh have %d shards already, so `shards: %d` has no effect", shards, wanted
            )
        self.shards += [ShardOwner(shard, self._shard_host) for shard in range(len(self.shards), shards)]

    def _take_answer(
        self, mesh: Mesh, owner: ShardOwner, number: int, answer: Ownerships, asked_at: float, nursery: trio.Nursery
    ) -> None:
        """Keep or end the lease of one shard, or begin it."""
        shards, lease = len(answer.shards), owner.lease
        found = answer.shards[owner.shard] if owner.shard < shards else None
        # The lease may have ended here while the store was asked.
        if number and lease.number == number:
            if found is not None and found.number == number:
                lease.renewed(asked_at, mesh.lease_seconds)
            else:
                # This node may have been given it anew, and knows no other one that has it.
                owner.lost_to = "" if found is None or found.node == mesh.node else found.node
                lease.fenced()
            return
        is_new = found is not None and found.node == mesh.node and found.number != number
        # A drain may have begun while the store was asked. Nobody would hand this shard over.
        if found is not None and is_new and not self._draining and lease.state.current is OwnershipState.OUT:
            owner.lost_to = None
            lease.granted(found.number, asked_at, mesh.lease_seconds)
            nursery.start_soon(owner.own, mesh, lambda name: shard_of(name, shards) == owner.shard)

    def _rebalance(self, mesh: Mesh, found: Ownerships, nursery: trio.Nursery) -> None:
        """Hand one shard over if this node has more than its part."""
        mine = [owner for owner in self.shards if owner.lease.number]
        # One after the other, so that few queues stand still at a time, and none while others have no owner.
        if self._handing_over or None in found.shards or len(mine) <= found.quota:
            return
        if not all(owner.lease.owns() for owner in mine):
            return
        idle = min(mine, key=lambda owner: 0 if owner.queue is None else owner.queue.running)
        self._handing_over = True
        nursery.start_soon(self._hand_over, idle, mesh)

    async def _hand_over(self, owner: ShardOwner, mesh: Mesh) -> None:
        try:
            await owner.hand_over(mesh.lease_seconds, "another node takes the shard")
        finally:
            self._handing_over = False

    # --- what is shown

    def _show_queues(self, mesh: Mesh) -> None:
        names = self._shard_host.settings.queues
        shards = range(len(mesh.shard_owners))
        mesh.queues = [[name for name in names if shard_of(name, len(shards)) == shard] for shard in shards]

    def _note(self, mesh: Mesh, problem: str) -> None:
        if problem != self.problem:
            if problem:
                LOGGER.warning("%s; this node takes no queues until it can", problem)
            else:
                LOGGER.info("%s answers again", mesh.jobs.place)
        self.problem = self._state.problem = problem
        self._show_health(mesh)

    def _show_health(self, mesh: Mesh) -> None:
        owners = {node: mesh.shards_of(node) for node in sorted({each for each in mesh.shard_owners if each})}
        health = {"owners": owners, "owns": self.owned, "shards": len(mesh.shard_owners), "problem": self.problem}
        self._host.note_health("queue", health)

    def _tell(self, mesh: Mesh, nursery: trio.Nursery) -> None:
        """Tell the log which shards this node owns, once for all that have changed."""
        self._show_health(mesh)
        now = frozenset(self.owned)
        lost = [self.shards[shard] for shard in self._told - now]
        if now - self._told:
            LOGGER.info(
                "node %s owns shards %s of %d of the queues", mesh.node, shards_in_words(now), len(mesh.shard_owners)
            )
        if not self._told and now:
            nursery.start_soon(_warn_of_weakness, mesh)
        self._told = now
        # Those that were handed over are not lost.
        for reason in {self._why_lost(owner) for owner in lost if owner.lost_to is not None or self.problem}:
            shards = shards_in_words(owner.shard for owner in lost if self._why_lost(owner) == reason)
            LOGGER.warning("node %s does not own shards %s of the queues any more: %s", mesh.node, shards, reason)

    def _why_lost(self, owner: ShardOwner) -> str:
        if owner.lost_to is None:
            return self.problem
        if owner.lost_to:
            return f"node {owner.lost_to} owns them"
        return "the store does not know its lease any more: another node has taken it, or the data of the store is gone"


async def _warn_of_weakness(mesh: Mesh) -> None:
    """Say once a lease what the store may lose, because every acknowledged job relies on it."""
    try:
        weakness = await mesh.jobs.weakness()
    except StoreUnavailable:
        return  # the lease is asked for all the time, and says so
    if weakness:
        LOGGER.warning("the jobs of the mesh are in %s, and %s", mesh.jobs.place, weakness)
