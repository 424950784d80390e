"""`python -m benchmarks.bench_queue`: queues, ours against huey, streaq and bare SQLite, in one run on one disk."""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import attrs

from . import table
from .processes import Skipped, run_json, running
from .queue_load import Batch
from .queue_systems import System, embedded, huey, ours, queue_engine, streaq
from .slow_disk import slower_flushes
from .table import OURS, Table

FLOOR = "bare SQLite"
HUEY = "huey"
SUBJECTS: dict[str, Callable[[Path, bool], AbstractContextManager[System]]] = {
    OURS: ours, "iii-trio, one process": embedded, HUEY: huey, "streaq": streaq,
}  # fmt: skip
AT_ONCE = 64
_WAITING = 100_000
_SLOWER_MS = 1, 2, 5
_QUEUES = 1_000

BESIDE_HUEY = ((OURS, HUEY),)


@attrs.define
class Run:
    """Rounds of the same measurements, collected in tables."""

    scale: float
    disk: Path
    say: Callable[[str], None]
    skipped: dict[str, str] = attrs.field(factory=dict)
    tables: dict[str, Table] = attrs.field(factory=lambda: {one.name: one for one in empty_tables()})

    def several(self, count: int) -> int:
        return max(20, int(count * self.scale))

    def put(self, table: str, row: str, column: str, value: float) -> None:
        self.tables[table].put(row, column, value)

    @contextmanager
    def directory(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.disk) as path:
            yield Path(path)


def empty_tables() -> list[Table]:
    """What there is to find."""
    return [
        Table(
            "queue-durable", "Jobs, on disk before the answer", "jobs/s", floor=FLOOR, compared=BESIDE_HUEY,
            note=f"Many: {AT_ONCE} callers that each wait for their answer; of huey one, as its storage has one lock (more "
            "threads were no faster). Columns: engine and two workers, each a process; all three in one; huey with "
            "`fsync=True`, which is what its default amounts to here; streaq on Valkey with `appendfsync always`.",
        ),
        Table(
            "queue-memory", "Jobs, not on disk", "jobs/s", floor=None, compared=BESIDE_HUEY,
            note="huey with `fsync=False`: a kill loses nothing, but no disk is waited for; streaq on Valkey in memory.",
        ),
        Table(
            "queue-disk", "End to end, many at once, on slower disks", "jobs/s", floor=FLOOR, compared=BESIDE_HUEY,
            note="Each flush (`fsync`, `fdatasync`) of every process returns so much later than this machine's.",
        ),
        Table("queue-cpu", "CPU of a job, end to end, many at once, all processes", "µs", floor=FLOOR, compared=BESIDE_HUEY),
        Table(
            "queue-latency", "From enqueuing to the start of the handler, at rest", "ms", floor=FLOOR, compared=BESIDE_HUEY,
            note="The floor is one commit. huey polls: every 0.1 s after a job, then ever less often, up to every 10 s; a "
            "job came every 3 s.",
        ),
        Table(
            "queue-backlog", "While many jobs wait, on disk", "jobs/s", floor=None, compared=BESIDE_HUEY,
            note="Enqueued before anybody is there to run them; then the rate at which the first of them run.",
        ),
        Table("queue-rest", "At rest", "as said", floor=None),
    ]  # fmt: skip


def round_of(run: Run) -> None:
    """Each subject once, on disk and not."""
    for durable in (True, False):
        for name, opening in SUBJECTS.items():
            run.say(f"{name}, {'on disk' if durable else 'not on disk'}")
            try:
                with run.directory() as directory, opening(directory, durable) as system:
                    one_subject(run, name, system, durable)
            except Skipped as why:
                run.skipped[name] = str(why)
    run.say("bare SQLite")
    floor(run)


def one_subject(run: Run, name: str, system: System, durable: bool) -> None:
    slow = name == HUEY
    rates = "queue-durable" if durable else "queue-memory"
    place = "on disk" if durable else "not on disk"
    single = Batch("single", run.several(200 if durable else 500))
    waiting = Batch("waiting", run.several((600 if durable else 2000) if slow else 5000), 1 if slow else AT_ONCE)
    through = attrs.evolve(waiting, batch="through")
    for row, batch in (("enqueue, one at a time", single), ("enqueue, many at once", waiting)):
        run.put(rates, row, name, rate(batch.count, system.produce(batch)))
    system.consume()
    ran = system.finished("waiting")
    run.put(rates, "run what waits", name, waiting.count / (ran["last"] - ran["first"]))

    before = system.cpu_seconds()
    produced, per_second = end_to_end(system, through)
    run.put(rates, "end to end, many at once", name, per_second)
    own = 0.0 if name.endswith("one process") else produced["cpu_seconds"]
    run.put("queue-cpu", place, name, (system.cpu_seconds() - before + own) / through.count * 1e6)

    at_rest = Batch("rest", 6, pause=3.0) if slow else Batch("rest", run.several(200), pause=0.02)
    time.sleep(0.5)
    system.produce(at_rest)
    latency = system.finished("rest")
    run.put("queue-latency", f"{place}, median", name, latency["p50"] * 1e3)
    run.put("queue-latency", f"{place}, p99", name, latency["p99"] * 1e3)


def end_to_end(system: System, batch: Batch) -> tuple[dict[str, float], float]:
    """What the producer says of a batch, and how many of it were enqueued and begun each second."""
    produced = system.produce(batch)
    ended = system.finished(batch.batch)["last"]
    return produced, batch.count / (ended - produced["began"])


def rate(count: int, found: dict[str, float]) -> float:
    return count / (found["ended"] - found["began"])


