"""Connections that go only to addresses which the settings allow."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, Final, final

import httpcore2
import trio

from ...errors import CallError
from .addresses import is_public
from .invocation import REFUSED

_ATTEMPT_SECONDS: Final = 5.0
"""How long one of several addresses is tried before the next one is."""


@final
class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """A network in which a host's name is resolved once.

    The address that was looked at is the address that is connected to, so a name that changes in between gains nothing.
    """

    def __init__(self, inner: httpcore2.AsyncNetworkBackend, *, block_private_ips: bool) -> None:
        self._inner = inner
        self._block_private_ips = block_private_ips

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address that takes the connection. Raises CallError and httpcore2's errors."""
        addresses = await self.resolve(host, port)
        for address in addresses[:-1]:
            with trio.move_on_after(_ATTEMPT_SECONDS):
                try:
                    return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
                except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                    continue
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host. Raises CallError if there are none, or if one of them is not allowed."""
        try:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            # The error's own text is the resolver's, and differs between systems.
            raise NoAddress(REFUSED, f"DNS lookup failed: {host} has no address") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not addresses:
            raise NoAddress(REFUSED, f"DNS lookup failed: {host} has no address")
        # One private address among public ones is a sign of an attack, or of a mistake that would look like one.
        if self._block_private_ips and not all(map(is_public, addresses)):
            raise CallError(REFUSED, "Private IP blocked (security.block_private_ips)")
        return addresses


class NoAddress(CallError):
    """A name has no address now. It may have one later."""
