"""Mutation testing of the package.

    python -m tests.mutation                                # every file, every mutant: hours
    python -m tests.mutation --sample 20 --seed 1           # 20 random mutants of each file
    python -m tests.mutation --file iii_trio/core/call.py   # one file

Prints the score of each file and the mutants that no test noticed. Exits with 1 where a survivor is not listed in
survivors.toml, or where fewer than 90 % of a file's mutants were noticed that are not listed as equivalent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.mutation.mutants import Mutant, mutants_of, sample
from tests.mutation.session import Reach, Verdict, judge, measure

HERE: Final = Path(__file__).parent
TOP: Final = HERE.parent.parent
LEAST_PERCENT: Final = 90.0

AREAS: Final[dict[str, tuple[str, ...]]] = {
    "iii_trio/core": ("tests/core",),
    "iii_trio/wire": ("tests/wire", "tests/core"),
    "iii_trio/transport": ("tests/transport",),
    "iii_trio/worker": ("tests/worker",),
    "iii_trio/triggers/queue": ("tests/queue",),
}
"""Each area, and the folders of the tests that are run for it."""
PURE_QUEUE: Final = frozenset({
    "attempt", "baggage", "declaration", "entry", "isolation", "lane", "lane_key", "lanes", "ledger",
    "protocol", "record", "settings", "states", "subscriptions", "texts", "timers",
})  # fmt: skip
"""The files of the queue without trio, clock or disk."""


def files_of(area: str) -> list[str]:
    """Return the files to mutate in an area."""
    paths = sorted((TOP / area).rglob("*.py"))
    if area.endswith("queue"):
        paths = [path for path in paths if path.stem in PURE_QUEUE]
    return [str(path.relative_to(TOP)) for path in paths]


def reach_of(area: str, folders: Sequence[str]) -> Reach:
    """Return which tests reach which lines, measured anew where a source or a test changed."""
    digest = hashlib.sha256()
    for folder in ("iii_trio", *folders):
        for path in sorted((TOP / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(TOP)}\n".encode() + path.read_bytes())
    saved = TOP / ".mutation" / f"{area.replace('/', '.')}-{digest.hexdigest()[:16]}.json"
    if saved.exists():
        return Reach.load(saved)
    saved.parent.mkdir(exist_ok=True)
    return measure(TOP, "iii_trio", folders, saved)


def listed_survivors() -> dict[tuple[str, str, str], str]:
    """Return the reason of each listed survivor. Raises SystemExit for one without a reason."""
    rows = tomllib.loads((HERE / "survivors.toml").read_text()).get("survivor", [])
    listed: dict[tuple[str, str, str], str] = {}
    for row in rows:
        if not row.get("equivalent", "").strip():
            raise SystemExit(f"survivors.toml: {row.get('file')}: {row.get('was')!r} has no reason")
        listed[row["file"], row["was"], row["becomes"]] = row["equivalent"]
    return listed


def run(area: str, files: Sequence[str], number: int | None, seed: int) -> list[dict[str, object]]:
    """Judge the mutants of some files of an area, print each file's score and return the rows."""
    listed = listed_survivors()
    everything = {file: mutants_of(TOP, file) for file in files}
    chosen = {file: sample(mutants, number, seed) for file, mutants in everything.items()}
    reach = reach_of(area, AREAS[area])
    verdicts: dict[str, list[tuple[Mutant, Verdict]]] = defaultdict(list)

    def tell(mutant: Mutant, verdict: Verdict) -> None:
        verdicts[mutant.file].append((mutant, verdict))

    rows: list[dict[str, object]] = []
    for file in files:
        began = time.monotonic()
        judge(TOP, chosen[file], reach, tell)
        results = verdicts[file]
        survivors = [mutant for mutant, verdict in results if verdict == "survived"]
        equivalent = [mutant for mutant in survivors if mutant.key in listed]
        counted = len(results) - len(equivalent)
        noticed = len(results) - len(survivors)
        row = {
            "file": file,
            "mutants": len(everything[file]),
            "run": len(results),
            "noticed": noticed,
            "timed_out": sum(verdict == "timed out" for _, verdict in results),
            "equivalent": len(equivalent),
            "unlisted": len(survivors) - len(equivalent),
            "percent": round(100 * noticed / counted, 1) if counted else 100.0,
            "seed": None if len(results) == len(everything[file]) else seed,
        }
        rows.append(row)
        print(
            f"{file}: {row['percent']} % of {counted} noticed ({len(results)} run of {len(everything[file])}, "
            f"{row['timed_out']} timed out, {len(equivalent)} equivalent, {time.monotonic() - began:.0f} s)",
            flush=True,
        )
        for mutant in survivors:
            if mutant.key not in listed:
                print(
                    f"  {file}:{mutant.line} {mutant.operator}\n    - {mutant.was}\n    + {mutant.becomes}", flush=True
                )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Mutation testing of the package.")
    parser.add_argument("--file", action="append", help="a file to mutate (may be repeated); default: all")
    parser.add_argument("--area", choices=AREAS, help="mutate the files of one area")
    parser.add_argument("--sample", type=int, metavar="N", help="run N random mutants of each file; default: all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default 1)")
    parser.add_argument("--record", action="store_true", help="write the scores into results.json")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for area in AREAS:
        files = files_of(area)
        if options.file:
            files = [file for file in options.file if Path(file).is_relative_to(area)]
        elif options.area not in (None, area):
            continue
        if files:
            rows += run(area, files, options.sample, options.seed)
    if not rows:
        raise SystemExit(f"no file to mutate: a file has to be in {', '.join(AREAS)}")
    if options.record:
        path = HERE / "results.json"
        before = {row["file"]: row for row in json.loads(path.read_text())} if path.exists() else {}
        after = before | {row["file"]: row for row in rows}
        path.write_text("[\n" + ",\n".join(f"  {json.dumps(after[file])}" for file in sorted(after)) + "\n]\n")
    noticed = sum(int(str(row["noticed"])) for row in rows)
    counted = sum(int(str(row["run"])) - int(str(row["equivalent"])) for row in rows)
    print(f"together: {100 * noticed / max(counted, 1):.1f} % of {counted} noticed")
    poor = [row["file"] for row in rows if float(str(row["percent"])) < LEAST_PERCENT]
    return 1 if poor or any(row["unlisted"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
