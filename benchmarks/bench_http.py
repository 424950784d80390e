"""`python -m benchmarks.bench_http`: HTTP, ours against servers that run the same app in their own process, in one run.

Ours has a process more: the engine takes the request, and a worker answers it. So its CPU is shown for the engine, and for
both together.
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import attrs

from . import table
from .processes import Server, Skipped, await_port, free_port, run_json, running
from .table import OURS, Table

BOTH = "iii-trio, engine and worker"
FLOOR = "bare h11"
HYPERCORN = "hypercorn, trio"
COMPARED = ((OURS, HYPERCORN), (BOTH, HYPERCORN))
_JSON = {"one at a time": (3_000, 1), "64 connections": (20_000, 64)}
_BYTES = 1_000_000_000


@attrs.define
class System:
    """One server with its processes. The first of them takes the requests."""

    port: int
    processes: list[Server]


@contextmanager
def ours() -> Iterator[System]:
    """An engine with its HTTP module, and a worker."""
    port, worker_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        config = Path(directory, "config.yaml")
        config.write_text(
            f"workers:\n  - name: iii-worker-manager\n    config: {{ host: 127.0.0.1, port: {worker_port} }}\n"
            f"  - name: iii-http\n    config: {{ host: 127.0.0.1, port: {port} }}\n"
        )
        command = [sys.executable, "-m", "iii_trio", "serve", "--config", str(config), "--data", "memory"]
        engine = stack.enter_context(running(command))
        await_port(worker_port)
        url = f"ws://127.0.0.1:{worker_port}"
        worker = stack.enter_context(running([sys.executable, "-m", "benchmarks.peers.http_worker", url]))
        await_route(port)
        yield System(port, [Server(OURS, engine, port, "http"), Server("worker", worker, 0, "websocket")])


def alone(server: str, needs: str) -> Callable[[], AbstractContextManager[System]]:
    """Return what opens one of the servers of `http_app.py`. Raises Skipped if it is not installed."""

    @contextmanager
    def opening() -> Iterator[System]:
        if find_spec(needs) is None:
            raise Skipped(f"{needs} is not installed (pip install '.[bench]')")
        port = free_port()
        with running([sys.executable, "-m", "benchmarks.peers.http_app", server, str(port)]) as process:
            await_route(port)
            yield System(port, [Server(server, process, port, "http")])

    return opening


SUBJECTS: dict[str, Callable[[], AbstractContextManager[System]]] = {
    OURS: ours,
    HYPERCORN: alone("hypercorn", "hypercorn"),
    "uvicorn": alone("uvicorn", "uvicorn"),
    FLOOR: alone("h11", "h11"),
}


def await_route(port: int) -> None:
    """Wait until `/json` is answered with 200."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/json")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise RuntimeError(f"nothing answers at port {port}")


@attrs.define
class Run:
    """All rounds of one run."""

    scale: float
    say: Callable[[str], None]
    skipped: dict[str, str] = attrs.field(factory=dict)
    tables: dict[str, Table] = attrs.field(
        factory=lambda: {
            one.name: one
            for one in (
                Table("http-rate", "Small JSON", "requests/s", floor=FLOOR, compared=COMPARED),
                Table("http-cpu", "Small JSON", "µs of CPU for a request", floor=FLOOR, compared=COMPARED),
                Table("http-bytes", "Large bodies", "MB/s", floor=FLOOR, compared=COMPARED),
                Table("http-bytes-cpu", "Large bodies", "µs of CPU for a MB", floor=FLOOR, compared=COMPARED),
            )
        }
    )

    def measure(self, system: System, name: str, job: str, row: str, count: int, connections: int) -> None:
        """Put the rate and the CPU of one job into the tables."""
        before = [process.cpu_seconds() for process in system.processes]
        arguments = map(str, (job, system.port, count, connections))
        found = run_json("benchmarks.http_load", *arguments, seconds=600)
        spent = [process.cpu_seconds() - was for process, was in zip(system.processes, before, strict=True)]
        unit, rate, cpu = (1, "http-rate", "http-cpu") if job == "json" else (1e6, "http-bytes", "http-bytes-cpu")
        self.tables[rate].put(row, name, found["count"] / unit / found["seconds"])
        self.tables[cpu].put(row, name, spent[0] / (found["count"] / unit) * 1e6)
        if name == OURS:
            self.tables[cpu].put(row, BOTH, sum(spent) / (found["count"] / unit) * 1e6)


def round_of(run: Run) -> None:
    """Measure each subject once."""
    for name, opening in SUBJECTS.items():
        try:
            with opening() as system:
                for row, (count, connections) in _JSON.items():
                    run.say(f"{name}: JSON, {row}")
                    run.measure(system, name, "json", row, max(connections, int(count * run.scale)), connections)
                for job in ("download", "upload"):
                    run.say(f"{name}: {job}")
                    run.measure(system, name, job, job, int(_BYTES * run.scale), 1)
        except Skipped as why:
            run.skipped[name] = str(why)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_http", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="where the results go")
    parser.add_argument("--scale", type=float, default=1.0, help="shorter (0.1) or longer (2) runs of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all measurements; medians are reported")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {what}", file=sys.stderr)

    about = {"date": datetime.date.today().isoformat(), "rounds": options.rounds, **table.machine()}
    run = Run(options.scale, say)
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        round_of(run)
    about["seconds"] = time.monotonic() - began
    table.write(options.output, list(run.tables.values()), about, run.skipped, "http")
    print("\n" + (options.output / "http.md").read_text())


if __name__ == "__main__":
    main()
