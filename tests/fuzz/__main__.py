"""Fuzz by hand: python -m tests.fuzz [--minutes N] [--seed N] [--only KIND]."""

from __future__ import annotations

import argparse
import time

from .drivers import KINDS
from .oracles import Broken

MAX_CPU = 0.15
"""Seconds of CPU for one input of at most 4 MiB and the bystander's work behind it."""


def smallest(kind: str, inputs: list[bytes], problem: str) -> list[bytes]:
    """Leave inputs out for as long as the case still fails."""
    _, run = KINDS[kind]
    left = list(inputs)
    for item in inputs:
        fewer = [each for each in left if each is not item]
        if not fewer:
            break
        try:
            run(fewer, MAX_CPU)
        except Broken:
            left = fewer
    return left


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure")
    options = parser.parse_args()
    began, seed, failed, problems = time.monotonic(), options.seed, 0, set[str]()
    while time.monotonic() - began < options.minutes * 60:
        for kind in [options.only] if options.only else KINDS:
            make, run = KINDS[kind]
            inputs = make(seed)
            try:
                run(inputs, MAX_CPU)
            except Broken as problem:
                failed += 1
                if str(problem)[:40] in problems:
                    continue
                problems.add(str(problem)[:40])
                print(f"after {time.monotonic() - began:.1f} s: {kind}, seed {seed}: {str(problem)[:300]}", flush=True)
                for each in smallest(kind, inputs, str(problem)):
                    print(f"    {each[:300]!r}{'…' if len(each) > 300 else ''} ({len(each)} bytes)", flush=True)
                if not options.keep_going:
                    return 1
        seed += 1
    print(f"{seed - options.seed} seeds of each kind, {failed} failures")
    return 1 if failed else 0


raise SystemExit(main())
