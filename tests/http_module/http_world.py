"""An engine with the HTTP module and one worker, all in memory; clients speak raw HTTP over memory streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import trio
import trio.testing

import iii_trio
from iii_trio.triggers.http import HttpConfig, HttpServer, open_http_server


@attrs.define
class Reply:
    """One response as a client saw it. `whole` is False if the connection ended before the end of the body."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool


class Client:
    """A client on a memory stream."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def send(self, raw: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(raw)

    async def request(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send a request, and read its response."""
        await self.begin(method, target, body, **headers)
        return await self.reply()

    async def raw(self, *pieces: bytes, method: str = "GET") -> Reply:
        """Send pieces of bytes as they are, and read the response to one request of this method."""
        for piece in pieces:
            await self.send(piece)
            await trio.testing.wait_all_tasks_blocked()
        self._h11.send(h11.Request(method=method, target="/", headers=[("Host", "here")]))
        self._h11.send(h11.EndOfMessage())
        return await self.reply()

    async def begin(self, method: str, target: str, body: bytes | None = None, **headers: str) -> None:
        """Send a request."""
        lines = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if body is not None:
            lines.append(("Content-Length", str(len(body))))
        out = self._h11.send(h11.Request(method=method, target=target, headers=[("Host", "here"), *lines])) or b""
        if body:
            out += self._h11.send(h11.Data(data=body)) or b""
        await self.send(out + (self._h11.send(h11.EndOfMessage()) or b""))

    async def event(self) -> Any:
        """Read the next event of h11."""
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(await self.stream.receive_some(65_536))
        return event

    async def reply(self) -> Reply:
        """Read a response to its end, or to the end of the connection."""
        body, response = b"", None
        try:
            while not isinstance(event := await self.event(), h11.EndOfMessage):
                match event:
                    case h11.Response():
                        response = event
                    case h11.Data():
                        body += bytes(event.data)
                    case h11.ConnectionClosed():
                        raise h11.RemoteProtocolError("closed")
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            return _reply(response, body, whole=False)
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        return _reply(response, body, whole=True)


def _reply(response: h11.Response | None, body: bytes, *, whole: bool) -> Reply:
    if response is None:
        return Reply(0, {}, body, whole)
    headers: dict[str, str] = {}
    for name, value in response.headers:
        headers[name.decode()] = (headers[name.decode()] + ", " if name.decode() in headers else "") + value.decode()
    return Reply(response.status_code, headers, body, whole)


@attrs.define
class HttpWorld:
    """Everything that a test of the HTTP module needs."""

    engine: iii_trio.Engine
    worker: iii_trio.Worker
    server: HttpServer
    nursery: trio.Nursery

    def connect(self, max_buffer: int | None = None) -> Client:
        """Connect a new client. With `max_buffer`, each direction takes so many bytes before it is read."""
        if max_buffer is None:
            here, there = trio.testing.memory_stream_pair()
        else:
            here, there = trio.testing.lockstep_stream_pair()
        self.nursery.start_soon(self.server.serve, there)
        return Client(here)

    async def route(self, function_id: str, path: str, method: str = "GET", **config: Any) -> None:
        """Bind a function of the worker to a route, and wait until it is served."""
        before = len(self.server.router)
        self.worker.register_trigger("http", function_id, config={"api_path": path, "http_method": method, **config})
        await self.worker.wait_registered()
        with trio.fail_after(5):
            while len(self.server.router) == before:
                await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def http_world(
    config: HttpConfig | None = None, *, engine_config: iii_trio.EngineConfig | None = None
) -> AsyncIterator[HttpWorld]:
    """Open an engine with the HTTP module and a worker."""
    async with (
        iii_trio.open_engine(engine_config) as engine,
        open_http_server(engine.address, config) as server,
        engine.open_worker("app") as worker,
        trio.open_nursery() as nursery,
    ):
        yield HttpWorld(engine, worker, server, nursery)
        nursery.cancel_scope.cancel()
