"""The mesh of an engine, as its other modules see it. The cluster module makes it, and the engine hands it on.

It has the jobs of the mesh in their store. The queues and topics are divided into shards by their names. One node at a time
owns a shard. It has a lease with a number of its own, and every write carries the number, so that the store refuses the
writes of an owner that was overtaken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, final

import msgspec
import trio


class StoreUnavailable(Exception):
    """The store does not answer, or fails. The text says how."""


class StoreIsFull(StoreUnavailable):
    """The store has no memory left, and has kept nothing of the write."""


class Fenced(Exception):
    """The lease of this fencing number is no longer the node's."""


class Ownership(msgspec.Struct, frozen=True):
    """The node that owns a shard of the queues, and the fencing number of its lease."""

    node: str
    number: int


class Ownerships(msgspec.Struct, frozen=True):
    """Who owns the queues of a mesh, as the store has it at one moment."""

    shards: Sequence[Ownership | None]
    """The owner of each shard. None: it has none."""
    nodes: int
    """The number of nodes that take part."""

    @property
    def quota(self) -> int:
        """How many shards one node owns, at most."""
        return -(-len(self.shards) // max(1, self.nodes))


class StoredJob(msgspec.Struct, frozen=True):
    """A job as the store has it, in two parts."""

    key: int
    record: bytes
    payload: bytes


class MeshJobs(Protocol):
    """The jobs of a mesh in its store, as one node reaches them.

    All methods raise StoreUnavailable. If cancelled: a claim may have happened.
    """

    @property
    def place(self) -> str:
        """The store, for people."""

    async def claim(
        self, node: str, leases: Mapping[int, int], seconds: float, *, shards: int, takes_part: bool
    ) -> Ownerships:
        """Keep these leases, numbers by shard, for so long from now. Take free ones if the node `takes_part`.

        A free lease is one that has run out, was given back, or is an earlier one of this node. A node takes up to the
        quota. `shards` is the number of shards, if the store has none yet.
        """

    def shard(self, shard: int) -> ShardJobs:
        """Return the jobs of one shard."""

    async def weakness(self) -> str:
        """Return what the store may lose though it has kept it, and how to mend that. Empty: nothing that it tells of."""


class ShardJobs(Protocol):
    """The jobs of one shard.

    All methods raise StoreUnavailable. Those with a number raise Fenced if another lease has begun since. If cancelled: a
    write may have happened.
    """

    @property
    def place(self) -> str:
        """As `MeshJobs.place`."""

    async def release(self, number: int, leaves: str) -> None:
        """Give the lease back. `leaves` is the node if it takes part no more, or empty. Does nothing if it is fenced."""

    async def write(self, number: int, serial: int, steps: Sequence[bytes], *, adds: bool) -> None:
        """Do these steps, all or none.

        The writes of a lease are numbered from 1. One that has arrived before is not done again. `adds` says that jobs
        are added. Raises StoreIsFull only for such a write.
        """

    async def page(self, number: int, after: int) -> list[StoredJob]:
        """Return the jobs with the next keys behind this one, at least one if there is any."""

    async def tables(self, number: int) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """Return the subscribers and the settings of lanes, by their names."""

    async def payloads(self, number: int, keys: Sequence[int]) -> list[bytes | None]:
        """Return the payloads of these jobs. None where there is none."""


@final
class Mesh:
    """The mesh that an engine is a node of."""

    def __init__(self, node: str, lease_seconds: float, jobs: MeshJobs, has_joined: Callable[[], bool]) -> None:
        self.node = node
        """The name of this node."""
        self.lease_seconds = lease_seconds
        self.jobs = jobs
        self.has_joined = has_joined
        """Whether this engine is that node. Another one may have the name."""
        self.shard_owners: Sequence[str | None] = ()
        """The owner of each shard of the queues, as this node has heard last. Empty: it does not know."""
        self.queues: Sequence[Sequence[str]] = ()
        """The configured queues of each shard."""
        self._owned: set[int] = set()
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def owned_shards(self) -> frozenset[int]:
        """The shards that this node owns, or lets go of still."""
        return frozenset(self._owned)

    def note_owned(self, shard: int, owned: bool) -> None:
        """Note that this node owns a shard from now on, or no more."""
        (self._owned.add if owned else self._owned.discard)(shard)
        self._changed.unpark_all()

    def shards_of(self, node: str) -> list[int]:
        """Return the shards that a node owns."""
        # A node that is cut off has not heard of the next owner, but knows that it is none itself.
        return [
            shard
            for shard, owner in enumerate(self.shard_owners)
            if owner == node and (node != self.node or shard in self._owned)
        ]

    def queues_of(self, node: str) -> list[str]:
        """Return the configured queues that a node owns, by name."""
        return sorted(name for shard in self.shards_of(node) for name in self.queues[shard])

    async def wait_handed_over(self) -> None:
        """Wait until this node owns no queues. If cancelled: nothing changes."""
        await trio.lowlevel.checkpoint()
        while self._owned:
            await self._changed.park()
