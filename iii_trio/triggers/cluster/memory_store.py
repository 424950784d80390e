"""A model of the store in memory, for simulations. Time is Trio's, and each node reaches it by a way of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, final

import attrs
import outcome
import trio

from ...transport.link import Address
from .memory_jobs import JobTables, MemoryJobs
from .records import LINKS, Changes, Entry, EntryKind, Key, Node, Offer, Position, Snapshot
from .store import Fenced, NodeTaken, OtherLayout, StoreUnavailable

T = TypeVar("T")
LAYOUT: Final = "model"
_BLOCK_SECONDS: Final = 2.0


@final
class MemoryMesh:
    """The store itself. `way` makes the `MeshStore` of one node.

    `checks_fences` is turned off only to show that the tests find what goes wrong without the check.
    """

    def __init__(self, *, log_length: int = 1_000, checks_fences: bool = True) -> None:
        self.nodes: dict[str, Node] = {}
        self.offers: dict[str, dict[Key, Offer]] = {}
        self.leases: dict[str, tuple[int, float]] = {}
        """The fencing number and the end of each lease."""
        self.log: list[Entry] = []
        self.layout: tuple[str, str, float] | None = None
        """The layout of the nodes that are there, their version, and when their leases have run out."""
        self.epoch = "1"
        self.number = 0
        self.is_down = False
        self.jobs = JobTables(checks_fences=checks_fences)
        self._fence = 0
        self._writes: dict[str, tuple[int, int]] = {}
        self._log_length = log_length
        self._checks_fences = checks_fences
        self._written = trio.lowlevel.ParkingLot()

    def way(
        self,
        *,
        reach: Callable[[], Awaitable[None]] | None = None,
        address_of: Callable[[Node], Address] | None = None,
        network: trio.Nursery | None = None,
        clock_rate: float = 1.0,
        links: tuple[int, int] = LINKS,
    ) -> MemoryStore:
        """Return the store as one node reaches it.

        `reach` is awaited before and after each request. It may delay or fail. `address_of` returns the way to another
        node, in place of its address. With a `network`, a request that is under way arrives though its node gives it up.
        `clock_rate` is how fast the node's clock runs, beside the store's: at 0.9 a lease has run out at the store when the
        node has counted nine tenths of it.
        """
        return MemoryStore(self, reach, address_of, network, clock_rate, links)

    def lose_everything(self) -> None:
        """Forget everything, as a store that is started again without its data."""
        self.nodes, self.offers, self.leases, self.log = {}, {}, {}, []
        self.jobs = JobTables(checks_fences=self._checks_fences, after=self.jobs.last_number)
        self.epoch, self.number, self.layout = f"{int(self.epoch) + 1}", 0, None

    def held(self, name: str) -> int | None:
        """Return the fencing number of a lease that has not run out."""
        lease = self.leases.get(name)
        return lease[0] if lease is not None and trio.current_time() < lease[1] else None

    # --- one step each

    def check_layout(self, version: str, seconds: float) -> None:
        now = trio.current_time()
        there = self.layout if self.layout is not None and now < self.layout[2] else None
        if there is not None and there[0] != LAYOUT:
            raise OtherLayout(there[0], there[1])
        until = now + seconds if there is None else max(there[2], now + seconds)
        self.layout = (LAYOUT, version if there is None else there[1], until)

    def join(self, name: str, address: str, version: str, seconds: float, links: tuple[int, int] = LINKS) -> Node:
        self.check_layout(version, seconds)
        known = self.nodes.get(name)
        if known is not None and self.held(name) is not None and known.address != address:
            raise NodeTaken(known.address)
        self._fence += 1
        node = self.nodes[name] = Node(name, address, self._fence, version, links)
        self.offers[name] = {}
        self.leases[name] = (node.fence, trio.current_time() + seconds)
        self._add(EntryKind.JOINED, node)
        return node

    def renew(self, node: Node, seconds: float, *, sweep: bool) -> Position:
        self.check_layout(node.version, seconds)
        holder = self.held(node.name)
        known = self.nodes.get(node.name)
        if holder is None and known is not None and known.fence == node.fence:
            holder = node.fence  # it ran out, and no other node has noticed
        # A node that was stopped for longer than its lease comes here first.
        if holder != node.fence:
            raise Fenced(node.name)
        self.leases[node.name] = (node.fence, trio.current_time() + seconds)
        if sweep:
            for each in list(self.nodes.values()):
                if self.held(each.name) is None:
                    self._remove(EntryKind.LOST, each)
        return Position(self.epoch, self.number)

    def publish(self, node: Node, number: int, changes: Changes) -> None:
        if self._checks_fences and self.held(node.name) != node.fence:
            raise Fenced(node.name)
        # The number belongs to the lease, as the fencing number does.
        last = self._writes.get(node.name, (0, 0))
        if self._checks_fences and last[0] == node.fence and number <= last[1]:
            return
        self._writes[node.name] = (node.fence, number)
        self._add(EntryKind.OFFERS, node, changes)
        rows = self.offers.setdefault(node.name, {})
        for key, row in changes.items():
            if row is None:
                rows.pop(key, None)
            else:
                rows[key] = Offer(rows[key].since if key in rows else self.number, row)

    def leave(self, node: Node) -> None:
        if self.held(node.name) == node.fence:
            del self.leases[node.name]
            self._remove(EntryKind.LEFT, node)

    def snapshot(self) -> Snapshot:
        offers = {name: dict(self.offers.get(name, {})) for name in self.nodes}
        return Snapshot(Position(self.epoch, self.number), str(self.number), dict(self.nodes), offers)

    async def follow(self, cursor: str) -> tuple[list[Entry], str]:
        after = int(cursor)
        with trio.move_on_after(_BLOCK_SECONDS):
            while not self.log or self.log[-1].number <= after:
                await self._written.park()
        found = [entry for entry in self.log if entry.number > after]
        return found, str(found[-1].number) if found else cursor

    def _remove(self, kind: EntryKind, node: Node) -> None:
        del self.nodes[node.name]
        self.offers.pop(node.name, None)
        self._add(kind, node)

    def _add(self, kind: EntryKind, node: Node, changes: Changes | None = None) -> None:
        self.number += 1
        self.log.append(Entry(self.number, kind, node, dict(changes or {})))
        del self.log[: -self._log_length]
        self._written.unpark_all()


@final
@attrs.frozen
class MemoryStore:
    """A `MeshStore` of one node, in memory."""

    mesh: MemoryMesh
    _reach: Callable[[], Awaitable[None]] | None = None
    address_of: Callable[[Node], Address] | None = None
    _network: trio.Nursery | None = None
    _clock_rate: float = 1.0
    links: tuple[int, int] = LINKS
    """The versions of links that the node understands."""

    def __str__(self) -> str:
        return "memory"

    @property
    def jobs(self) -> MemoryJobs:
        """As `MeshStore.jobs`."""
        return MemoryJobs(lambda: self.mesh.jobs, self._request, self._clock_rate)

    async def _way(self) -> None:
        if self._reach is not None:
            await self._reach()
        await trio.lowlevel.checkpoint()
        if self.mesh.is_down:
            raise StoreUnavailable("it is down")

    async def _request(self, step: Callable[[], T]) -> T:
        """Have one step done by the store, after the way there and before the way back."""
        if self._network is None:
            return await self._go(step)
        result: outcome.Outcome[T] | None = None
        done = trio.Event()

        # What has left the node arrives, whether or not the node still waits for the answer.
        async def carry() -> None:
            nonlocal result
            result = await outcome.acapture(self._go, step)
            done.set()

        self._network.start_soon(carry)
        await done.wait()
        assert result is not None
        return result.unwrap()

    async def _go(self, step: Callable[[], T]) -> T:
        await self._way()
        value = step()
        await self._way()
        return value

    async def join(self, name: str, address: str, version: str, lease_seconds: float) -> Node:
        """As `MeshStore.join`."""
        seconds = lease_seconds * self._clock_rate
        return await self._request(lambda: self.mesh.join(name, address, version, seconds, self.links))

    async def renew(self, node: Node, lease_seconds: float, *, sweep: bool) -> Position:
        """As `MeshStore.renew`."""
        seconds = lease_seconds * self._clock_rate
        return await self._request(lambda: self.mesh.renew(node, seconds, sweep=sweep))

    async def publish(self, node: Node, number: int, changes: Changes) -> None:
        """As `MeshStore.publish`."""
        await self._request(lambda: self.mesh.publish(node, number, changes))

    async def leave(self, node: Node) -> None:
        """As `MeshStore.leave`."""
        await self._request(lambda: self.mesh.leave(node))

    async def snapshot(self) -> Snapshot:
        """As `MeshStore.snapshot`."""
        return await self._request(self.mesh.snapshot)

    async def follow(self, cursor: str) -> tuple[list[Entry], str]:
        """As `MeshStore.follow`."""
        await self._way()
        found = await self.mesh.follow(cursor)
        await self._way()
        return found
