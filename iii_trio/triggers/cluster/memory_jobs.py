"""A model of the jobs of a mesh in memory, for simulations. Time is Trio's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar, final

import trio

from ..mesh import Fenced, Ownership, Ownerships, StoredJob

T = TypeVar("T")
_PAGE_JOBS: Final = 3  # so that small histories have several


class Request(Protocol):
    """Has one step done by the store, after the way there and before the way back."""

    def __call__(self, step: Callable[[], T], /) -> Awaitable[T]: ...


@final
class ShardTables:
    """The jobs of one shard in the store itself. One step each."""

    def __init__(self, *, checks_fences: bool, after: int) -> None:
        self.node = ""
        self.number = 0
        self.until = 0.0
        self.serial = 0
        self.records: dict[int, bytes] = {}
        self.payloads: dict[int, bytes] = {}
        self.subscribers: dict[bytes, bytes] = {}
        self.lanes: dict[bytes, bytes] = {}
        self.refused = 0
        """The number of writes that were refused, because their lease was over."""
        self._checks_fences = checks_fences
        self._after = after

    def keep(self, number: int, until: float) -> bool:
        """Extend the lease of this number, if it is the last one. It may have run out."""
        if not number or number != self.number:
            return False
        self.until = until
        return True

    def take(self, node: str, until: float) -> None:
        self.node, self.number, self.serial = node, max(self.number, self._after) + 1, 0
        self.until = until

    def release(self, number: int) -> bool:
        if self.number != number:
            return False
        self.node, self.number, self.until = "", number + 1, 0.0
        return True

    def check(self, number: int) -> None:
        if self._checks_fences and self.number != number:
            self.refused += 1
            raise Fenced(f"{number} is over: the number is {self.number}")

    def write(self, number: int, serial: int, steps: Sequence[bytes]) -> None:
        self.check(number)
        if self._checks_fences and serial <= self.serial:
            return
        self.serial = serial
        for at in range(0, len(steps), 4):
            self._step(*steps[at : at + 4])

    def _step(self, step: bytes, name: bytes, value: bytes, payload: bytes) -> None:
        match step:
            case b"P":
                self.records[int(name)], self.payloads[int(name)] = value, payload
            case b"U" if int(name) in self.records:
                self.records[int(name)] = value
            case b"R" | b"D":
                self.records.pop(int(name), None)
                self.payloads.pop(int(name), None)
            case b"S":
                self.subscribers[name] = value
            case b"F":
                self.subscribers.pop(name, None)
            case b"L":
                self.lanes[name] = value
            case b"G":
                self.lanes.pop(name, None)

    def page(self, number: int, after: int) -> list[StoredJob]:
        self.check(number)
        keys = sorted(key for key in self.records if key > after)[:_PAGE_JOBS]
        return [StoredJob(key, self.records[key], self.payloads[key]) for key in keys]


@final
class JobTables:
    """All jobs in the store itself. One step each.

    `checks_fences` is turned off only to show that the tests find what goes wrong without the check.
    """

    def __init__(self, *, checks_fences: bool = True, after: int = 0) -> None:
        self.shards: list[ShardTables] = []
        self.nodes: dict[str, float] = {}
        """When those that take part have to have asked again."""
        self._checks_fences = checks_fences
        self._after = after
        """The last number of a store that has lost everything since. Its clock keeps the numbers rising all the same."""

    @property
    def last_number(self) -> int:
        """The highest fencing number so far."""
        return max((shard.number for shard in self.shards), default=self._after)

    @property
    def records(self) -> dict[tuple[int, int], bytes]:
        """The records of all shards, by shard and key."""
        return {(at, key): record for at, shard in enumerate(self.shards) for key, record in shard.records.items()}

    @property
    def refused(self) -> int:
        """The number of writes to all shards that were refused."""
        return sum(shard.refused for shard in self.shards)

    def shard(self, shard: int) -> ShardTables:
        if shard < len(self.shards):
            return self.shards[shard]
        # A store that has lost everything knows no number.
        return ShardTables(checks_fences=self._checks_fences, after=self._after)

    def claim(self, node: str, leases: Mapping[int, int], seconds: float, shards: int, takes_part: bool) -> Ownerships:
        now = trio.current_time()
        if takes_part and not self.shards:
            self.shards = [ShardTables(checks_fences=self._checks_fences, after=self._after) for _ in range(shards)]
        self.nodes.pop(node, None)
        if takes_part:
            self.nodes[node] = now + seconds
        self.nodes = {name: until for name, until in self.nodes.items() if until > now}
        found: list[Ownership | None] = [None] * (len(self.shards) or shards)
        free, owned = [], 0
        for at, shard in enumerate(self.shards):
            if shard.keep(leases.get(at, 0), now + seconds):
                owned += 1
            elif now >= shard.until or shard.node == node:
                free.append(at)
                continue
            found[at] = Ownership(shard.node, shard.number)
        quota = Ownerships(found, len(self.nodes)).quota
        for at in free[: max(0, quota - owned)] if takes_part else ():
            self.shards[at].take(node, now + seconds)
            found[at] = Ownership(node, self.shards[at].number)
        return Ownerships(found, len(self.nodes))

    def release(self, shard: int, number: int, leaves: str) -> None:
        if self.shard(shard).release(number):
            self.nodes.pop(leaves, None)


@final
class MemoryJobs:
    """A `MeshJobs` of one node, in memory."""

    place = "memory"

    def __init__(self, tables: Callable[[], JobTables], request: Request, clock_rate: float = 1.0) -> None:
        self._tables = tables
        self._request = request
        self._clock_rate = clock_rate
        """How fast the node's clock runs, beside the store's."""

    async def claim(
        self, node: str, leases: Mapping[int, int], seconds: float, *, shards: int, takes_part: bool
    ) -> Ownerships:
        """As `MeshJobs.claim`."""
        there, leases = seconds * self._clock_rate, dict(leases)
        return await self._request(lambda: self._tables().claim(node, leases, there, shards, takes_part))

    def shard(self, shard: int) -> MemoryShardJobs:
        """As `MeshJobs.shard`."""
        return MemoryShardJobs(self._tables, self._request, shard)

    async def weakness(self) -> str:
        """As `MeshJobs.weakness`. A model loses what a test has it lose."""
        await trio.lowlevel.checkpoint()
        return ""


@final
class MemoryShardJobs:
    """A `ShardJobs` of one node, in memory."""

    place = "memory"

    def __init__(self, tables: Callable[[], JobTables], request: Request, shard: int) -> None:
        self._all_tables = tables
        self._request = request
        self._shard = shard

    def _tables(self) -> ShardTables:
        return self._all_tables().shard(self._shard)

    async def release(self, number: int, leaves: str) -> None:
        """As `ShardJobs.release`."""
        await self._request(lambda: self._all_tables().release(self._shard, number, leaves))

    async def write(self, number: int, serial: int, steps: Sequence[bytes], *, adds: bool) -> None:
        """As `ShardJobs.write`. There is always room."""
        await self._request(lambda: self._tables().write(number, serial, steps))

    async def page(self, number: int, after: int) -> list[StoredJob]:
        """As `ShardJobs.page`."""
        return await self._request(lambda: self._tables().page(number, after))

    async def tables(self, number: int) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """As `ShardJobs.tables`."""

        def step() -> Any:
            self._tables().check(number)
            return dict(self._tables().subscribers), dict(self._tables().lanes)

        return await self._request(step)

    async def payloads(self, number: int, keys: Sequence[int]) -> list[bytes | None]:
        """As `ShardJobs.payloads`."""

        def step() -> list[bytes | None]:
            self._tables().check(number)
            return [self._tables().payloads.get(key) for key in keys]

        return await self._request(step)
