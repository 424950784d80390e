"""The command of the long runs.

    python -m tests.soak --seeds 100000
    python -m tests.soak --real

The exit code is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .command import run_real_soak
from .played import Soak
from .simulated import replay, soak_in_processes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and give back its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
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
        asked = Soak(
            60 * options.minutes, 60 * options.round, seed=options.seed, workers=options.workers, load=options.load
        )
        return run_real_soak(asked, options.out)
    if options.replay is not None:
        replay(options.replay)
        return 0
    return soak_in_processes(options.first, options.seeds, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
