"""`python -m tests.torture`."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import trio

from .plan import Plan
from .play import play_round


def main(arguments: list[str] | None = None) -> int:
    """Play rounds, say what came of each, and at the end of all. The exit code: 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the others follow")
    parser.add_argument("--home", type=Path, help="keep what each round leaves in this directory")
    given = parser.parse_args(arguments)
    logging.getLogger("iii_trio").setLevel(logging.ERROR)  # that links are lost is the point
    began = time.monotonic()
    total: Counter[str] = Counter()
    for seed in range(given.seed, given.seed + given.rounds):
        home = given.home / str(seed) if given.home else Path(tempfile.mkdtemp(prefix="torture-"))
        home.mkdir(parents=True, exist_ok=True)
        played = trio.run(play_round, Plan.draw(seed), home)
        print(played.summary, flush=True)
        tally = played.tally
        total["promised"] += tally.promised
        total["over"] += tally.done
        total["dead"] += tally.dead
        total["redelivered"] += tally.redeliveries
        total.update(deed for _, deed in played.plan.deeds)
        if tally.problems:
            print(f"round {seed} broke promises; its files are in {home}", file=sys.stderr)
            return 1
        if given.home is None:
            shutil.rmtree(home)
    killed = total["kill a"] + total["kill b"]
    print(
        f"{given.rounds} rounds in {time.monotonic() - began:.0f} s: {total['promised']} jobs promised, "
        f"{total['over']} over, {total['dead']} of them dead letters as meant, {total['redelivered']} redelivered; "
        f"the engine was killed {total['kill engine']} times, drained {total['drain engine']}, "
        f"closed {total['close engine']}; workers were killed {killed} times; no promise was broken"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
