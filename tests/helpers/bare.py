"""A client that says bytes to an engine over any stream, and a time limit for tests: a hang fails, and hangs nobody."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import attrs
import trio

import iii_trio
from iii_trio.transport.frames import frame_head

P = ParamSpec("P")
T = TypeVar("T")
UPGRADE = (
    "GET {target} HTTP/1.1\r\nHost: engine\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
)


def within(seconds: float) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Let a test fail that takes longer, in its own clock."""

    def limited(test: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(test)
        async def run(*args: P.args, **kwargs: P.kwargs) -> T:
            with trio.fail_after(seconds):
                return await test(*args, **kwargs)

        return run

    return limited


@attrs.define(eq=False)
class Bare:
    """One connection, after its upgrade or instead of it."""

    stream: trio.abc.Stream
    unread: bytes = b""
    status: int = 0
    said: str = ""
    """The answer to the request, as far as it is text."""

    async def ask(self, target: str = "/", **headers: str) -> int:
        """Ask for an upgrade; the status of the answer."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self.stream.send_all(UPGRADE.format(target=target, headers=lines).encode())
        return await self._answered()

    async def get(self, target: str) -> int:
        """Ask without an upgrade; the status of the answer."""
        await self.stream.send_all(f"GET {target} HTTP/1.1\r\nHost: engine\r\n\r\n".encode())
        return await self._answered()

    async def _answered(self) -> int:
        while b"\r\n\r\n" not in self.unread:
            if not await self._more():
                self.said = self.unread.decode()
                return 0
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        self.status = int(head.split()[1])
        self.said = head.decode()
        if self.status != 101:
            while await self._more():
                pass
            self.said, self.unread = self.said + "\n" + self.unread.decode(), b""
        return self.status

    async def _more(self) -> bool:
        try:
            data = bytes(await self.stream.receive_some(65536))
        except trio.BrokenResourceError:
            return False
        self.unread += data
        return bool(data)

    async def frame(self) -> tuple[int, bytes] | None:
        """The opcode and payload of the next frame; None at the end of the connection."""
        while True:
            data = self.unread
            if len(data) >= 2:
                size, start = data[1] & 127, 2
                if size >= 126:
                    start = 4 if size == 126 else 10
                    size = int.from_bytes(data[2:start], "big")
                if len(data) >= start + size:
                    self.unread = data[start + size :]
                    return data[0] & 15, data[start : start + size]
            if not await self._more():
                return None

    async def message(self) -> dict[str, Any]:
        """The next text message."""
        while (frame := await self.frame()) is not None:
            if frame[0] == 1:
                said: dict[str, Any] = json.loads(frame[1])
                return said
        raise AssertionError("the connection ended")

    async def say(self, opcode: int, payload: bytes = b"") -> None:
        """Send one frame, masked with zeros."""
        head = bytearray(frame_head(opcode, len(payload)))
        head[1] |= 0x80
        await self.stream.send_all(bytes(head) + bytes(4) + payload)

    async def tell(self, **message: Any) -> None:
        """Send one message."""
        await self.say(1, json.dumps(message).encode())


@asynccontextmanager
async def connected(engine: iii_trio.Engine, target: str = "/", **headers: str) -> AsyncIterator[Bare]:
    """A connection over memory that asked for an upgrade; dropped at the end."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.serve_stream, far)
        bare = Bare(near)
        try:
            await bare.ask(target, **headers)
            yield bare
        finally:
            await trio.aclose_forcefully(near)
