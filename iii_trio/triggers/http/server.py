"""The HTTP server: connections, their requests one after the other, and the answers that need no handler."""

from __future__ import annotations

import logging
import socket
import ssl
from typing import Final, final
from urllib.parse import urlsplit

import attrs
import h11
import trio

from ...transport.socket import Socket
from ...transport.tls import TlsStream
from ...worker import Worker
from .connection import ClientGone, HttpConnection
from .cors import PERMISSIVE, is_preflight
from .exchange import Exchange
from .request import BadQuery, header_dict, query_params
from .response import Head, Whole, failure
from .routes import Match, Route, Router
from .settings import HttpConfig

LOGGER: Final = logging.getLogger("iii_trio.http")


@attrs.define
class Counters:
    """What happened to the requests of one route, or of no route."""

    requests: int = 0
    in_flight: int = 0
    failed: int = 0
    """Answered with 500 or above."""
    truncated: int = 0
    """Cut off behind their head, visibly."""
    abandoned: int = 0
    """Left by their client before the end."""


@final
class HttpServer:
    """Serves the routes that workers bound, over any streams."""

    def __init__(self, worker: Worker, config: HttpConfig) -> None:
        self.config = config
        self.router = Router()
        self.counters: dict[Route, Counters] = {}
        self.unrouted = Counters()
        self.connections = 0
        self._worker = worker
        self._open: dict[HttpConnection, trio.CancelScope] = {}
        """The connections, each with the scope in which it waits for a request."""
        self._idle = trio.lowlevel.ParkingLot()
        self._is_draining = False
        self._in_flight = trio.CapacityLimiter(config.concurrency_request_limit)

    def add(self, route: Route) -> Route | None:
        """Serve a route; return the one that it replaced. Raises RouteError."""
        replaced = self.router.add(route)
        self.counters[route] = self.counters.pop(replaced, Counters()) if replaced is not None else Counters()
        return replaced

    def remove(self, route: Route) -> None:
        """Serve a route no longer. Requests that are under way go on."""
        self.router.remove(route)
        self.counters.pop(route, None)

    def reconfigure(self, config: HttpConfig) -> None:
        """Use these settings for the requests that come from now on."""
        self.config = config
        self._in_flight.total_tokens = config.concurrency_request_limit

    def drain(self) -> None:
        """Let the requests that are under way be the last of their connections, and end those that have none."""
        self._is_draining = True
        for connection, waiting in self._open.items():
            connection.is_last = True
            if connection.is_idle:
                waiting.cancel(reason="the server is closing")

    async def wait_idle(self) -> None:
        """Wait until no request is under way. If cancelled: nothing changes."""
        await trio.lowlevel.checkpoint()
        while self._in_flight.borrowed_tokens:
            await self._idle.park()

    # --- connections

    async def accept(self, connection: socket.socket, ssl_context: ssl.SSLContext | None = None) -> None:
        """Serve a connection that the listener accepted, to its end. An error of ours ends it, and nothing else."""
        transport = Socket(connection)
        stream: trio.abc.Stream = transport
        if ssl_context is not None:
            stream = TlsStream(transport, ssl_context, server_side=True)
        try:
            await self.serve(stream)
        except Exception:
            LOGGER.exception("a connection from %s ended by an error of ours", transport.peer)
        finally:
            transport.close()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection over any stream, and close it. If cancelled: it is dropped, its handlers are cancelled."""
        connection = HttpConnection(stream, self.config.limits)
        connection.is_last = self._is_draining
        self.connections += 1
        try:
            if self.connections > self.config.limits.connections:
                await self._refuse(
                    connection, 503, "TOO_MANY_CONNECTIONS", "The server has as many connections as it may."
                )
                return
            while await self._serve_next(connection):
                pass
        except (ClientGone, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            LOGGER.debug("a client is gone: %s", error)
        finally:
            self.connections -= 1
            self._open.pop(connection, None)
            await connection.close()  # noqa: ASYNC102 - it never waits

    async def _serve_next(self, connection: HttpConnection) -> bool:
        """Serve the next request; return whether another may follow."""
        request = None
        try:
            with trio.CancelScope() as self._open[connection]:
                request = await connection.next_request()
        except trio.TooSlowError as error:
            await self._refuse(connection, 408, "REQUEST_TIMEOUT", f"{error}.")
            return False
        except h11.RemoteProtocolError as error:
            await self._refuse(connection, error.error_status_hint, "BAD_REQUEST", f"{error}.")
            return False
        # The client wants no more.
        if request is None:
            return False
        names = [name for name, _ in request.headers]
        if b"transfer-encoding" in names and b"content-length" in names:  # RFC 9112 section 6.1: a smuggler's request
            message = "A request may have a Content-Length or a Transfer-Encoding, and not both."
            await self._refuse(connection, 400, "BAD_REQUEST", message)
            return False
        await self._serve_request(connection, request)
        if not connection.body_is_read:
            await connection.linger()
            return False
        return True

    async def _serve_request(self, connection: HttpConnection, request: h11.Request) -> None:
        method, headers = request.method.decode("latin-1").upper(), header_dict(request.headers)
        cors = self.config.cors or PERMISSIVE
        common = cors.headers(headers.get("origin"))

        async def answer(whole: Whole) -> None:
            head = Head(whole.head.status, (*whole.head.headers, *common))
            await connection.send_whole(Whole(head, whole.body), close=not connection.body_is_read)

        target = request.target.decode("latin-1")
        if not target.startswith("/"):  # the absolute form (RFC 9112 section 3.2.2), or `*`
            parts = urlsplit(target)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        path, _, query = target.partition("?")
        if is_preflight(method, headers):
            await connection.send_whole(Whole(Head(200, tuple(cors.preflight(headers))), b""), close=False)
            return
        match = self._match(method, path)
        # No worker serves it, so no channel is made for it.
        if match is None:
            self.unrouted.requests += 1
            await answer(self._no_route(method, path))
            return
        try:
            params = query_params(query)
        except BadQuery as error:
            await answer(failure(400, "BAD_REQUEST", f"{error}."))
            return
        counters = self.counters.get(match.route, self.unrouted)
        counters.requests += 1
        holder = object()
        with trio.move_on_after(self.config.limits.wait_seconds) as waiting:
            await self._in_flight.acquire_on_behalf_of(holder)
        if waiting.cancelled_caught:
            busy = failure(503, "TOO_MANY_REQUESTS", "The server serves as many requests as it may. Try again later.")
            await answer(Whole(Head(503, (*busy.head.headers, ("retry-after", "1"))), busy.body))
            return
        exchange = Exchange(self._worker, connection, self.config, match, method, params, headers, common)
        counters.in_flight += 1
        try:
            await self._bounded(exchange, connection)
        except ClientGone:
            exchange.client_left = True
            raise
        finally:
            counters.in_flight -= 1
            counters.failed += exchange.status >= 500
            counters.truncated += exchange.truncated
            counters.abandoned += exchange.client_left
            self._in_flight.release_on_behalf_of(holder)
            if not self._in_flight.borrowed_tokens:
                self._idle.unpark_all()

    async def _bounded(self, exchange: Exchange, connection: HttpConnection) -> None:
        total = self.config.limits.total_seconds
        if total is None:
            await exchange.run()
            return
        with trio.move_on_after(total) as scope:
            await exchange.run()
        if scope.cancelled_caught:
            connection.cut()
            raise ClientGone(f"the request took more than {total:g} s")

    def _match(self, method: str, path: str) -> Match | None:
        found = self.router.match(method, path)
        if found is None and method == "HEAD":
            return self.router.match("GET", path)
        return found

    def _no_route(self, method: str, path: str) -> Whole:
        allowed = self.router.allowed(path)
        if not allowed:
            if method == "OPTIONS":
                return Whole(Head(200), b"")
            return failure(404, "NOT_FOUND", "Not Found")
        allow = ("allow", ", ".join(allowed))
        if method == "OPTIONS":
            return Whole(Head(200, (allow,)), b"")
        whole = failure(405, "METHOD_NOT_ALLOWED", f"{method} is not served here, but {allow[1]}.")
        return Whole(Head(405, (*whole.head.headers, allow)), whole.body)

    async def _refuse(self, connection: HttpConnection, status: int, code: str, message: str) -> None:
        """Answer a request that cannot be served, and end the connection."""
        try:
            await connection.send_whole(failure(status, code, message), close=True)
        except h11.LocalProtocolError:
            return  # it broke the protocol within a response
        await connection.linger()
