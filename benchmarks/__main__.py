"""`python -m benchmarks`: measure everything in under ten minutes, and write tables and plots."""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from pathlib import Path

from . import plot, table
from .measures import Run, all_tables

_PLOTTED = {"channel-cpu": plot.lines, "channel-rate": plot.lines, "hops-cpu": plot.bars, "workers-cpu": plot.lines}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/performance"), help="where the results go")
    parser.add_argument("--scale", type=float, default=1.0, help="shorter (0.1) or longer (2) runs of each measurement")
    parser.add_argument("--page", type=Path, help="a page whose part between two marks becomes the tables")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(what: str) -> None:
        line = f"[{time.monotonic() - began:4.0f} s] {what}"
        print(
            f"\r{line:<78}" if sys.stderr.isatty() else line, end="" if sys.stderr.isatty() else "\n", file=sys.stderr
        )

    about = {"date": datetime.date.today().isoformat(), **table.machine()}
    run = Run(options.scale, say)
    tables = list(all_tables(run))
    about["seconds"] = time.monotonic() - began
    table.write(options.output, tables, about, run.skipped)
    for one in tables:
        if one.name in _PLOTTED:
            (options.output / f"{one.name}.svg").write_text(_PLOTTED[one.name](one))
    say("done")
    text = (options.output / "results.md").read_text()
    if options.page is not None:
        table.put_into(options.page, text)
    print("\n" + text)


main()
