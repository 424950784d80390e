"""A connection over memory whose server's end is read and written without waiting, as a socket is."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from .http_world import Client, HttpWorld


class _Bytes:
    """One direction."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_over = False
        self.came = trio.lowlevel.ParkingLot()

    def put(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data
        self.came.unpark_all()

    def end(self) -> None:
        self.is_over = True
        self.came.unpark_all()

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.data and not self.is_over:
            await self.came.park()

    def take(self, size: int) -> bytes:
        data = bytes(self.data[:size])
        del self.data[:size]
        return data


class _End(trio.abc.Stream):
    """An end that waits, as Trio's do."""

    def __init__(self, incoming: _Bytes, outgoing: _Bytes) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.is_reset = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self.incoming.wait()
        return self.incoming.take(max_bytes or 65_536)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.outgoing.put(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.outgoing.end()
        await trio.lowlevel.checkpoint()


class AtOnce(_End):
    """The server's end. It counts how often it is waited for, and notes how much each read asks for."""

    def __init__(self, incoming: _Bytes, outgoing: _Bytes) -> None:
        super().__init__(incoming, outgoing)
        self.asked: list[int] = []
        self.waits = 0
        self.room: int | None = None
        """How many bytes it takes until its room is waited for. None: all that come."""

    def read_now(self, into: memoryview) -> int | None:
        self._check()
        self.asked.append(len(into))
        if not self.incoming.data:
            return 0 if self.incoming.is_over else None
        data = self.incoming.take(len(into))
        into[: len(data)] = data
        return len(data)

    async def wait_readable(self) -> None:
        self.waits += 1
        await self.incoming.wait()

    def write_now(self, parts: Sequence[bytes | bytearray | memoryview]) -> int:
        self._check()
        data = b"".join(parts)[: self.room]
        self.outgoing.put(data)
        if self.room is not None:
            self.room -= len(data)
        return len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        self.room = None

    def _check(self) -> None:
        if self.is_reset:
            raise trio.BrokenResourceError("Connection reset by peer")


def connect(world: HttpWorld, *, at_once: bool = True) -> tuple[Client, AtOnce]:
    """Connect a client, and return the server's end with it. Without `at_once`, the server has another end that waits."""
    up, down = _Bytes(), _Bytes()
    there = AtOnce(up, down)
    world.nursery.start_soon(world.server.serve, there if at_once else _End(up, down))
    return Client(_End(down, up)), there  # type: ignore[arg-type]
