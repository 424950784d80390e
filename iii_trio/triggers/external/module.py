"""The module for external functions. It is a worker that turns calls into HTTP requests."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, final

import httpcore2
import msgspec
import trio

from ...environment import Environment
from ...errors import CallError
from ...transport.link import Address
from ...wire import JsonValue
from ...worker import open_worker
from ..module import RunningModule
from .invocation import Outgoing, Request, prepare, read_request
from .network import GuardedNetwork, NoAddress
from .response import result
from .settings import ExternalConfig

WORKER: Final = "iii-http-functions"
INVOKE: Final = "engine::external::invoke"
CHECK: Final = "engine::external::check"
_IDLE_SECONDS: Final = 30.0
"""How long a connection is kept for the next call."""
_CHECK_SECONDS: Final = 5.0
"""How long a registration waits for the addresses of its host. Each call looks at them again."""


@asynccontextmanager
async def open_external(
    address: Address,
    config: ExternalConfig | None = None,
    *,
    environment: Environment | None = None,
    variables: Mapping[str, str] | None = None,
    network: httpcore2.AsyncNetworkBackend | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[External]:
    """Call the external functions of the engine at `address`, for the length of the block.

    `variables` are what `auth` may name (default: this process's environment). `network` makes the connections.
    `ssl_context` holds the trusted certificates (default: the system's, or those of the variable `SSL_CERT_FILE`).
    Raises ConnectionFailed and Rejected as a worker does.
    Leaving the block cancels the calls that are under way. If cancelled: as leaving the block.
    """
    config, environment = config or ExternalConfig(), environment or Environment()
    if ssl_context is None:
        run_blocking = environment.run_blocking or trio.to_thread.run_sync
        ssl_context = await run_blocking(ssl.create_default_context)  # it reads files
    guarded = GuardedNetwork(network or httpcore2.TrioBackend(), block_private_ips=config.block_private_ips)
    async with (
        httpcore2.AsyncConnectionPool(
            ssl_context, max_connections=config.connections, keepalive_expiry=_IDLE_SECONDS, network_backend=guarded
        ) as pool,
        open_worker(address, name=WORKER, environment=environment) as worker,
    ):
        external = External(config, environment, os.environ if variables is None else variables, guarded, pool)
        worker.register_function(INVOKE, external.invoke, description="call an external function")
        worker.register_function(CHECK, external.check, description="say why a function cannot be called, or null")
        await worker.wait_registered()
        yield external


@final
class External(RunningModule):
    """The running module. Made by `open_external`."""

    def __init__(
        self,
        config: ExternalConfig,
        environment: Environment,
        variables: Mapping[str, str],
        network: GuardedNetwork,
        pool: httpcore2.AsyncConnectionPool,
    ) -> None:
        self._config = config
        self._environment = environment
        self._variables = variables
        self._network = network
        self._pool = pool
        self._under_way = 0
        self._idle = trio.lowlevel.ParkingLot()

    def reconfigure(self, settings: ExternalConfig) -> ExternalConfig | None:
        """Use these settings for the calls that come from now on.

        Other connections need a restart of the module, because those that are open were made by the former settings.
        """
        was = self._config
        if (was.block_private_ips, was.connections) != (settings.block_private_ips, settings.connections):
            return None
        self._config = settings
        return settings

    async def drain(self) -> None:
        """Wait until the calls that are under way have ended. If cancelled: they go on."""
        await trio.lowlevel.checkpoint()
        while self._under_way:
            await self._idle.park()

    async def check(self, request: msgspec.Raw) -> str | None:
        """Return why a function that is being registered cannot be called, or None.

        If cancelled: nothing changes.
        """
        try:
            outgoing = self._prepare(read_request(bytes(request)))
            with trio.move_on_after(_CHECK_SECONDS):
                await self._network.resolve(outgoing.target.host, outgoing.target.port)
        except NoAddress:
            # A worker may start before the network does, and would never register the function again.
            return None
        except CallError as error:
            return f"{error.code}: {error.message}"
        return None

    async def invoke(self, request: msgspec.Raw) -> JsonValue:
        """Call an external function. Raises CallError. If cancelled: the connection is dropped."""
        outgoing = self._prepare(read_request(bytes(request)))
        self._under_way += 1
        try:
            return await self._send(outgoing)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.unpark_all()

    def _prepare(self, request: Request) -> Outgoing:
        environment = self._environment
        timestamp = int(environment.wall_clock())
        return prepare(request, self._config, self._variables, timestamp, environment.new_id())

    async def _send(self, outgoing: Outgoing) -> JsonValue:
        target, code = outgoing.target, "http_request_failed"
        url = httpcore2.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        body, limit = bytearray(), self._config.response_bytes
        try:
            with trio.move_on_after(outgoing.timeout_seconds):
                async with self._pool.stream(
                    outgoing.method, url, headers=list(outgoing.headers.items()), content=outgoing.body
                ) as response:
                    code = "http_response_failed"
                    async with aclosing(response.aiter_stream()) as chunks:
                        async for chunk in chunks:
                            body += chunk
                            # The rest would have to be kept as well, so the call ends here.
                            if len(body) > limit:
                                text = f"the response of {target.host} has more than {limit} bytes (response_bytes)"
                                raise CallError(code, text)
                return result(response.status, bytes(body))
            raise CallError(code, f"{target.host} did not answer within {outgoing.timeout_seconds:g} s")
        except httpcore2.LocalProtocolError:
            # Its text repeats headers, and so secrets.
            raise CallError(code, f"the request to {target.host} cannot be sent as HTTP") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
            raise CallError(code, f"{target.host}: {_why(error)}") from None


def _why(error: BaseException) -> str:
    """Return what broke a connection. The cause that says most is at the end of the chain."""
    last: Any = error
    while last.__cause__ or last.__context__:
        last = last.__cause__ or last.__context__
        if isinstance(last, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {last.verify_message}"
    return str(last) or str(error) or type(error).__name__
