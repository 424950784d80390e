"""An engine with external functions, one worker, and servers on a network in memory."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import httpcore2
import trio
import trio.testing

import iii_trio
from iii_trio.environment import Environment
from iii_trio.http import ExternalCall
from iii_trio.triggers.external import ExternalConfig, open_external

OPEN = ExternalConfig(block_private_ips=False, require_https=False)
NOW = 1_800_000_000
Answer = Callable[["Seen"], Awaitable[bytes]]


@attrs.define
class Seen:
    """One request, as the server read it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class MemoryStream(httpcore2.AsyncNetworkStream):
    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.closed = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return bytes(await self.stream.receive_some(max_bytes))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self.stream.send_all(buffer)

    async def aclose(self) -> None:
        self.closed = True
        await self.stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return False if info == "is_readable" else None


class MemoryNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to a server of ours, whatever the address is, and keeps the addresses."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.answer: Answer = plain(b"null")
        self.connected: list[tuple[str, int]] = []
        self.streams: list[MemoryStream] = []
        self.requests: list[Seen] = []
        self.unreachable: set[str] = set()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        await trio.lowlevel.checkpoint()
        self.connected.append((host, port))
        if host in self.unreachable:
            raise httpcore2.ConnectError("no route to host")
        here, there = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, there)
        self.streams.append(MemoryStream(here))
        return self.streams[-1]

    async def _serve(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while True:
                seen = await _read(connection, stream)
                if seen is None:
                    break
                self.requests.append(seen)
                raw = await self.answer(seen)
                await stream.send_all(raw)
                if b"close" in raw.partition(b"\r\n\r\n")[0]:
                    break
                connection = h11.Connection(h11.SERVER)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await stream.aclose()


async def _read(connection: h11.Connection, stream: trio.abc.Stream) -> Seen | None:
    seen = None
    while True:
        match connection.next_event():
            case h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(65_536)))
            case h11.Request() as event:
                headers = {name.decode(): value.decode() for name, value in event.headers}
                seen = Seen(event.method.decode(), event.target.decode(), headers, b"")
            case h11.Data() as event:
                assert seen is not None
                seen.body += bytes(event.data)
            case h11.EndOfMessage():
                return seen
            case _:
                return None


def plain(body: bytes, status: str = "200 OK", *more: str) -> Answer:
    """Return an answer with this body."""

    async def answer(seen: Seen) -> bytes:
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *more]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    return answer


class Names(trio.abc.HostnameResolver):
    """Resolves names by a table. A list of lists is used up, one for each look-up."""

    def __init__(self, table: dict[str, list[Any]]) -> None:
        self.table = table
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *_: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        found = self.table.get(name, [])
        if found and isinstance(found[0], list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET6 if ":" in ip else socket.AF_INET, 1, 6, "", (ip, int(port))) for ip in found]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@attrs.define
class World:
    engine: iii_trio.Engine
    worker: iii_trio.Worker
    caller: iii_trio.Worker
    network: MemoryNetwork
    variables: dict[str, str]
    names: Names
    offered: iii_trio.worker.Registered | None = None

    async def offer(self, url: str = "http://tides.example/next", **options: Any) -> iii_trio.worker.Registered:
        """Register `tides::next`, and wait until it has been checked."""
        offered = self.offered = self.worker.register_external_function("tides::next", ExternalCall(url, **options))
        await self.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        return offered

    def forget(self) -> None:
        """Take `tides::next` back."""
        assert self.offered is not None
        self.offered.unregister()

    async def refusal(self, url: str = "http://tides.example/next", **options: Any) -> str | None:
        """Register `tides::next`, and return why the engine refused it."""
        refused = (await self.offer(url, **options)).refused
        return refused and refused.removeprefix("tides::next was refused in namespace 'default': ")

    async def call(self, payload: Any = None) -> Any:
        return await self.caller.trigger("tides::next", payload)

    async def error(self, payload: Any = None) -> tuple[str, str]:
        """Call, and return code and message of the error."""
        try:
            value = await self.call(payload)
        except iii_trio.CallError as error:
            return error.code, error.message
        raise AssertionError(f"it returned {value!r}")


@asynccontextmanager
async def external_world(
    config: ExternalConfig = OPEN, names: dict[str, list[Any]] | None = None, **variables: str
) -> AsyncIterator[World]:
    """Open it. `tides.example` is a public address, unless `names` says otherwise."""
    resolver = Names({"tides.example": ["93.184.216.34"], **(names or {})})
    former = trio.socket.set_custom_hostname_resolver(resolver)
    try:
        async with trio.open_nursery() as nursery, iii_trio.open_engine() as engine:
            network = MemoryNetwork(nursery)
            async with (
                open_external(
                    engine.address,
                    config,
                    environment=Environment(wall_clock=lambda: NOW),
                    network=network,
                    variables=variables,
                    ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # reading the system's would take a thread
                ),
                engine.open_worker("tides") as worker,
                engine.open_worker("caller") as caller,
            ):
                yield World(engine, worker, caller, network, variables, resolver)
            nursery.cancel_scope.cancel()
    finally:
        trio.socket.set_custom_hostname_resolver(former)
