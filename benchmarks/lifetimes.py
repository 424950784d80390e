"""What begins, idles and ends: start, memory at rest, and how fast the end of a process is told."""

from __future__ import annotations

import json
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .processes import ROOT, Server, Skipped, module
from .raw_clients import until_told
from .raw_wires import Session, Wire, attach, upgrade

_STARTS = 3
_OPEN = 1_000
_SETTLED = 6.0  # seconds; the engine looks once, after 5, at each session that has not named itself


def start_seconds(
    openings: Mapping[str, Callable[[], AbstractContextManager[Server]]], skipped: dict[str, str]
) -> dict[str, float]:
    """Return the time from the start of each process to its ready line, the median of some starts in turn."""
    times: dict[str, list[float]] = {}
    for _ in range(_STARTS):
        for name, opening in openings.items():
            before = time.perf_counter()
            try:
                with opening():
                    times.setdefault(name, []).append(time.perf_counter() - before)
            except Skipped as why:
                skipped[name] = str(why)
    return {name: statistics.median(found) for name, found in times.items()}


def import_seconds(checkout: Path) -> dict[str, float]:
    """CPU time of an import, in a fresh process, after that of Trio."""
    cases = {
        "import iii_trio": "import iii_trio",
        "… and use an engine": "import iii_trio; iii_trio.open_engine",
    }
    return {what: statistics.median(_import(code, checkout) for _ in range(_STARTS)) for what, code in cases.items()}


def _import(code: str, checkout: Path) -> float:
    program = f"import time, trio; a = time.process_time(); {code}; print(time.process_time() - a)"
    return float(subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=checkout, check=True).stdout)


def at_rest(server: Server, sessions: int, channels: int) -> dict[str, float]:
    """Memory of each idle session, unattached channel and open channel, and the CPU that all of them use at rest."""
    first = Session(server.port)
    first.make_channel()
    base = server.memory_bytes()
    idle = [Session(server.port) for _ in range(sessions)]
    with_sessions = server.memory_bytes()
    for _ in range(channels):
        first.make_channel()
    with_channels = server.memory_bytes()
    opened: list[socket.socket] = []
    for _ in range(sessions):
        made = first.make_channel()
        opened += attach(server.port, made["reader"]), attach(server.port, made["writer"])
    with_open = server.memory_bytes()
    time.sleep(_SETTLED)
    cpu = server.cpu_seconds()
    time.sleep(3)
    cpu = server.cpu_seconds() - cpu
    for session in idle:
        session.sock.close()
    for sock in opened:
        sock.close()
    return {
        "session": (with_sessions - base) / sessions,
        "unattached": (with_channels - with_sessions) / channels,
        "open": (with_open - with_channels) / sessions,
        "cpu_share": cpu / 3,
    }


def open_pipes(server: Server, count: int) -> float:
    """Memory of each open pipe of a relay: two connections at rest."""
    wire = Wire("websocket", server.port)
    kept = [wire.pipe() for _ in range(50)]  # what is allocated once is there
    base = server.memory_bytes()
    kept += [wire.pipe() for _ in range(count)]
    grown = server.memory_bytes() - base
    for reader, writer, _ in kept:
        reader.close()
        writer.close()
    return grown / count


def kill(server: Server, protocol: str) -> dict[str, Any]:
    """SIGKILL a process that writes into 1,000 pipes: when do their readers hear of it?"""
    wire = Wire(protocol, server.port)
    made = [wire.places() for _ in range(_OPEN)]
    readers = [upgrade(server.port, reader) for reader, _ in made]
    job = json.dumps({"port": server.port, "targets": [writer for _, writer in made]})
    command = module("benchmarks.raw_clients", "hold_from_stdin")
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdin is not None and holder.stdout is not None
    holder.stdin.write(job.encode() + b"\n")
    holder.stdin.flush()
    holder.stdout.readline()
    for reader in readers:
        reader.recv(4096)  # the message that each was given
    cpu = server.cpu_seconds()
    before = time.perf_counter()
    holder.send_signal(signal.SIGKILL)
    times = until_told(readers, lambda: before)
    cpu = server.cpu_seconds() - cpu
    holder.wait()
    for pipe in holder.stdin, holder.stdout:
        pipe.close()
    for reader in readers:
        reader.close()
    return {"first": min(times), "last": max(times), "cpu_seconds": cpu}
