"""The measurements of one round between processes: what raw clients and real workers see of each subject."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

import attrs

from .processes import ROOT, Server, client, engine, module
from .raw_wires import Session
from .subjects import Checkout, Subject, checkouts, started, subjects
from .table import FLOOR, OURS, OURS_TLS, Table

SIZES = {"64 B": 64, "1 KiB": 1024, "4 KiB": 4096, "64 KiB": 65_536, "1 MiB": 1_048_576}
_THROUGHPUT_SECONDS = 1.2


@attrs.define
class Run:
    """All rounds of one run. `scale` shortens each measurement."""

    scale: float
    say: Callable[[str], None]
    beside: Checkout | None = None
    """Another checkout, measured in the same turns."""
    reference: str = "iii"
    """The program of the reference engine."""
    skipped: dict[str, str] = attrs.field(factory=dict)
    tables: dict[str, Table] = attrs.field(factory=dict)

    def several(self, count: int) -> int:
        return max(50, int(count * self.scale))

    def table(self, name: str, title: str, unit: str, floor: str | None = FLOOR, note: str = "") -> Table:
        """Return the table of this name, which every round fills further."""
        compared = [(OURS_TLS, OURS)]
        if self.beside is not None:
            compared.insert(0, (OURS, self.beside.name))
        return self.tables.setdefault(name, Table(name, title, unit, floor=floor, compared=tuple(compared), note=note))

    def subjects(self, wanted: Callable[[Subject], bool]) -> list[Subject]:
        return [subject for subject in subjects(self.beside, self.reference) if wanted(subject)]

    def started(self, wanted: Callable[[Subject], bool]) -> AbstractContextManager[list[tuple[Subject, Server]]]:
        """Run the wanted subjects for the length of the block."""
        return started(self.subjects(wanted), self.skipped)


def is_engine_or_floor(subject: Subject) -> bool:
    """Whether a subject without TLS is one of those that the rows about an engine as a whole compare."""
    return not subject.tls and (subject.protocol == "engine" or subject.name == FLOOR)


def between_sockets(run: Run) -> None:
    """Raw clients: channels, round trips, calls and churn, where the subject's process is the bottleneck.

    All subjects run at once and take turns in each row, so that what disturbs the machine disturbs neighbours alike.
    """
    with run.started(lambda subject: True) as servers:
        about = {
            subject.name: {"port": server.port, "pid": server.process.pid, "tls": subject.tls}
            for subject, server in servers
        }
        for label, size in SIZES.items():
            run.say(f"channels, {label}")
            for subject, _ in servers:
                _throughput(run, subject, about[subject.name], label, size)
        for label, count, at_once in ("one at a time", 5_000, 1), ("64 at once", 60_000, 64):
            run.say(f"round trips, {label}")
            for subject, _ in servers:
                # Some relays take a hundred times as long for each.
                several = count if at_once == 1 or is_engine_or_floor(subject) or subject.tls else count // 6
                job = {**about[subject.name], "protocol": subject.protocol, "count": run.several(several)}
                found = client("round_trips", **job, in_flight=at_once)
                _hops(run, f"two channels, {label}", "two channels", subject.name, found)
        for label, count, at_once in ("one at a time", 4_000, 1), ("64 at once", 25_000, 64):
            run.say(f"calls, {label}")
            for subject, _ in servers:
                if subject.protocol == "engine":
                    found = client("calls", **about[subject.name], count=run.several(count), in_flight=at_once)
                    _hops(run, f"call, {label}", "call", subject.name, found)
        churn = run.table(
            "churn",
            "Pipe made, both ends attached, one message, closed",
            "µs of engine CPU",
            floor="trio-websocket relay",
        )
        run.say("churn")
        for subject, _ in servers:
            if subject.closes:
                job = {**about[subject.name], "protocol": subject.protocol, "count": run.several(800)}
                churn.put("all of it", subject.name, _cpu(client("churn", **job)))


def _throughput(run: Run, subject: Subject, about: dict[str, Any], label: str, size: int) -> None:
    cpu = run.table("channel-cpu", "Channel message, raw clients", "µs of engine CPU")
    rate = run.table("channel-rate", "Channel throughput, raw clients", "messages/s")
    seconds = _THROUGHPUT_SECONDS * run.scale
    found = client("throughput", **about, protocol=subject.protocol, size=size, seconds=seconds)
    cpu.put(label, subject.name, found["cpu_seconds"] / found["messages"] * 1e6)
    rate.put(label, subject.name, found["messages"] / found["seconds"])


def _hops(run: Run, row: str, what: str, column: str, found: dict[str, float]) -> None:
    note = "A call is one process more at work than the relays' two pipes: it is parsed, routed and answered."
    run.table("hops-cpu", "There and back, 64 B", "µs of engine CPU", note=note).put(row, column, _cpu(found))
    if "p50" in found:
        _percentiles(run.table("hops-latency", "There and back, one at a time", "µs"), what, column, found)


def _cpu(found: dict[str, float]) -> float:
    return found["cpu_seconds"] / found["count"] * 1e6


def _percentiles(table: Table, row: str, column: str, found: dict[str, float]) -> None:
    table.put(f"{row}, median", column, found["p50"] * 1e6)
    table.put(f"{row}, p99", column, found["p99"] * 1e6)


def fairness(run: Run) -> None:
    """Calls, and another channel, beside a channel that another process keeps busy."""
    note = "Three processes (engine, load, call) share the cores, so much of it is waiting for a core."
    table = run.table("fairness", "Beside one saturated channel", "µs", note=note)
    rate = run.table("fairness-rate", "The saturated channel meanwhile", "messages/s")
    with run.started(is_engine_or_floor) as servers:
        for label, size in (("no channel busy", 0), ("messages of 64 B", 64), ("4 KiB", 4096), ("64 KiB", 65_536)):
            run.say(f"fairness: {label}")
            for subject, server in servers:
                about = {"port": server.port, "pid": server.process.pid, "count": run.several(1000), "in_flight": 1}
                with busy(server.port, subject.protocol, size) if size else _nothing() as load:
                    if subject.protocol == "engine":
                        _percentiles(table, f"{label}: a call", subject.name, client("calls", **about))
                    found = client("round_trips", **about, protocol=subject.protocol)
                    _percentiles(table, f"{label}: there and back by two others", subject.name, found)
                if load:
                    rate.put(label, subject.name, sum(load) / len(load) / size)


@contextmanager
def busy(port: int, protocol: str, size: int) -> Iterator[list[float]]:
    """Keep a channel busy for the length of the block. Its list has the bytes of each second afterwards."""
    job = json.dumps({"port": port, "protocol": protocol, "size": size})
    rates: list[float] = []
    with _process(module("benchmarks.raw_clients", "saturate", job)) as process:
        yield rates
        process.kill()
        assert process.stdout is not None
        rates += [float(line) for line in process.stdout.read().splitlines()]


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it is at work
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _nothing() -> Iterator[list[float]]:
    yield []


def with_workers(run: Run) -> None:
    """Real workers at the ends, each a process: ours, and the SDK from PyPI."""
    if find_spec("iii") is None:
        run.skipped["iii's Python SDK"] = "iii-sdk is not installed (pip install '.[bench]')"
    with ExitStack() as stack:
        ends = []
        for checkout in checkouts(run.beside):
            server = stack.enter_context(engine(checkout.path))
            names = {"our worker" if checkout.path == ROOT else f"worker of {checkout.name}": "ours"}
            if checkout.path == ROOT and find_spec("iii") is not None:
                names["iii's Python SDK"] = "sdk"
            for kind in names.values():
                command = ["benchmarks.ends_worker", kind, f"ws://127.0.0.1:{server.port}"]
                stack.enter_context(_process(module(*command, checkout=checkout.path)))
            session = Session(server.port)
            ends += [(name, kind, server, session) for name, kind in names.items()]
        for label, size in SIZES.items():
            for name, kind, server, session in ends:
                run.say(f"{name} at the ends: {label}")
                _with_worker(run, name, kind, server, session, label, size)


def _with_worker(run: Run, name: str, kind: str, server: Server, session: Session, label: str, size: int) -> None:
    cpu = run.table("workers-cpu", "Channel message with workers at the ends", "µs of engine CPU", floor=None)
    rate = run.table("workers-rate", "Channel throughput with workers at the ends", "messages/s", floor=None)
    made = session.make_channel()
    before = server.cpu_seconds()
    sent, seconds = _through(session, kind, made, size, _THROUGHPUT_SECONDS * run.scale)
    cpu.put(label, name, (server.cpu_seconds() - before) / sent * 1e6)
    rate.put(label, name, sent / seconds)


def _through(session: Session, kind: str, made: dict[str, Any], size: int, seconds: float) -> tuple[int, float]:
    calls = {"read": str(uuid.uuid4()), "write": str(uuid.uuid4())}
    started = time.monotonic()
    for what, data in (
        ("read", {"reader": made["reader"]}),
        ("write", {"writer": made["writer"], "size": size, "seconds": seconds}),
    ):
        function_id = f"{kind}::{what}"
        session.send({"type": "invokefunction", "invocation_id": calls[what], "function_id": function_id, "data": data})
    results: dict[str, int] = {}
    while len(results) < 2:
        answer = session.receive()
        if answer.get("error"):
            raise RuntimeError(f"{answer['error']}")
        results[answer["invocation_id"]] = answer["result"]
    took = time.monotonic() - started
    sent = results[calls["write"]]
    if results[calls["read"]] < sent:  # more is right: iii's SDK sends messages above 64 KiB in pieces
        raise RuntimeError(f"{sent} were sent, {results[calls['read']]} arrived")
    return sent, took
