"""What the flight recorder costs a call: `python -m benchmarks.recorder_cost [ROUNDS]`, or `… turns [ROUNDS] [AT_ONCE]`.

Two processes have an engine and two workers each, one of them with a recorder. They make 512 calls in turn, 64 at once, and
tell the CPU time of a call. The medians of many rounds are compared, because other work on the machine disturbs each one.

With `turns` there is one engine, whose hub is plain and recorded in turns. Both have the same places in memory then.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

import iii_trio
from iii_trio.config import EngineConfig, RecorderSettings
from iii_trio.core.hub import Hub
from iii_trio.recorder.recorded_hub import RecordedHub

CALLS, AT_ONCE = 512, 64


@asynccontextmanager
async def open_calls(recorded: bool) -> AsyncIterator[tuple[iii_trio.Engine, Callable[[int], Awaitable[None]]]]:
    """Open an engine and two workers. Gives the engine, and a function that makes so many calls one after the other."""
    config = EngineConfig(recorder=RecorderSettings(enabled=recorded), modules={"queue": None})
    async with (
        iii_trio.open_engine(config) as engine,
        engine.open_worker("a") as callee,
        engine.open_worker("b") as caller,
    ):

        @callee.function("f")
        async def f(n: int, name: str) -> dict[str, int]:
            return {"n": n}

        async def call(times: int) -> None:
            for n in range(times):
                await caller.trigger("f", {"n": n, "name": "some name or other"})

        await callee.wait_registered()
        yield engine, call


async def answer_rounds(recorded: bool) -> None:
    """Make the calls of a round for each line of standard input, and print the CPU time of a call in µs."""
    async with open_calls(recorded) as (_, call):
        for _ in sys.stdin:
            began = time.process_time()
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(call, CALLS // AT_ONCE)
            print((time.process_time() - began) / CALLS * 1e6, flush=True)


def compare(rounds: int) -> None:
    """Print the medians with and without a recorder, and the median of the differences."""
    processes = {
        recorded: subprocess.Popen(
            [sys.executable, "-m", "benchmarks.recorder_cost", "process", recorded],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for recorded in ("on", "off")
    }
    took: dict[str, list[float]] = {"on": [], "off": []}
    for number in range(rounds + 10):
        for recorded in ("on", "off") if number % 2 else ("off", "on"):
            process = processes[recorded]
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            seconds = float(process.stdout.readline())
            if number >= 10:  # the first rounds import and warm up
                took[recorded].append(seconds)
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    more = [(on - off) / off for on, off in zip(took["on"], took["off"], strict=True)]
    print(f"off {statistics.median(took['off']):.1f} µs, on {statistics.median(took['on']):.1f} µs, ", end="")
    print(f"median difference {100 * statistics.median(more):+.1f} %")


async def compare_in_turns(rounds: int, at_once: int) -> None:
    """Print the median of the ratios of a recorded and a plain hub, which is one object that changes its class."""
    async with open_calls(True) as (engine, call):
        hub = engine._shell.hub
        noted = hub.state.traces

        async def turn(recorded: bool) -> float:
            hub.__class__ = RecordedHub if recorded else Hub
            hub.state.traces = noted if recorded else noted._traces  # type: ignore[attr-defined]
            began = time.process_time()
            async with trio.open_nursery() as nursery:
                for _ in range(at_once):
                    nursery.start_soon(call, CALLS // at_once)
            return (time.process_time() - began) / CALLS * 1e6

        ratios, least = [], {True: 1e9, False: 1e9}
        for number in range(rounds + 5):
            took = {True: 0.0, False: 0.0}
            for recorded in (True, False, False, True) if number % 2 else (False, True, True, False):
                one = await turn(recorded)
                took[recorded] += one
                least[recorded] = min(least[recorded], one)
            if number >= 5:
                ratios.append(took[True] / took[False] - 1)
    print(f"least off {least[False]:.1f} µs, on {least[True]:.1f} µs, ", end="")
    print(f"median difference {100 * statistics.median(ratios):+.1f} %")


if __name__ == "__main__":
    if sys.argv[1:2] == ["turns"]:
        rounds, at_once = (*map(int, sys.argv[2:4]), *(100, AT_ONCE)[len(sys.argv[2:4]) :])
        trio.run(compare_in_turns, rounds, at_once)
    elif sys.argv[1:2] == ["process"]:
        trio.run(answer_rounds, sys.argv[2] == "on")
    else:
        compare(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
