"""A long simulated run: conversations drawn from seeds, held in simulated worlds, and judged.

Many histories share one `trio.run`. `soak_in_processes` runs one process a core. It plays the first history that breaks a
promise again and prints its transcript.
"""

from __future__ import annotations

import gc
import logging
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from random import Random
from typing import Final

import attrs
import trio
import trio.testing

from iii_trio.testing import draw_conversation, play_conversation, seeded_schedule, simulate_conversation

_CHUNK: Final = 250
_COLLECT_EVERY: Final = 50
_MAX_STEPS: Final = 3_000_000  # a slow line of tiny segments takes some 600,000


@attrs.define
class Tally:
    """What was done."""

    histories: int = 0
    steps: int = 0
    broken: int | None = None
    """The first seed whose history broke a promise."""
    problem: str = ""

    def add(self, other: Tally) -> None:
        self.histories += other.histories
        self.steps += other.steps
        if other.broken is not None and self.broken is None:
            self.broken, self.problem = other.broken, other.problem


def soak(seeds: Sequence[int]) -> Tally:
    """Play the histories of these seeds, one after the other, up to the first that breaks a promise."""
    logging.disable(logging.CRITICAL)
    gc.disable()
    try:
        with seeded_schedule(0):
            return trio.run(_soak, seeds, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


async def _soak(seeds: Sequence[int]) -> Tally:
    tally = Tally()
    for seed in seeds:
        try:
            history = await play_conversation(
                draw_conversation(Random(seed)), seed, transcript=False, max_steps=_MAX_STEPS
            )
        except Exception as error:
            tally.broken, tally.problem = seed, "".join(traceback.format_exception(error))
            break
        tally.histories += 1
        tally.steps += history.steps
        if tally.histories % _COLLECT_EVERY == 0:
            gc.collect()
    return tally


def replay(seed: int) -> None:
    """Play the history of one seed alone, with its transcript. Raises as it did in the long run."""
    logging.disable(logging.CRITICAL)
    try:
        print(simulate_conversation(draw_conversation(Random(seed)), seed, max_steps=_MAX_STEPS))
    finally:
        logging.disable(logging.NOTSET)


def soak_in_processes(first: int, count: int, jobs: int) -> int:
    """Play the histories of `count` seeds from `first` on in `jobs` processes. Give back the exit code."""
    chunks = [range(start, min(start + _CHUNK, first + count)) for start in range(first, first + count, _CHUNK)]
    total = Tally()
    began = told = time.perf_counter()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(soak, chunk) for chunk in chunks]):
            total.add(done.result())
            if total.broken is not None:
                pool.shutdown(cancel_futures=True)
                break
            if time.perf_counter() > told + 5:
                told = time.perf_counter()
                print(_line(total, told - began), flush=True)
    print(_line(total, time.perf_counter() - began), flush=True)
    if total.broken is None:
        return 0
    print(f"the history of seed {total.broken} broke a promise:\n{total.problem}", file=sys.stderr)
    try:
        replay(total.broken)
    except Exception:
        traceback.print_exc()
    else:
        print("played alone, it breaks none", file=sys.stderr)
    return 1


def _line(tally: Tally, seconds: float) -> str:
    rate = f"{tally.histories / seconds:.0f} histories and {tally.steps / seconds:.0f} steps a second"
    return f"{tally.histories} histories, {tally.steps} steps in {seconds:.1f} s: {rate}"
