"""The HTTP server: connections, their requests one after the other, and the answers that need no handler."""

from __future__ import annotations

import socket
import ssl
from typing import Final, final

import h11
import trio

from ...nursery import sort_failure
from ...records import define
from ...tracing import Tracing
from ...transport.http1 import BadRequest, split_target
from ...transport.memory_budget import UNLIMITED_SHARE, MemoryShare
from ...transport.socket import Socket
from ...transport.tls import TlsStream
from ...worker import Worker
from .client_stream import ClientGone
from .connection import HttpConnection
from .cors import PERMISSIVE, is_preflight
from .exchange import Exchange
from .kept_bytes import KeptBytes
from .places import Places, address_of
from .request import BadQuery, header_dict, query_params
from .request_trace import RequestTrace
from .response import Head, Whole, failure
from .routes import Match, Route, Router
from .settings import HttpConfig
from .shared import LOGGER, Shared

_CODES: Final = {
    431: "HEAD_TOO_LARGE",
    501: "UNSUPPORTED_TRANSFER_ENCODING",
    503: "TOO_MANY_HEADS",
    505: "UNSUPPORTED_HTTP_VERSION",
}
"""The error codes of refused heads by status. All others are `BAD_REQUEST`."""


@define
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

    def __init__(
        self,
        worker: Worker,
        config: HttpConfig,
        tracing: Tracing | None = None,
        memory: MemoryShare = UNLIMITED_SHARE,
    ) -> None:
        self.config = config
        self.router = Router()
        self.counters: dict[Route, Counters] = {}
        self.unrouted = Counters()
        self._worker = worker
        self._tracing = tracing
        self._open: set[HttpConnection] = set()
        self._idle = trio.lowlevel.ParkingLot()
        self._is_draining = False
        self._places = Places(config.limits.connections)
        self._in_flight = Places(config.concurrency_request_limit)
        self.shared = Shared(worker, KeptBytes(memory))

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

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
        self._places.change_total(config.limits.connections)
        self._in_flight.change_total(config.concurrency_request_limit)

    def drain(self) -> None:
        """Let the requests that are under way be the last of their connections, and end those that have none."""
        self._is_draining = True
        for connection in self._open:
            connection.is_last = True
            connection.end_idle()

    async def wait_idle(self) -> None:
        """Wait until no request is under way. If cancelled: nothing changes."""
        await trio.lowlevel.checkpoint()
        while self._in_flight.taken:
            await self._idle.park()

    # --- connections

    async def accept(self, connection: socket.socket, ssl_context: ssl.SSLContext | None = None) -> None:
        """Serve a connection that the listener accepted, to its end. An error of ours ends it, and nothing else."""
        transport = Socket(connection)
        stream: trio.abc.Stream = transport
        if ssl_context is not None:
            stream = TlsStream(transport, ssl_context, server_side=True)
        try:
            await self.serve(stream, address_of(transport.peer))
        except BaseException as error:  # noqa: ASYNC103
            failure, passing = sort_failure(error)
            if failure is not None:
                LOGGER.error("a connection from %s ended by an error of ours", transport.peer, exc_info=failure)
            if passing is not None:
                raise passing from None  # noqa: ASYNC104
        finally:
            transport.close()

    async def serve(self, stream: trio.abc.Stream, address: str | None = None) -> None:
        """Serve one connection over any stream, and close it. `address` is that by which its places are counted.

        If cancelled: it is dropped, and its handlers are cancelled.
        """
        connection = HttpConnection(stream, self.config.limits, self.shared.kept, self.shared.buffer, address)
        connection.is_last = self._is_draining
        self._open.add(connection)
        has_place = self._places.take(address)
        try:
            if not has_place:
                text = "The server has as many connections as it may."
                await self._refuse(connection, 503, "TOO_MANY_CONNECTIONS", text)
                return
            while await self._serve_next(connection):
                pass
        except (ClientGone, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            LOGGER.debug("a client is gone: %s", error)
        finally:
            if has_place:
                self._places.give_back(address)
            self._open.remove(connection)
            await connection.close()  # noqa: ASYNC102 - it never waits

    async def _serve_next(self, connection: HttpConnection) -> bool:
        """Serve the next request; return whether another may follow."""
        try:
            request = await connection.next_request()
        except trio.TooSlowError as error:
            await self._refuse(connection, 408, "REQUEST_TIMEOUT", f"{error}.")
            return False
        except BadRequest as error:
            code = _CODES.get(error.status, "BAD_REQUEST")
            await self._refuse(connection, error.status, code, f"{error.text[:1].upper()}{error.text[1:]}.")
            return False
        # The client wants no more.
        if request is None:
            return False
        await self._serve_request(connection, request)
        if connection.is_cut:
            return False
        if not connection.body_is_read:
            await connection.stream.linger()
            return False
        return True

    async def _serve_request(self, connection: HttpConnection, request: h11.Request) -> None:
        method, headers = request.method.decode("latin-1").upper(), header_dict(request.headers)
        cors = self.config.cors or PERMISSIVE
        common = cors.headers(headers.get("origin"))

        async def answer(whole: Whole) -> None:
            await connection.send_whole(whole.plus(*common), close=not connection.body_is_read)

        _, path, query = split_target(request.target.decode("latin-1"))
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
        if not self._in_flight.take(connection.address) and not await self._in_flight.wait(
            connection.address, self.config.limits.wait_seconds
        ):
            busy = failure(503, "TOO_MANY_REQUESTS", "The server serves as many requests as it may. Try again later.")
            await answer(busy.plus(("retry-after", "1")))
            return
        trace = RequestTrace(self._tracing, method, match.route, headers)
        exchange = Exchange(
            self.shared, connection, self.config, match, method, params, headers, common, trace.traceparent
        )
        counters.in_flight += 1
        is_over = False

        def over() -> None:
            nonlocal is_over
            is_over = True
            counters.in_flight -= 1
            counters.failed += exchange.status >= 500
            counters.truncated += exchange.truncated
            counters.abandoned += exchange.client_left
            trace.end(exchange.status, truncated=exchange.truncated, abandoned=exchange.client_left)
            self._in_flight.give_back(connection.address)
            if not self._in_flight.taken:
                self._idle.unpark_all()

        # A deadline for the whole request would go on behind the answer. A span is ended by the task that began it.
        if self.config.limits.total_seconds is None and not trace.is_recorded:
            exchange.when_answered = over
        try:
            with trace:
                await self._bounded(exchange, connection)
        except ClientGone:
            exchange.client_left = True
            raise
        finally:
            if not is_over:
                over()

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
        return whole.plus(allow)

    async def _refuse(self, connection: HttpConnection, status: int, code: str, message: str) -> None:
        """Answer a request that cannot be served, and end the connection."""
        try:
            await connection.send_whole(failure(status, code, message), close=True)
        except h11.LocalProtocolError:
            return  # it broke the protocol within a response
        await connection.stream.linger()
