"""The HTTP module: a worker that serves requests with what other workers offer."""

from __future__ import annotations

import functools
import os
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, final

import trio
from msgspec import Raw

from ...environment import Environment
from ...errors import ListenFailed
from ...nursery import open_service_nursery
from ...tracing import Tracing
from ...transport.certificates import server_context
from ...transport.link import Address
from ...transport.listen import ListeningSocket
from ...transport.memory_budget import UNLIMITED_SHARE, MemoryShare
from ...wire import bad_input, to_json
from ...worker import BoundTrigger, Worker, open_worker
from ..module import RunningModule
from .routes import Route, RouteError
from .server import Counters, HttpServer
from .settings import HttpConfig

WORKER: Final = "iii-http"
TRIGGER_TYPE: Final = "http"
ROUTES: Final = "iii-http::routes"
_PAGE_BYTES: Final = 512 * 1024
"""The size at which a page of routes ends, because SDKs take no more than 1 MiB at once."""


@asynccontextmanager
async def open_http(
    address: Address,
    config: HttpConfig | None = None,
    *,
    environment: Environment | None = None,
    tracing: Tracing | None = None,
    memory: MemoryShare = UNLIMITED_SHARE,
) -> AsyncIterator[Http]:
    """Serve HTTP with the functions of the engine at `address`, for the length of the block.

    `environment` is for simulations. Requests are spans of `tracing`. The bytes that they keep count in `memory`.
    Raises ListenFailed if the listener's address is taken, ConfigError for TLS files that cannot be used.
    Leaving the block stops listening and cancels the requests that are under way.
    If cancelled: as leaving the block.
    """
    config = config or HttpConfig()
    context = None if config.tls is None else await trio.to_thread.run_sync(server_context, config.tls)
    sockets = await _bind(config)
    try:
        async with (
            open_http_server(address, config, environment=environment, tracing=tracing, memory=memory) as server,
            open_service_nursery() as nursery,
        ):
            accept = functools.partial(server.accept, ssl_context=context)
            for listening in sockets:
                nursery.start_soon(listening.accept_each, accept, nursery)
            yield Http(server, sockets, secure=context is not None)
            nursery.cancel_scope.cancel(reason="the HTTP server closes")
    finally:
        for listening in sockets:
            listening.close()


@asynccontextmanager
async def open_http_server(
    address: Address,
    config: HttpConfig | None = None,
    *,
    environment: Environment | None = None,
    tracing: Tracing | None = None,
    memory: MemoryShare = UNLIMITED_SHARE,
) -> AsyncIterator[HttpServer]:
    """Open the HTTP server without a listener: its `serve` takes any stream. Raises and ends as `open_http`."""
    async with open_worker(address, name=WORKER, environment=environment) as worker:
        server = HttpServer(worker, config or HttpConfig(), tracing, memory)
        worker.register_trigger_type(
            TRIGGER_TYPE, _Routes(server), description="calls a function with each request of a method and a path"
        )
        _register_functions(worker, server)
        await worker.wait_registered()
        yield server


@final
class Http(RunningModule):
    """A running HTTP server. Made by `open_http`."""

    def __init__(self, server: HttpServer, sockets: list[ListeningSocket], *, secure: bool) -> None:
        self.server = server
        self._sockets = sockets
        self._secure = secure

    @property
    def urls(self) -> list[str]:
        """The addresses that it listens at."""
        urls = [listening.url(secure=self._secure) for listening in self._sockets]
        return [url if url.startswith("unix:") else f"http{url.removeprefix('ws')}" for url in urls]

    async def drain(self) -> None:
        """Stop listening, end idle connections, and wait until the requests that are under way have ended.

        If cancelled: they go on.
        """
        for listening in self._sockets:
            listening.close()
        self.server.drain()
        await self.server.wait_idle()

    @property
    def status(self) -> str:
        """The addresses, for the ready line."""
        return f"HTTP on {', '.join(self.urls)}"

    def reconfigure(self, settings: HttpConfig) -> HttpConfig | None:
        """Use these settings for the requests that come from now on.

        Another address, or other TLS files, need a restart of the module.
        """
        was = self.server.config
        if _place(was) != _place(settings):
            return None
        for listening in self._sockets:
            listening.set_mode(settings.mode)
        self.server.reconfigure(settings)
        return settings


