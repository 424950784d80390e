"""What recording traces costs: all figures of docs/observability.md, "Cost", in one run.

    python -m benchmarks.bench_tracing [--rounds N] [--json]

First the processor time of a call within one process, without the observability module, with sampling off, and with every
call recorded. Then how long calls take, and the end of an engine, whose spans go to a collector that is silent or dead.

The subjects take turns of some hundred calls, so that what else the machine does falls on all alike. Each round's time is
compared with the mean of the first subject before and after it. The medians of these differences count.
"""

from __future__ import annotations

import argparse
import gc
import json
import socket
import statistics
import time
from contextlib import AsyncExitStack
from typing import Any

import trio

import iii_trio
from iii_trio.tracing import Sampling
from iii_trio.triggers.observability.settings import ExportSettings, ObservabilityConfig

CALLS = 400
SUBJECTS: dict[str, ObservabilityConfig | None] = {
    "without the module": None,
    "sampling off": ObservabilityConfig(sampling=Sampling(0), exporter="memory"),
    "every call recorded": ObservabilityConfig(sampling=Sampling(), exporter="memory"),
}


async def measure(rounds: int) -> dict[str, list[float]]:
    """The microseconds of each call, by subject, round by round."""
    found: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    async with AsyncExitStack() as stack:
        workers = {}
        for name, settings in SUBJECTS.items():
            config = iii_trio.EngineConfig(modules={"queue": None, "observability": settings})
            engine = await stack.enter_async_context(iii_trio.open_engine(config))
            callee = await stack.enter_async_context(engine.open_worker("callee"))
            callee.register_function("bench::echo", _echo)
            await callee.wait_registered()
            workers[name] = await stack.enter_async_context(engine.open_worker("caller"))
        for worker in workers.values():
            await _calls(worker)
        for _ in range(rounds):
            for name, worker in workers.items():
                gc.collect()
                before = time.process_time()
                await _calls(worker)
                found[name].append((time.process_time() - before) / CALLS * 1e6)
    return found


async def _echo(x: int) -> int:
    return x


async def _calls(worker: iii_trio.Worker) -> None:
    for number in range(CALLS):
        await worker.trigger("bench::echo", {"x": number})


async def measure_collectors(rounds: int) -> dict[str, dict[str, float]]:
    """How long a call takes in µs, and the end of the engine in seconds, by collector. Every call is recorded."""
    took: dict[str, list[list[float]]] = {}
    ended: dict[str, float] = {}
    # The kernel accepts connections for a server that never does, and nothing answers them. The stack ends what has begun.
    async with AsyncExitStack() as whole:
        silent = whole.enter_context(socket.create_server(("127.0.0.1", 0)))
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        endpoints = {
            "no collector": None,
            "one that is silent": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "one that is dead": f"http://127.0.0.1:{port}",
        }
        workers, engines = {}, {}
        for name, endpoint in endpoints.items():
            settings = ObservabilityConfig(
                sampling=Sampling(),
                exporter="both" if endpoint else "memory",
                export=ExportSettings(endpoint=endpoint),
            )
            config = iii_trio.EngineConfig(modules={"queue": None, "observability": settings})
            stack = engines[name] = await whole.enter_async_context(AsyncExitStack())
            engine = await stack.enter_async_context(iii_trio.open_engine(config))
            callee = await stack.enter_async_context(engine.open_worker("callee"))
            callee.register_function("bench::echo", _echo)
            await callee.wait_registered()
            workers[name] = await stack.enter_async_context(engine.open_worker("caller"))
            await _calls(workers[name])
            took[name] = []
        for _ in range(rounds):
            for name, worker in workers.items():
                gc.collect()
                took[name].append([await _timed(worker) for _ in range(100)])
        # In the reverse order, because the tasks of each engine stand within those of the one before.
        for name, stack in reversed(engines.items()):
            before = time.perf_counter()
            await stack.aclose()
            ended[name] = time.perf_counter() - before
    plain = [statistics.median(turn) for turn in took["no collector"]]
    rows = {}
    for name, turns in took.items():
        every = sorted(one for turn in turns for one in turn)
        more = [statistics.median(turn) - before for turn, before in zip(turns, plain, strict=True)]
        rows[name] = {
            "median_us": statistics.median(every),
            "p99_us": every[len(every) * 99 // 100],
            "more_us": statistics.median(more),
            "end_seconds": ended[name],
        }
    return rows


async def _timed(worker: iii_trio.Worker) -> float:
    before = time.perf_counter()
    await worker.trigger("bench::echo", {"x": 1})
    return (time.perf_counter() - before) * 1e6


def summary(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The minimum and the median of each subject, and the median of what it takes more than without the module."""
    plain = found["without the module"]
    around = [(plain[at] + plain[min(at + 1, len(plain) - 1)]) / 2 for at in range(len(plain))]
    return {
        name: {
            "min_us": min(times),
            "median_us": statistics.median(times),
            "more_us": statistics.median(mine - theirs for mine, theirs in zip(times, around, strict=True)),
            "more_of_min_us": min(times) - min(plain),
        }
        for name, times in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_tracing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = summary(trio.run(measure, options.rounds))
    collectors = trio.run(measure_collectors, options.rounds)
    if options.json:
        print(json.dumps({"cost": result, "collectors": collectors}))
        return
    print(f"{'':22} {'min':>8} {'median':>8} {'more':>8} {'min more':>9}   µs of processor time for a call")
    for name, row in result.items():
        print(f"{name:22} " + " ".join(f"{row[key]:8.2f}" for key in row))
    print(f"\n{'':22} {'median':>8} {'p99':>8} {'more':>8} {'end in s':>9}   µs that a call takes")
    for name, row in collectors.items():
        print(f"{name:22} " + " ".join(f"{row[key]:8.2f}" for key in row))


if __name__ == "__main__":
    main()
