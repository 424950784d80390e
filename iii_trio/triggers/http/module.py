"""The HTTP module: a worker that serves requests with what other workers offer."""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, final

from ...errors import ConfigError
from ...nursery import open_service_nursery
from ...transport.link import Address
from ...transport.listen import ListeningSocket
from ...worker import BoundTrigger, Worker, open_worker
from ..module import RunningModule
from .routes import Route, RouteError
from .server import LOGGER, HttpServer
from .settings import HttpConfig

WORKER: Final = "iii-http"
TRIGGER_TYPE: Final = "http"
ROUTES: Final = "iii-http::routes"


@asynccontextmanager
async def open_http(address: Address, config: HttpConfig | None = None, **options: Any) -> AsyncIterator[Http]:
    """Serve HTTP with the functions of the engine at `address`, for the length of the block.

    Options are those of `iii_trio.open_worker`.
    Raises ConnectionFailed if the listener's address is taken, ConfigError for TLS files that cannot be used.
    Leaving the block stops listening and cancels the requests that are under way.
    If cancelled: as leaving the block.
    """
    config = config or HttpConfig()
    context = _ssl_context(config)
    sockets = await _bind(config)
    try:
        async with open_http_server(address, config, **options) as server, open_service_nursery() as nursery:
            for listening in sockets:
                accept = functools.partial(server.accept, ssl_context=context)
                nursery.start_soon(listening.accept_each, accept, nursery)
            yield Http(server, sockets, secure=context is not None)
            nursery.cancel_scope.cancel(reason="the HTTP server closes")
    finally:
        for listening in sockets:
            listening.close()


@asynccontextmanager
async def open_http_server(
    address: Address, config: HttpConfig | None = None, **options: Any
) -> AsyncIterator[HttpServer]:
    """Open the HTTP server without a listener: its `serve` takes any stream. Raises and ends as `open_http`."""
    async with open_worker(address, name=WORKER, **options) as worker:
        server = HttpServer(worker, config or HttpConfig())
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
        scheme = "https" if self._secure else "http"
        urls = [listening.url() for listening in self._sockets]
        return [url if url.startswith("unix:") else f"{scheme}{url.removeprefix('ws')}" for url in urls]

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
        if (was.host, was.port, was.unix, was.tls) != (settings.host, settings.port, settings.unix, settings.tls):
            return None
        self.server.reconfigure(settings)
        return settings


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
            LOGGER.warning("%s", error)
            raise
        self._routes[bound.id] = route
        if replaced is not None and replaced.trigger_id != bound.id:
            LOGGER.warning(
                "%s now calls %s instead of %s, because a later binding replaces an earlier one",
                route.name,
                route.function_id,
                replaced.function_id,
            )

    def unregister_trigger(self, bound: BoundTrigger) -> None:
        """Serve a route no longer, unless a later binding has replaced it."""
        route = self._routes.pop(bound.id, None)
        if route is not None:
            self._server.remove(route)


def _register_functions(worker: Worker, server: HttpServer) -> None:
    @worker.function(ROUTES, description="list the routes with their counters")
    async def routes() -> dict[str, Any]:
        rows = [
            {
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
            for route, counters in server.counters.items()
        ]
        return {
            "routes": rows,
            "connections": server.connections,
            "requests_without_a_route": server.unrouted.requests,
        }


async def _bind(config: HttpConfig) -> list[ListeningSocket]:
    if config.unix is not None:
        return [ListeningSocket.bind_unix(config.unix)]
    return await ListeningSocket.bind(config.host, config.port)


def _ssl_context(config: HttpConfig) -> ssl.SSLContext | None:
    if config.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.num_tickets = 0
    try:
        context.load_cert_chain(config.tls.certificate, config.tls.key)
    except (ssl.SSLError, OSError) as error:
        files = config.tls.certificate if config.tls.key is None else f"{config.tls.certificate} and {config.tls.key}"
        raise ConfigError(f"the HTTP listener's TLS files {files} cannot be used: {error}") from None
    return context
