"""The measurements of one round around processes: one process for all, memory, kills, starts, and jobs of the queue."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import lifetimes
from .measures import Run, is_engine_or_floor
from .processes import Skipped, engine, module, run_json
from .queue_load import Batch
from .queue_systems import System, huey
from .subjects import Checkout, checkouts
from .table import OURS, REFERENCE

_JOBS, _SLOW_JOBS, _AT_ONCE = 5_000, 600, 64


def in_process(run: Run) -> None:
    """Engine and workers in one process, with Trio's memory channel as the floor."""
    floor = "Trio memory channel"
    note = "The floor of a message is one hop over a memory channel, and of a call two."
    table = run.table("in-process", "Engine and workers in one process", "µs of CPU, of all", floor=floor, note=note)
    times = run.table("teardown", "Teardown of 1,000 channels in one process", "µs of time", floor=None)
    rows = {
        "channel message, 64 B": ("channel_message_64", "memory_channel_message"),
        "channel message, 64 KiB": ("channel_message_65536", "memory_channel_message"),
        "call, one at a time": ("call_sequential", "memory_channel_round_trip"),
        "call, 64 at once": ("call_64_at_once", "memory_channel_round_trip"),
    }
    for checkout in checkouts(run.beside):
        run.say(f"in process: {checkout.name}")
        found = run_json("benchmarks.in_process", checkout=checkout.path)
        for row, (key, floor_key) in rows.items():
            table.put(row, checkout.name, found[key] * 1e6)
            # Every process measures the floor. That of this checkout's process stands beside its own figures.
            if checkout.name == OURS:
                table.put(row, floor, found[floor_key] * 1e6)
        times.put("all of it", checkout.name, found["teardown_of_1000_channels"] * 1e6)


def memory(run: Run) -> None:
    """Memory of what is open and idle. The floor has two connections and a task for each."""
    note = "An open channel has two connections. The floor's are two sockets and two Trio tasks."
    table = run.table("memory", "Memory at rest", "kB each", note=note)
    rest = run.table("rest", "CPU with all of these at rest", "% of a core", floor=None)
    with run.started(is_engine_or_floor) as servers:
        for subject, server in servers:
            run.say(f"memory: {subject.name}")
            if subject.protocol != "engine":
                table.put("open channel", subject.name, lifetimes.open_pipes(server, run.several(1000)) / 1000)
                continue
            found = lifetimes.at_rest(server, sessions=run.several(1000), channels=run.several(10_000))
            for row, key in ("idle session", "session"), ("unattached channel", "unattached"), ("open channel", "open"):
                table.put(row, subject.name, found[key] / 1000)
            rest.put("engine", subject.name, 100 * found["cpu_share"])


def kill(run: Run) -> None:
    """The end of a process that writes into many channels. The floor passes on the end of a socket."""
    table = run.table("kill", "A process with 1,000 open channels is killed", "ms")
    # The reference engine does not tell the readers, so there would be nothing to wait for.
    with run.started(lambda subject: is_engine_or_floor(subject) and subject.name != REFERENCE) as servers:
        for subject, server in servers:
            run.say(f"kill: {subject.name}")
            found = lifetimes.kill(server, subject.protocol)
            rows = ("first reader told", "first"), ("last reader told", "last"), ("engine CPU", "cpu_seconds")
            for row, key in rows:
                table.put(row, subject.name, found[key] * 1000)


def start(run: Run) -> None:
    """Starts of a process, each subject in turn."""
    note = "The floor is a Trio program of some lines that listens."
    table = run.table("start", "Start", "ms", note=note)
    run.say("start")
    openings = {subject.name: subject.opening for subject in run.subjects(is_engine_or_floor)}
    for name, seconds in lifetimes.start_seconds(openings, run.skipped).items():
        table.put("start to ready", name, seconds * 1000)
    for checkout in checkouts(run.beside):
        for what, seconds in lifetimes.import_seconds(checkout.path).items():
            table.put(f"{what}, after trio", checkout.name, seconds * 1000)


def queue(run: Run) -> None:
    """CPU of a job on disk, in all three processes, beside huey and bare SQLite. `bench_queue` has the rest of it."""
    floor, row = "bare SQLite", "on disk, many at once"
    note = "An engine, a worker that enqueues and a worker that handles. huey has a producer and a consumer."
    table = run.table("queue", "CPU of a job of the queue, all processes", "µs", floor=floor, note=note)
    with tempfile.TemporaryDirectory(dir=".") as directory:  # not where temporary files are kept in memory
        for checkout in checkouts(run.beside):
            run.say(f"queue: {checkout.name}")
            with _queue_of(checkout, Path(directory, checkout.name)) as system:
                batch = Batch("through", run.several(_JOBS), _AT_ONCE)
                table.put(row, checkout.name, _cpu_of_job(system, batch))
        run.say("queue: peers")
        try:
            with huey(Path(directory), True) as system:
                table.put(row, "huey", _cpu_of_job(system, Batch("through", run.several(_SLOW_JOBS))))
        except Skipped as why:
            run.skipped["huey"] = str(why)
        count = run.several(_JOBS)
        file = str(Path(directory, "floor.db"))
        found = run_json("benchmarks.peers.queue_floor", file, str(count), str(_AT_ONCE), "end_to_end")
        table.put(row, floor, found["cpu_seconds"] / count * 1e6)


@contextmanager
def _queue_of(checkout: Checkout, directory: Path) -> Iterator[System]:
    with engine(checkout.path, str(directory.resolve())) as server:
        names = "produce", "consume"
        url = f"ws://127.0.0.1:{server.port}"
        produce, consume = (module("benchmarks.peers.queue_ours", name, url, checkout=checkout.path) for name in names)
        system = System(produce, consume, server=server)
        try:
            yield system
        finally:
            system.close()


def _cpu_of_job(system: System, batch: Batch) -> float:
    """Return the µs of CPU of each job, after a batch that warms up."""
    system.consume()
    system.produce(Batch("first", 50))
    system.finished("first")
    before = system.cpu_seconds()
    produced = system.produce(batch)
    system.finished(batch.batch)
    return (system.cpu_seconds() - before + produced["cpu_seconds"]) / batch.count * 1e6