def floor(run: Run) -> None:
    """One thread that writes, and as many rows on their way as there are callers."""
    for row, count, at_once, what in (
        ("enqueue, one at a time", 200, 1, "enqueue"),
        ("enqueue, many at once", 20_000, AT_ONCE, "enqueue"),
        ("end to end, many at once", 20_000, AT_ONCE, "end_to_end"),
    ):
        count = run.several(count)
        found = bare_sqlite(run, count, at_once, what)
        run.put("queue-durable", row, FLOOR, rate(count, found))
        if what == "end_to_end":
            run.put("queue-cpu", "on disk", FLOOR, found["cpu_seconds"] / count * 1e6)
        if at_once == 1:
            run.put("queue-latency", "on disk, median", FLOOR, found["p50"] * 1e3)
            run.put("queue-latency", "on disk, p99", FLOOR, found["p99"] * 1e3)


def bare_sqlite(run: Run, count: int, at_once: int, what: str) -> dict[str, float]:
    """What the floor's process says of so many rows."""
    with run.directory() as directory:
        file = str(directory / "floor.db")
        return run_json("benchmarks.peers.queue_floor", file, str(count), str(at_once), what)


def slow_disks(run: Run) -> None:
    """The same on disks whose flushes take longer, as most do."""
    for slower in _SLOWER_MS:
        run.say(f"flushes that take {slower} ms longer")
        row = f"flushes {slower} ms slower"
        try:
            with slower_flushes(slower):
                for name in OURS, HUEY:
                    slow = name == HUEY
                    count = run.several((600 if slow else 10_000) // slower)
                    with run.directory() as directory, SUBJECTS[name](directory, True) as system:
                        system.consume()
                        _, per_second = end_to_end(system, Batch("through", count, 1 if slow else AT_ONCE))
                    run.put("queue-disk", row, name, per_second)
                count = run.several(20_000 // slower)
                run.put("queue-disk", row, FLOOR, rate(count, bare_sqlite(run, count, AT_ONCE, "end_to_end")))
        except Skipped as why:
            run.skipped[row] = str(why)


def backlog(run: Run) -> None:
    """Many jobs wait because nobody is there to run them; then somebody comes."""
    waiting = max(2_000, int(_WAITING * run.scale))
    for name in OURS, HUEY, "streaq":
        run.say(f"{name}: {waiting:,} waiting")
        slow = name == HUEY
        front = Batch("front", run.several(400 if slow else 4_000), 1 if slow else AT_ONCE)
        more = attrs.evolve(front, batch="more")
        rest = Batch("rest", waiting - front.count, 1 if slow else 1_000)
        try:
            with run.directory() as directory:
                if slow:  # its jobs are on disk wherever it waits for them to be
                    with SUBJECTS[name](directory, False) as system:
                        system.produce(front)
                        system.produce(rest)
                with SUBJECTS[name](directory, True) as system:
                    if system.server is not None:
                        system.produce(Batch("first", 20))
                        before = system.server.memory_bytes()
                        system.produce(front)
                        system.produce(rest)
                        grown = system.server.memory_bytes() - before
                        run.put("queue-rest", "memory of a waiting job, bytes", name, grown / waiting)
                    run.put(
                        "queue-backlog", f"enqueue, {waiting:,} waiting", name, rate(more.count, system.produce(more))
                    )
                    system.consume()
                    ran = system.finished("front")
                    run.put(
                        "queue-backlog", f"run, {waiting:,} waiting", name, front.count / (ran["last"] - ran["first"])
                    )
        except Skipped as why:
            run.skipped[name] = str(why)


def at_rest(run: Run) -> None:
    """Many queues and subscriptions in which nothing happens."""
    run.say(f"{_QUEUES:,} queues and subscriptions at rest")
    with run.directory() as directory, queue_engine(str(directory), _QUEUES) as server:
        subscriber = [sys.executable, "-m", "benchmarks.peers.queue_ours", "subscribe"]
        with running([*subscriber, f"ws://127.0.0.1:{server.port}", str(_QUEUES)]) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(6.0)  # the engine looks once, after 5, at each session that has not named itself
            before = server.cpu_seconds()
            time.sleep(5.0)
            run.put(
                "queue-rest",
                f"CPU with {_QUEUES:,} queues and subscriptions, %",
                OURS,
                (server.cpu_seconds() - before) / 5 * 100,
            )
    try:
        with run.directory() as directory, huey(directory, True) as system:
            system.consume()
            time.sleep(1.0)
            before = system.cpu_seconds()
            time.sleep(5.0)
            run.put("queue-rest", "CPU with one queue, %", HUEY, (system.cpu_seconds() - before) / 5 * 100)
    except Skipped as why:
        run.skipped[HUEY] = str(why)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_queue", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/performance"), help="where the results go")
    parser.add_argument("--scale", type=float, default=1.0, help="fewer (0.1) or more (2) jobs in each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often the rates are measured; medians are reported")
    parser.add_argument("--disk", type=Path, default=Path("."), help="a directory on the disk to be used")
    parser.add_argument("--page", type=Path, help="a page whose part between two marks becomes the tables")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {what}", file=sys.stderr)

    about = {"date": datetime.date.today().isoformat(), **table.machine()}
    run = Run(options.scale, options.disk, say)
    for number in range(options.rounds):
        say(f"round {number + 1}")
        round_of(run)
    slow_disks(run)
    backlog(run)
    at_rest(run)
    about |= {"seconds": time.monotonic() - began, "rounds": options.rounds}
    tables = list(run.tables.values())
    table.write(options.output, tables, about, run.skipped, "queue")
    text = (options.output / "queue.md").read_text()
    if options.page is not None:
        table.put_into(options.page, text, "queue results")
    print("\n" + text)


if __name__ == "__main__":
    main()
