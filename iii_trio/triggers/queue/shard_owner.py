"""One shard of the queues at one node. While the node owns it, the queue module runs here as in a single engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import attrs
import msgspec
import trio

from ...errors import IIIError
from ...records import define
from ...report import get_logger
from ...transport.link import Address
from ...transport.memory_budget import MemoryShare
from ..mesh import Fenced, Mesh, StoreUnavailable
from ..module import ModuleEnvironment
from .mesh_store import MeshJobStore, run_awaitable
from .module import Queue, open_queue
from .ownership import QueueLease
from .room import Room
from .settings import QueueConfig
from .shards import namespace_of_shard

LOGGER: Final = get_logger("iii_trio.queue")
_RELEASE_SECONDS: Final = 1.0


@define(eq=False)
class ShardHost:
    """What the shards of one node have in common."""

    address: Address
    settings: QueueConfig
    environment: ModuleEnvironment
    memory: MemoryShare
    on_change: Callable[[], object]
    """Called when a shard is owned from now on, or no more."""
    rooms: list[Room] = attrs.field(factory=list)
    """Those of the shards that are owned, which have their bounds together."""
    leaving: bool = False
    """Whether the node takes part no more once its leases are given back."""
    resting_until: float = 0.0
    """When this node takes shards again, after it could not run one."""


@final
class ShardOwner:
    """The ownership of one shard, from lease to lease."""

    def __init__(self, shard: int, host: ShardHost) -> None:
        self.shard = shard
        self.lease = QueueLease()
        self.lost_to: str | None = None
        """The node that has the lease that was this one's. Empty: the store knows of none."""
        self.queue: Queue | None = None
        self._host = host

    async def own(self, mesh: Mesh, belongs: Callable[[str], bool]) -> None:
        """Run the queue until the lease ends or the module closes. Then give the lease back, if it is there still."""
        lease, number = self.lease, self.lease.number
        mesh.note_owned(self.shard, True)
        try:
            with lease.scope:
                await self._run_queue(mesh, belongs)
        finally:
            lease.ended()
            self._host.on_change()
            leaves = mesh.node if self._host.leaving else ""
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _RELEASE_SECONDS):
                try:
                    await mesh.jobs.shard(self.shard).release(number, leaves)
                except (StoreUnavailable, Fenced) as error:
                    LOGGER.info("node %s did not give shard %d of the queues back: %s", mesh.node, self.shard, error)
            lease.closed()
            mesh.note_owned(self.shard, False)
            self._host.on_change()

    async def hand_over(self, seconds: float, reason: str) -> None:
        """Start no more jobs, give those that run so many seconds to end, and give the lease back.

        If cancelled: no more jobs start.
        """
        scope = self.lease.scope  # of this lease, for there may be another one later
        # The next owner cannot begin before these have ended, so a long one is cancelled, and runs again there.
        with trio.move_on_after(seconds):
            if self.queue is not None:
                await self.queue.drain(hands_over=True)
        scope.cancel(reason=reason)

    async def _run_queue(self, mesh: Mesh, belongs: Callable[[str], bool]) -> None:
        host, lease = self._host, self.lease
        store = MeshJobStore(mesh.jobs.shard(self.shard), lease)
        settings = host.settings
        try:
            async with open_queue(
                host.address,
                settings,
                store=store,  # type: ignore[arg-type]  # its methods are awaited by `run_awaitable`
                environment=msgspec.structs.replace(host.environment, run_blocking=run_awaitable),
                tracing=host.environment.tracing,
                memory=host.memory,
                namespace=namespace_of_shard(mesh.node, self.shard),
                owns=lease.owns,
                belongs=belongs,
                rooms=host.rooms,
                node=mesh.node,
            ) as self.queue:
                # They may have changed while the jobs were loaded.
                if host.settings is not settings:
                    self.queue.reconfigure(host.settings)
                lease.opened()
                LOGGER.debug("node %s owns shard %d (fencing number %d)", mesh.node, self.shard, lease.number)
                self.queue.start_jobs()
                host.on_change()
                await trio.sleep_forever()
        except IIIError as error:
            LOGGER.error("node %s could not run shard %d of the queues: %s", mesh.node, self.shard, error)
            # Another node may do better, and this one is not to take it again at once.
            host.resting_until = trio.current_time() + mesh.lease_seconds
        finally:
            self.queue = None
