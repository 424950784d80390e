"""The mesh of an engine, as its other modules see it. The cluster module makes it, and the engine hands it on.

It has the jobs of the mesh in their store. One node at a time owns all queues. It has a lease with a number of its own, and
every write carries the number, so that the store refuses the writes of an owner that was overtaken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, final

import attrs
import trio


class StoreUnavailable(Exception):
    """The store does not answer, or fails. The text says how."""


class StoreIsFull(StoreUnavailable):
    """The store has no memory left, and has kept nothing of the write."""


class Fenced(Exception):
    """The lease of this fencing number is no longer the node's."""


@attrs.frozen
class Ownership:
    """The node that owns the queues of a mesh, and the fencing number of its lease."""

    node: str
    number: int


@attrs.frozen
class StoredJob:
    """A job as the store has it, in two parts."""

    key: int
    record: bytes
    payload: bytes


class MeshJobs(Protocol):
    """The jobs of a mesh in its store, as one node reaches them.

    All methods raise StoreUnavailable. Those with a number raise Fenced if another lease has begun since. If cancelled: a
    write may have happened.
    """

    @property
    def place(self) -> str:
        """The store, for people."""

    async def claim(self, node: str, number: int, seconds: float, *, wanted: bool) -> Ownership | None:
        """Keep the lease of this number for so long from now, or take it if it is free and `wanted`.

        A free lease is one that has run out, was given back, or is an earlier one of this node. Return the owner, or None
        if there is none.
        """

    async def release(self, number: int) -> None:
        """Give the lease back. Does nothing if it is fenced."""

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

    async def weakness(self) -> str:
        """Return what the store may lose though it has kept it, and how to mend that. Empty: nothing that it tells of."""


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
        self.owner: str | None = None
        """The node that owns the queues, as this node has heard last. None: it does not know, or has no share in them."""
        self._owns = False
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def owns_queues(self) -> bool:
        """Whether this node owns the queues, or lets go of them still."""
        return self._owns

    @owns_queues.setter
    def owns_queues(self, owns: bool) -> None:
        self._owns = owns
        self._changed.unpark_all()

    async def wait_handed_over(self) -> None:
        """Wait until this node owns no queues. If cancelled: nothing changes."""
        await trio.lowlevel.checkpoint()
        while self._owns:
            await self._changed.park()
