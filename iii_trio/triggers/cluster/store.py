"""The interface of the store in which the nodes of a mesh meet. It has leases, a table of offers, and a log of changes.

Each node has a lease with a fencing number. Every write carries the number, and the store refuses a write of a node whose
lease has gone to another holder. So a node that was stopped, and comes back after its lease, can change nothing.
"""

from __future__ import annotations

from typing import Protocol

from ..mesh import Fenced, MeshJobs, StoreUnavailable
from .records import Changes, Entry, Node, Position, Snapshot

__all__ = ["Fenced", "MeshStore", "NodeTaken", "OtherLayout", "StoreUnavailable"]


class NodeTaken(Exception):
    """Another engine has a lease for this name. The text names its address."""


class OtherLayout(Exception):
    """Nodes of this mesh keep their data in another layout."""

    def __init__(self, layout: str, version: str) -> None:
        super().__init__(f"layout {layout}, of version {version or 'unknown'}")
        self.layout = layout
        self.version = version


class MeshStore(Protocol):
    """The store as one node sees it. All methods raise StoreUnavailable. If cancelled: a write may have happened."""

    @property
    def jobs(self) -> MeshJobs:
        """The jobs of the mesh, in the same store."""

    async def join(self, name: str, address: str, version: str, lease_seconds: float) -> Node:
        """Take a lease, and forget what a node of this name offered before.

        A node of the same name and address loses its lease to this one. Raises NodeTaken for another address, and
        OtherLayout while nodes of another layout are there.
        """

    async def renew(self, node: Node, lease_seconds: float, *, sweep: bool) -> Position:
        """Keep the lease for so long from now. Raises Fenced, and OtherLayout as `join`.

        With `sweep`, nodes whose leases have run out are removed with all that they offer.
        """

    async def publish(self, node: Node, number: int, changes: Changes) -> None:
        """Change what this node offers. Raises Fenced.

        The writes of a lease are numbered from 1. One that arrives behind a later one is ignored, because its node has
        given it up and published anew.
        """

    async def leave(self, node: Node) -> None:
        """Give up the lease and all that the node offers. Does nothing if it is fenced."""

    async def snapshot(self) -> Snapshot:
        """Read everything."""

    async def follow(self, cursor: str) -> tuple[list[Entry], str]:
        """Wait a while for lines of the log behind the cursor. Return them with the next cursor."""
