"""A model of the jobs of a mesh in memory, for simulations. Time is Trio's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar, final

import trio

from ..mesh import Fenced, Ownership, StoredJob

T = TypeVar("T")
_PAGE_JOBS: Final = 3  # so that small histories have several


class Request(Protocol):
    """Has one step done by the store, after the way there and before the way back."""

    def __call__(self, step: Callable[[], T], /) -> Awaitable[T]: ...


@final
class JobTables:
    """The jobs in the store itself. One step each.

    `checks_fences` is turned off only to show that the tests find what goes wrong without the check.
    """

    def __init__(self, *, checks_fences: bool = True, after: int = 0) -> None:
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
        """The last number of a store that has lost everything since. Its clock keeps the numbers rising all the same."""

    def claim(self, node: str, number: int, seconds: float, wanted: bool) -> Ownership | None:
        now = trio.current_time()
        if number and self.number == number:
            self.until = now + seconds
        elif now < self.until and self.node != node:
            pass
        elif not wanted:
            return None
        else:
            self.node, self.number, self.serial = node, max(self.number, self._after) + 1, 0
            self.until = now + seconds
        return Ownership(self.node, self.number)

    def release(self, number: int) -> None:
        if self.number == number:
            self.node, self.number, self.until = "", number + 1, 0.0

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
class MemoryJobs:
    """A `MeshJobs` of one node, in memory."""

    place = "memory"

    def __init__(self, tables: Callable[[], JobTables], request: Request, clock_rate: float = 1.0) -> None:
        self._tables = tables
        self._request = request
        self._clock_rate = clock_rate
        """How fast the node's clock runs, beside the store's."""

    async def claim(self, node: str, number: int, seconds: float, *, wanted: bool) -> Ownership | None:
        """As `MeshJobs.claim`."""
        there = seconds * self._clock_rate
        return await self._request(lambda: self._tables().claim(node, number, there, wanted))

    async def release(self, number: int) -> None:
        """As `MeshJobs.release`."""
        await self._request(lambda: self._tables().release(number))

    async def write(self, number: int, serial: int, steps: Sequence[bytes], *, adds: bool) -> None:
        """As `MeshJobs.write`. There is always room."""
        await self._request(lambda: self._tables().write(number, serial, steps))

    async def page(self, number: int, after: int) -> list[StoredJob]:
        """As `MeshJobs.page`."""
        return await self._request(lambda: self._tables().page(number, after))

    async def tables(self, number: int) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """As `MeshJobs.tables`."""

        def step() -> Any:
            self._tables().check(number)
            return dict(self._tables().subscribers), dict(self._tables().lanes)

        return await self._request(step)

    async def weakness(self) -> str:
        """As `MeshJobs.weakness`. A model loses what a test has it lose."""
        await trio.lowlevel.checkpoint()
        return ""

    async def payloads(self, number: int, keys: Sequence[int]) -> list[bytes | None]:
        """As `MeshJobs.payloads`."""

        def step() -> list[bytes | None]:
            self._tables().check(number)
            return [self._tables().payloads.get(key) for key in keys]

        return await self._request(step)
