"""Workers in processes of their own, that leave with the block that opened them, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

import iii_trio
from iii_trio.nursery import open_service_nursery

from .install import NEXT_RUST_WORKER, OLD_PYTHON, RUST_WORKER, why_no_node, why_no_rust, why_not_old_python

HERE = Path(__file__).parent
READY_SECONDS = 30.0

COMMANDS = {
    "ours": [sys.executable, str(HERE / "our_worker.py")],
    "python": [sys.executable, str(HERE / "python_worker.py")],
    "old_python": [str(OLD_PYTHON), str(HERE / "python_worker.py")],
    "node": ["node", str(HERE / "node_worker.mjs")],
    "rust": [str(RUST_WORKER)],
    "next_rust": [str(NEXT_RUST_WORKER)],
}
MISSING = {
    "old_python": why_not_old_python(),
    "node": why_no_node(),
    "rust": why_no_rust(RUST_WORKER),
    "next_rust": why_no_rust(NEXT_RUST_WORKER),
}
"""Why there are no workers of a kind on this machine, or None."""


@attrs.define(eq=False)
class Peer:
    """A worker in a process. Its functions are called `{name}::…`."""

    name: str
    process: trio.Process
    stderr: Path
    _events: trio.MemoryReceiveChannel[dict[str, Any]]

    async def event(self, name: str, at_least: int = 0) -> dict[str, Any]:
        """The next event of this name (with so many `bytes` or more); those before it are passed over.

        Raises AssertionError if the process ends first.
        """
        async for event in self._events:
            if event["event"] == name and event.get("bytes", 0) >= at_least:
                return event
        raise AssertionError(
            f"{self.name} ended without saying {name!r}; on stderr:\n{self.stderr.read_text()[-4000:]}"
        )

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def open_peer(
    kind: str,
    url: str,
    home: Path,
    *,
    name: str,
    telemetry: bool = False,
    wait: bool = True,
    more: Mapping[str, str] | None = None,
    program: Path | None = None,
) -> AsyncIterator[Peer]:
    """A worker of this kind, connected to the engine at `url` and called by it; gone when the block is left.

    `home` is its home directory (SDKs write there) and keeps its stderr. `telemetry`: whether the SDK's own, on by
    default, is left on. `wait`: whether to wait until it is called. `more`: environment variables. `program`:
    another program of the same language.
    """
    stderr = home / f"{name}.stderr"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "III_URL": url,  # where some SDKs send their telemetry, whatever else they are told
        "SDK_TESTS_TELEMETRY": "default" if telemetry else "off",
        **(more or {}),
    }
    if kind == "ours":
        # Only for our worker: where iii_trio is installed, this folder holds the SDK of another version, too.
        environment["PYTHONPATH"] = str(Path(iii_trio.__file__).parent.parent)
    with stderr.open("ab") as log:
        process = await trio.lowlevel.open_process(
            [*(COMMANDS[kind] if program is None else [COMMANDS[kind][0], str(program)]), url, name],
            stdin=subprocess.PIPE,  # it ends with this pipe, also when the tests themselves are killed
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=home,
        )
    said, events = trio.open_memory_channel[dict[str, Any]](float("inf"))
    try:
        async with open_service_nursery() as nursery:
            nursery.start_soon(_listen, process, said)
            peer = Peer(name, process, stderr, events)
            if wait:
                with trio.fail_after(READY_SECONDS):
                    await peer.event("ready")
            yield peer
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            await trio.aclose_forcefully(process.stdin)
            await trio.aclose_forcefully(process.stdout)


async def _listen(process: trio.Process, said: trio.MemorySendChannel[dict[str, Any]]) -> None:
    assert process.stdout is not None
    rest = b""
    with said:
        async for data in process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b'{"event"'):  # the Node SDK prints on stdout too
                    said.send_nowait(json.loads(line))