def _place(config: HttpConfig) -> tuple[object, ...]:
    """Return what cannot change while it listens."""
    address = (config.unix,) if config.unix is not None else (config.host, config.port)
    return (config.descriptors or address, config.tls)


@final
class _Routes:
    """The trigger type's provider."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._routes: dict[str, Route] = {}

    def register_trigger(self, bound: BoundTrigger) -> None:
        """Serve a route. What RouteError says is the answer to the worker that asked for the binding."""
        route = Route.from_config(
            bound.config,
            function_id=bound.function_id,
            namespace=bound.namespace,
            trigger_id=bound.id,
            metadata=bound.metadata,
        )
        try:
            replaced = self._server.add(route)
        except RouteError as error:
            self._server.shared.warn(str(error), bound.function_id)
            raise
        self._routes[bound.id] = route
        if replaced is not None and replaced.trigger_id != bound.id:
            text = f"now calls {route.function_id} instead of {replaced.function_id}"
            why = "because a later binding replaces an earlier one"
            self._server.shared.warn(f"{route.name} {text}, {why}", route.function_id)

    def unregister_trigger(self, bound: BoundTrigger) -> None:
        """Serve a route no longer, unless a later binding has replaced it."""
        route = self._routes.pop(bound.id, None)
        if route is not None:
            self._server.remove(route)


def _register_functions(worker: Worker, server: HttpServer) -> None:
    @worker.function(ROUTES, description="list the routes with their counters, in pages")
    async def routes(limit: int | None = None, after: list[str] | None = None) -> dict[str, Any]:
        if limit is not None and limit < 1:
            raise bad_input(ROUTES, f"limit: must be at least 1, got {limit}")
        ordered = sorted((_key(route), route) for route in server.counters)
        begin = 0 if after is None else bisect_right(ordered, after, key=lambda one: one[0])
        rows: list[Raw] = []
        size = 0
        for _, route in ordered[begin : None if limit is None else begin + limit]:
            row = to_json(_row(route, server.counters[route]))
            size += len(row) + 1
            # A page has one route in any case.
            if size > _PAGE_BYTES and rows:
                break
            rows.append(Raw(row))
        end = begin + len(rows)
        return {
            "routes": rows,
            "after": ordered[end - 1][0] if 0 < end < len(ordered) else None,
            "connections": server.connections,
            "requests_without_a_route": server.unrouted.requests,
        }


def _key(route: Route) -> list[str]:
    """Return what routes are sorted by, and a page begins behind."""
    return [route.template.lstrip("/"), route.method, route.trigger_id]


def _row(route: Route, counters: Counters) -> dict[str, Any]:
    return {
        "method": route.method,
        "path": route.template,
        "function_id": route.function_id,
        "namespace": route.namespace,
        "trigger_id": route.trigger_id,
        "requests": counters.requests,
        "in_flight": counters.in_flight,
        "failed": counters.failed,
        "truncated": counters.truncated,
        "abandoned": counters.abandoned,
    }


async def _bind(config: HttpConfig) -> list[ListeningSocket]:
    if config.descriptors:
        # A copy, because the module may be started again and needs the socket then.
        return [ListeningSocket.adopt(_copy(descriptor)) for descriptor in config.descriptors]
    if config.unix is not None:
        return [ListeningSocket.bind_unix(config.unix, config.mode)]
    return await ListeningSocket.bind(config.host, config.port)


def _copy(descriptor: int) -> int:
    try:
        os.set_inheritable(descriptor, False)
        return os.dup(descriptor)
    except OSError as error:
        raise ListenFailed(f"cannot listen at file descriptor {descriptor}: {error.strerror}") from None
