"""The addresses of the other nodes, with what this node shows there."""

from __future__ import annotations

from typing import final

from ...transport.certificates import client_context
from ...transport.dial import SocketAddress
from ...transport.link import Address
from .records import Node
from .settings import ClusterConfig


@final
class Peers:
    """Makes the address of a node. Raises ConfigError for certificates that cannot be read."""

    def __init__(self, settings: ClusterConfig) -> None:
        self._headers = {} if settings.token is None else {"Authorization": f"Bearer {settings.token}"}
        # Without a file of its own the address takes the system's certificates, which are read once for all.
        needs_one = settings.authority is not None or settings.certificate is not None
        files = (settings.authority, settings.certificate, settings.key)
        self._context = client_context(*files) if needs_one else None

    def address_of(self, node: Node) -> Address:
        """Return the address by which this node is reached."""
        # An address in the clear takes no context.
        context = self._context if node.address.startswith("wss:") else None
        return SocketAddress(node.address, headers=self._headers, ssl_context=context)
