"""The measurements of one round, their order and their peers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any

import attrs

from . import lifetimes
from .processes import ROOT, Server, Skipped, client, engine, nats, relay, tls_engine
from .raw_wires import Session
from .table import FLOOR, OURS, OURS_TLS, Table

SIZES = {"64 B": 64, "1 KiB": 1024, "4 KiB": 4096, "64 KiB": 65_536, "1 MiB": 1_048_576}
Opening = Callable[[], AbstractContextManager[Server]]
SUBJECTS: dict[str, tuple[Opening, str]] = {
    OURS: (engine, "engine"),
    OURS_TLS: (tls_engine, "engine"),
    FLOOR: (lambda: relay("raw_trio"), "websocket"),
    "picows relay": (lambda: relay("picows_relay", "picows"), "websocket"),
    "websockets relay": (lambda: relay("websockets_asyncio"), "websocket"),
    "trio-websocket relay": (lambda: relay("trio_websocket_relay"), "websocket"),
    "NATS core": (nats, "nats"),
}
_SPEAKS_WEBSOCKET = (
    OURS,
    OURS_TLS,
    "picows relay",
    "websockets relay",
    "trio-websocket relay",
)  # and closes as WebSockets do


@attrs.define
class Run:
    """All rounds of one run. `scale` shortens each measurement."""

    scale: float
    say: Callable[[str], None]
    skipped: dict[str, str] = attrs.field(factory=dict)
    tables: dict[str, Table] = attrs.field(factory=dict)

    def several(self, count: int) -> int:
        return max(50, int(count * self.scale))

    def table(self, name: str, title: str, unit: str, **options: Any) -> Table:
        """Return the table of this name, which every round fills further."""
        return self.tables.setdefault(name, Table(name, title, unit, **options))


def measure_round(run: Run) -> None:
    """Measure everything once, each subject and its floor within the same minutes."""
    between_sockets(run)
    with_workers(run)
    in_process(run)
    at_the_edges(run)


def between_sockets(run: Run) -> None:
    """Raw clients: channels, round trips, calls and churn, where the subject's process is the bottleneck."""
    tls = ((OURS_TLS, OURS),)
    cpu = run.table("channel-cpu", "Channel message, raw clients", "µs of engine CPU", compared=tls)
    rate = run.table("channel-rate", "Channel throughput, raw clients", "messages/s", compared=tls)
    hops = run.table("hops-cpu", "There and back, 64 B", "µs of engine CPU", compared=tls)
    hops.note = "A call is one process more at work than the relays' two pipes: it is parsed, routed and answered."
    wait = run.table("hops-latency", "There and back, one at a time", "µs", compared=tls)
    churn = run.table("churn", "Pipe made, both ends attached, one message, closed", "µs of engine CPU", floor=None)
    for name, (opening, protocol) in SUBJECTS.items():
        try:
            with opening() as server:
                about: dict[str, Any] = {"port": server.port, "pid": server.process.pid, "tls": name == OURS_TLS}
                run.say(f"{name}: channels")
                for label, size in SIZES.items():
                    found = client("throughput", **about, protocol=protocol, size=size, seconds=1.5 * run.scale)
                    cpu.put(label, name, found["cpu_seconds"] / found["messages"] * 1e6)
                    rate.put(label, name, found["messages"] / found["seconds"])
                run.say(f"{name}: round trips")
                for label, count, at_once in ("one at a time", 5_000, 1), ("64 at once", 60_000, 64):
                    count = run.several(count)
                    found = client("round_trips", **about, protocol=protocol, count=count, in_flight=at_once)
                    hops.put(f"two channels, {label}", name, found["cpu_seconds"] / found["count"] * 1e6)
                    if at_once == 1:
                        _percentiles(wait, "two channels", name, found)
                if protocol == "engine":
                    run.say(f"{name}: calls")
                    for label, count, at_once in ("one at a time", 4_000, 1), ("64 at once", 25_000, 64):
                        found = client("calls", **about, count=run.several(count), in_flight=at_once)
                        hops.put(f"call, {label}", name, found["cpu_seconds"] / found["count"] * 1e6)
                        if at_once == 1:
                            _percentiles(wait, "call", name, found)
                if name in _SPEAKS_WEBSOCKET:
                    run.say(f"{name}: churn")
                    found = client("churn", **about, protocol=protocol, count=run.several(800))
                    churn.put("all of it", name, found["cpu_seconds"] / found["count"] * 1e6)
        except Skipped as why:
            run.skipped[name] = str(why)
    fairness(run)


def _percentiles(table: Table, row: str, name: str, found: dict[str, float]) -> None:
    table.put(f"{row}, median", name, found["p50"] * 1e6)
    table.put(f"{row}, p99", name, found["p99"] * 1e6)


