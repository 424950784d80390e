"""A long run: conversations drawn from seeds, held in simulated worlds, and judged.

    python -m iii_trio.testing.soak --seeds 100000
    python -m iii_trio.testing.soak --real

One process a core, many histories in one `trio.run`. The first history that breaks a promise is played again with its
transcript, which is printed; the exit code is then 1.

With `--real`: an hour of a real engine process in real time, see `real_soak`.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Final

import attrs
import trio
import trio.testing

from .conversations import draw_conversation
from .promises import play_conversation, simulate_conversation
from .schedule import seeded_schedule

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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives back the exit code."""
    parser = argparse.ArgumentParser(prog="python -m iii_trio.testing.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many histories (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="play one history again, and print it")
    real = parser.add_argument_group("in real time", "an engine process, and workers that come, go, and are killed")
    real.add_argument("--real", action="store_true", help="do that instead")
    real.add_argument("--minutes", type=float, default=60.0, help="how long (default: %(default)g)")
    real.add_argument("--round", type=float, default=3.0, help="minutes until all workers go (default: %(default)g)")
    real.add_argument("--load", type=float, default=0.33, help="cores that it may use in all (default: %(default)g)")
    real.add_argument("--workers", type=int, default=6, help="how many at a time (default: %(default)s)")
    real.add_argument("--seed", type=int, default=0, help="what the mischief is drawn from (default: %(default)s)")
    real.add_argument(
        "--out", type=Path, default=Path("soak"), help="where logs, samples and plot go (default: ./soak)"
    )
    options = parser.parse_args(arguments)
    if options.real:
        from .real_soak import Soak
        from .real_soak.command import run_real_soak

        asked = Soak(
            60 * options.minutes, 60 * options.round, seed=options.seed, workers=options.workers, load=options.load
        )
        return run_real_soak(asked, options.out)
    if options.replay is not None:
        replay(options.replay)
        return 0
    chunks = [
        range(first, min(first + _CHUNK, options.first + options.seeds))
        for first in range(options.first, options.first + options.seeds, _CHUNK)
    ]
    total = Tally()
    began = told = time.perf_counter()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
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


if __name__ == "__main__":
    sys.exit(main())
