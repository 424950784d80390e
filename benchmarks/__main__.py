"""Measure everything in rounds, each subject beside its floor and its peers, and write tables and plots."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from pathlib import Path

from . import edges, measures, plot, table
from .measures import Run
from .subjects import Checkout

_PLOTTED = {"channel-cpu": plot.lines, "channel-rate": plot.lines, "hops-cpu": plot.bars, "workers-cpu": plot.lines}
_FEWEST_ROUNDS = 3
_MEASURED = (
    measures.between_sockets, measures.fairness, measures.with_workers,
    edges.in_process, edges.memory, edges.kill, edges.start, edges.queue,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, help="directory for the results (default: a new one, named at the end)")
    parser.add_argument("--rounds", type=int, default=_FEWEST_ROUNDS, help="rounds of all measurements (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="shorter (0.1) or longer (2) runs of each measurement")
    parser.add_argument(
        "--page", type=Path, help="page to publish in: the part between its two marks becomes the tables"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="PATH",
        help="another checkout, as of an earlier commit: its package is measured too",
    )
    parser.add_argument(
        "--reference", default="iii", metavar="PROGRAM", help="the compiled engine (default: iii on PATH)"
    )
    options = parser.parse_args()
    try:
        beside = Checkout.from_path(options.beside) if options.beside is not None else None
    except ValueError as why:
        parser.error(f"--beside: {why}")
    load = os.getloadavg()[0]
    if options.page is not None:
        if load > table.LARGEST_LOAD:
            parser.error(
                f"the load average is {load:.2f}, above {table.LARGEST_LOAD}: such a run may not be published. "
                "Wait until the machine is at rest, or leave out --page."
            )
        if options.rounds < _FEWEST_ROUNDS or options.scale < 1:
            parser.error(f"a page needs at least {_FEWEST_ROUNDS} rounds at scale 1")
    output = options.output or Path("docs/performance" if options.page is not None else "build/benchmarks")
    output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(what: str) -> None:
        line = f"[{time.monotonic() - began:4.0f} s] {what}"
        print(
            f"\r{line:<78}" if sys.stderr.isatty() else line, end="" if sys.stderr.isatty() else "\n", file=sys.stderr
        )

    about = {"date": datetime.date.today().isoformat(), "rounds": options.rounds, **table.machine()}
    run = Run(options.scale, say, beside, options.reference)
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        for measure in _MEASURED:
            measure(run)
    tables = list(run.tables.values())
    about["seconds"] = time.monotonic() - began
    table.write(output, tables, about, run.skipped)
    for one in tables:
        if one.name in _PLOTTED:
            (output / f"{one.name}.svg").write_text(_PLOTTED[one.name](one))
    say(f"done: {output}")
    text = (output / "results.md").read_text()
    if options.page is not None:
        table.put_into(options.page, text)
    print("\n" + text)


main()
