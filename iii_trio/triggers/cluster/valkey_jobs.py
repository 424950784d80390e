"""The jobs of a mesh in Valkey."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, final

from ..mesh import Ownership, Ownerships, StoredJob
from .valkey_jobs_library import LIBRARY, SOURCE

Call: TypeAlias = Callable[[str, str, str, Sequence[str | bytes]], Awaitable[Any]]
"""Calls a function inside Valkey: its library, the library's source, its name, its arguments."""


@final
class ValkeyJobs:
    """A `MeshJobs` in Valkey."""

    def __init__(self, place: str, call: Call, weakness: Callable[[], Awaitable[str]]) -> None:
        self.place = place
        """As `MeshJobs.place`."""
        self._fcall = call
        self._weakness = weakness

    async def claim(
        self, node: str, leases: Mapping[int, int], seconds: float, *, shards: int, takes_part: bool
    ) -> Ownerships:
        """As `MeshJobs.claim`."""
        ms = str(max(1, round(seconds * 1000)))
        held = [str(each) for lease in leases.items() for each in lease]
        nodes, found = await self._call("claim", node, ms, str(shards), "1" if takes_part else "0", *held)
        owners = [
            Ownership(holder.decode(), int(number)) if holder else None
            for holder, number in zip(found[::2], found[1::2], strict=True)
        ]
        return Ownerships(owners, int(nodes))

    def shard(self, shard: int) -> ValkeyShardJobs:
        """As `MeshJobs.shard`."""
        return ValkeyShardJobs(self.place, self._call, shard)

    async def weakness(self) -> str:
        """As `MeshJobs.weakness`."""
        return await self._weakness()

    async def _call(self, function: str, *arguments: str | bytes) -> Any:
        return await self._fcall(LIBRARY, SOURCE, function, arguments)


@final
class ValkeyShardJobs:
    """A `ShardJobs` in Valkey."""

    def __init__(self, place: str, call: Callable[..., Awaitable[Any]], shard: int) -> None:
        self.place = place
        """As `ShardJobs.place`."""
        self._call_function = call
        self._shard = str(shard)

    async def release(self, number: int, leaves: str) -> None:
        """As `ShardJobs.release`."""
        await self._call("release", str(number), leaves)

    async def write(self, number: int, serial: int, steps: Sequence[bytes], *, adds: bool) -> None:
        """As `ShardJobs.write`."""
        await self._call("add" if adds else "write", str(number), str(serial), *steps)

    async def page(self, number: int, after: int) -> list[StoredJob]:
        """As `ShardJobs.page`."""
        flat = await self._call("page", str(number), str(after))
        return [
            StoredJob(int(key), record, payload)
            for key, record, payload in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]

    async def tables(self, number: int) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """As `ShardJobs.tables`."""
        subscribers, lanes = await self._call("tables", str(number))
        return _dict(subscribers), _dict(lanes)

    async def payloads(self, number: int, keys: Sequence[int]) -> list[bytes | None]:
        """As `ShardJobs.payloads`."""
        found: list[bytes | None] = await self._call("payloads", str(number), *(str(key) for key in keys))
        return found

    async def _call(self, function: str, *arguments: str | bytes) -> Any:
        return await self._call_function(function, self._shard, *arguments)


def _dict(flat: Any) -> dict[bytes, bytes]:
    """Return the fields of a hash, which comes as a list or as a map."""
    return dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