def fairness(run: Run) -> None:
    """Calls, and another channel, beside a channel that another process keeps busy."""
    table = run.table("fairness", "Beside one saturated channel", "µs", floor=None)
    table.note = "Three processes (engine, load, call) share the cores, so much of it is waiting for a core."
    with engine() as server:
        for label, size in (("no channel busy", 0), ("messages of 64 B", 64), ("4 KiB", 4096), ("64 KiB", 65_536)):
            run.say(f"fairness: {label}")
            load: AbstractContextManager[Any] = busy(server.port, size) if size else _nothing()
            with load:
                about = {"port": server.port, "pid": server.process.pid}
                call = client("calls", **about, count=run.several(1000), in_flight=1)
                trip = client("round_trips", **about, protocol="engine", count=run.several(1000), in_flight=1)
            for what, found in ("a call", call), ("there and back by two others", trip):
                table.put(label, f"{what}, median", found["p50"] * 1e6)
                table.put(label, f"{what}, p99", found["p99"] * 1e6)


@contextmanager
def _process(*arguments: str) -> Iterator[None]:
    command = [sys.executable, "-m", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it is at work
        yield
    finally:
        process.kill()
        process.communicate()


def busy(port: int, size: int) -> AbstractContextManager[None]:
    return _process("benchmarks.raw_clients", "saturate", json.dumps({"port": port, "size": size}))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def with_workers(run: Run) -> None:
    """Real workers at the ends, each a process: ours, and the SDK from PyPI."""
    cpu = run.table("workers-cpu", "Channel message with workers at the ends", "µs of engine CPU", floor=None)
    rate = run.table("workers-rate", "Channel throughput with workers at the ends", "messages/s", floor=None)
    with engine() as server, _process("benchmarks.ends_worker", "ours", f"ws://127.0.0.1:{server.port}"):
        pairs = {"our worker": ("ours", "ours")}
        sdk: AbstractContextManager[None] = _nothing()
        if find_spec("iii") is None:
            run.skipped["iii-sdk"] = "iii-sdk is not installed (pip install '.[bench]')"
        else:
            pairs |= {"iii's Python SDK": ("sdk", "sdk")}
            sdk = _process("benchmarks.ends_worker", "sdk", f"ws://127.0.0.1:{server.port}")
        with sdk:
            session = Session(server.port)
            for name, (writer, reader) in pairs.items():
                for label, size in SIZES.items():
                    run.say(f"{name} at the ends: {label}")
                    made = session.make_channel()
                    before = server.cpu_seconds()
                    sent, seconds = _through(session, writer, reader, made, size, 1.5 * run.scale)
                    cpu.put(label, name, (server.cpu_seconds() - before) / sent * 1e6)
                    rate.put(label, name, sent / seconds)


def _through(
    session: Session, writer: str, reader: str, made: dict[str, Any], size: int, seconds: float
) -> tuple[int, float]:
    calls = {"read": str(uuid.uuid4()), "write": str(uuid.uuid4())}
    started = time.monotonic()
    for what, worker, data in (
        ("read", reader, {"reader": made["reader"]}),
        ("write", writer, {"writer": made["writer"], "size": size, "seconds": seconds}),
    ):
        function_id = f"{worker}::{what}"
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


def in_process(run: Run) -> None:
    """Engine and workers in one process, with Trio's memory channel as the floor."""
    run.say("in process")
    found = lifetimes.in_process()
    floor = "Trio memory channel"
    table = run.table("in-process", "Engine and workers in one process", "µs of CPU, of all", floor=floor)
    table.put("channel message, 64 B", OURS, found["channel_message_64"] * 1e6)
    table.put("channel message, 64 KiB", OURS, found["channel_message_65536"] * 1e6)
    for row in "channel message, 64 B", "channel message, 64 KiB":
        table.put(row, floor, found["memory_channel_message"] * 1e6)
    for row, key in ("call, one at a time", "call_sequential"), ("call, 64 at once", "call_64_at_once"):
        table.put(row, OURS, found[key] * 1e6)
        table.put(row, floor, found["memory_channel_round_trip"] * 1e6)
    table.put("teardown of 1,000 channels (µs of time)", OURS, found["teardown_of_1000_channels"] * 1e6)


def at_the_edges(run: Run) -> None:
    """Memory, ends and starts."""
    run.say("memory")
    memory = run.table("memory", "Memory at rest", "kB each", floor=None)
    with engine() as server:
        found = lifetimes.at_rest(server, sessions=run.several(1000), channels=run.several(10_000))
    for row, key in ("idle session", "session"), ("unattached channel", "unattached"), ("open channel", "open"):
        memory.put(row, OURS, found[key] / 1000)
    rest = run.table("rest", "CPU with all of these at rest", "% of a core", floor=None)
    rest.put("engine", OURS, 100 * found["cpu_share"])
    run.say("kill")
    kill = run.table("kill", "A process with 1,000 open channels is killed", "ms", floor=None)
    with engine() as server:
        found = lifetimes.kill(server)
        for what, key in (
            ("first reader told", "first"),
            ("last reader told", "last"),
            ("engine CPU", "cpu_seconds"),
        ):
            kill.put(what, OURS, found[key] * 1000)
    run.say("start")
    floor = "Python and Trio"
    start = run.table("start", "Start", "ms", floor=floor)
    start.put("start to ready", OURS, lifetimes.start_seconds() * 1000)
    start.put("start to ready", floor, lifetimes.floor_start_seconds() * 1000)
    for what, seconds in lifetimes.import_seconds().items():
        start.put(f"{what}, after trio", OURS, seconds * 1000)
