"""`python -m benchmarks.queue_backlog`: an engine that starts with a million waiting jobs.

Prints how long it takes from its start until it is ready, until it acknowledges a new job, until it runs the first one that
waited, and until all are loaded, with its CPU time and its resident memory for each job, and what a page of jobs costs at
several depths. With `--base DIR` the same of another checkout, in turns. The store is filled by each checkout's own class,
without an engine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

import iii_trio
from iii_trio.triggers.queue.record import Record
from iii_trio.triggers.queue.sqlite_store import SqliteStore
from iii_trio.triggers.queue.store import Put

from .processes import ROOT, Server, port_of

_AT_ONCE = 10_000
_PAGE = 50
_PAGES = 40
_LOOK_SECONDS = 0.05
_PATIENCE_SECONDS = 120.0


def fill(directory: Path, jobs: int, traced: bool) -> None:
    """Write so many small jobs, as a producer's would be."""
    store = SqliteStore(directory, synchronous="off")
    now_ms = int(time.time() * 1000)
    data = json.dumps({"batch": "waiting", "of": jobs, "sent": time.monotonic()}).encode()
    for first in range(1, jobs + 1, _AT_ONCE):
        keys = range(first, min(first + _AT_ONCE, jobs + 1))
        store.write([Put(_record(key, now_ms, data, traced)) for key in keys])
    store.close()


def _record(key: int, now_ms: int, data: bytes, traced: bool) -> Record:
    trace = f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01" if traced else None
    return Record(
        key=key, position=key, id=str(uuid.uuid4()), lane='["queue","default"]', function_id="bench::job",
        namespace="default", data=data, created_at_ms=now_ms, traceparent=trace,
    )  # fmt: skip


def fill_as(checkout: Path, directory: Path, jobs: int, traced: bool) -> None:
    """Have a checkout fill a directory, because the tables of another one may differ."""
    call = f"fill(Path({str(directory)!r}), {jobs}, {traced})"
    code = f"from pathlib import Path; from benchmarks.queue_backlog import fill; {call}"
    subprocess.run([sys.executable, "-c", code], cwd=checkout, env=_environment(checkout), check=True)


def _environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout)}


@contextmanager
def engine_of(checkout: Path, directory: Path) -> Iterator[tuple[Server, float]]:
    """Start a checkout's engine on a directory. Give it when it is ready, with the time at which it was started."""
    began = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.peers.queue_engine", str(directory)]
    process = subprocess.Popen(
        command, cwd=checkout, env=_environment(checkout), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    )
    try:
        yield Server("engine", process, port_of(process), "websocket"), began
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def watch(server: Server, began: float, jobs: int) -> dict[str, float]:
    """Enqueue a job, run the first that waits, and wait until all are loaded. Return when, and what pages cost."""
    found = {"ready": time.monotonic() - began}
    first = trio.Event()
    async with iii_trio.open_worker(f"ws://127.0.0.1:{server.port}", name="bench-backlog") as worker:
        await worker.trigger("bench::job", {}, action=iii_trio.enqueue())
        found["first new job acknowledged"] = time.monotonic() - began

        @worker.function("bench::job")
        async def job() -> None:
            if not first.is_set():
                found["first old job runs"] = time.monotonic() - began
                first.set()
            await trio.sleep_forever()

        await first.wait()
        while sum(row.get("loading", 0) for row in await iii_trio.Queues(worker).list()):  # noqa: ASYNC110 - another process
            await trio.sleep(_LOOK_SECONDS)
        found["all are loaded"] = time.monotonic() - began
        found["CPU time until then"] = server.cpu_seconds()
        for name, depth in ("first", 0), ("middle", jobs // 2), ("last", max(0, jobs - 2 * _PAGE)):
            times = []
            for _ in range(_PAGES):
                before = time.perf_counter()
                page = await worker.trigger("engine::queue::jobs", {"queue": "default", "after": depth, "limit": _PAGE})
                times.append(time.perf_counter() - before)
            assert len(page["jobs"]) == min(_PAGE, jobs), f"{len(page['jobs'])} jobs on the page {name}"
            found[f"{name} page of {_PAGE}"] = statistics.median(times)
    return found


def one_round(checkout: Path, disk: Path, jobs: int, traced: bool) -> dict[str, float]:
    """Measure one checkout once."""
    with tempfile.TemporaryDirectory(dir=disk) as path:
        with engine_of(checkout, Path(path, "empty")) as (server, _):
            empty = server.memory_bytes()
        full = Path(path, "full")
        fill_as(checkout, full, jobs, traced)
        with engine_of(checkout, full) as (server, began):
            found = trio.run(watch, server, began, jobs)
            found["bytes of memory of a waiting job"] = (server.memory_bytes() - empty) / jobs
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue_backlog", description=__doc__)
    # A queue takes a million, and new ones must have room.
    parser.add_argument("--jobs", type=int, default=999_000)
    parser.add_argument("--traced", action="store_true", help="each job has a traceparent of its own")
    parser.add_argument("--disk", type=Path, default=Path("."), help="a directory on the disk to be used")
    parser.add_argument("--base", type=Path, help="another checkout to measure beside this one")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    subjects = {"this checkout": ROOT} | ({} if options.base is None else {str(options.base): options.base.resolve()})
    results: dict[str, list[dict[str, float]]] = {name: [] for name in subjects}
    for _ in range(options.rounds):
        for name, checkout in subjects.items():
            results[name].append(one_round(checkout, options.disk.resolve(), options.jobs, options.traced))
    print(f"{options.jobs:,} waiting jobs, {options.rounds} rounds: medians; {', '.join(subjects)}")
    for row in next(iter(results.values()))[0]:
        cells = [statistics.median(found[row] for found in rounds) for rounds in results.values()]
        if row.startswith("bytes"):
            shown = [f"{cell:.0f}" for cell in cells]
        elif "page" in row:
            shown = [f"{cell * 1e3:.2f} ms" for cell in cells]
        else:
            shown = [f"{cell:.2f} s" for cell in cells]
        print(f"{row:34}" + "".join(f"{cell:>14}" for cell in shown))


if __name__ == "__main__":
    main()
