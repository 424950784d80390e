"""Mutation testing of the package.

    python -m tests.mutation                                # every file, every mutant: an hour or two
    python -m tests.mutation --sample 20 --seed 1           # 20 random mutants of each file
    python -m tests.mutation --file iii_trio/core/call.py   # one file
    python -m tests.mutation --area iii_trio/core --again   # only those that no test noticed the last time

Prints the mutants that no test noticed and the score of each file. Exits with 1 where a survivor is not listed in
survivors.toml, where an entry of survivors.toml is not a mutant or is noticed, or where fewer than 90 % of a file's mutants
were noticed that are not listed as equivalent.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sys
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from tests.mutation.mutants import Mutant, mutants_of, sample
from tests.mutation.session import MAX_TEST_SECONDS, Reach, Verdict, judge, measure

HERE: Final = Path(__file__).parent
TOP: Final = HERE.parent.parent
LEAST_PERCENT: Final = 90.0
ANY: Final = "*"

TRANSPORT_TESTS: Final = ("tests/transport", "tests/clauses")
WORKER_TESTS: Final = (
    "tests/worker",
    "tests/clauses",
    "tests/external",
    "tests/http_module/test_worker_http.py",
    "tests/http_module/test_http_small.py",
    "tests/http_module/test_facade.py",
    "tests/queue/test_queue_in_engine.py",
)
"""Other tests with workers in them reach these lines, too. To measure which takes much longer than it tells more."""
AREAS: Final[dict[str, tuple[str, ...]]] = {
    "iii_trio/core": ("tests/core", "tests/observability"),
    "iii_trio/wire": ("tests/wire", "tests/core"),
    "iii_trio/transport": TRANSPORT_TESTS,
    "iii_trio/worker": WORKER_TESTS,
    "iii_trio/triggers/queue": ("tests/queue", "tests/test_config_file_queue.py"),
}
"""Each area, and the folders and files of the tests that are run for it."""
IMPURE: Final = frozenset({"trio", "time", "random", "os", "socket", "sqlite3", "threading", "queue", "struct"})
"""Modules that no pure file of the queue imports."""
DECIDING: Final = frozenset({"attempt.py", "journal.py", "operators.py", "subscribers.py"})
"""Files of the queue that use Trio, and decide nevertheless."""


def files_of(area: str) -> list[str]:
    """Return the files to mutate in an area. Of the queue these are the files that decide, not its shells."""
    paths = sorted((TOP / area).rglob("*.py"))
    if area.endswith("queue"):
        paths = [path for path in paths if path.name in DECIDING or _is_pure(path)]
    return [str(path.relative_to(TOP)) for path in paths]


def _is_pure(path: Path) -> bool:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return not imported & IMPURE and not any(isinstance(node, ast.Await) for node in nodes)


def reach_of(area: str) -> Reach:
    """Return which tests reach which lines of an area and of the areas with the same tests.

    Only the test files that changed are measured anew. Lines of a source file that moved keep their tests, and a line that
    is new has those of its function. Remove `.mutation/lines-*` to have everything measured anew.
    """
    folders = AREAS[area]
    areas = [one for one in AREAS if AREAS[one] == folders]
    saved = TOP / ".mutation" / f"lines-{'-'.join(one.replace('/', '.') for one in areas)}.json"
    saved.parent.mkdir(exist_ok=True)
    texts = {
        str(path.relative_to(TOP)): path.read_text() for one in areas for path in sorted((TOP / one).rglob("*.py"))
    }
    digests = {
        str(path.relative_to(TOP)): _digest([path, *path.parent.glob("conversations/*")])
        for folder in folders
        for path in ([TOP / folder] if folder.endswith(".py") else sorted((TOP / folder).rglob("test_*.py")))
    }
    reach = Reach.load(saved) if saved.exists() else Reach()
    reach.follow(texts)
    reach.forget(file for file, digest in reach.digests.items() if digests.get(file) != digest)
    if changed := [file for file in digests if file not in reach.digests]:
        reach.add(measure(TOP, areas, changed, saved.with_suffix(".new.json")))
        reach.digests = digests
        reach.save(saved)
    return reach


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(TOP)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:24]


Survivors: TypeAlias = Mapping[tuple[str, str, str], str]
"""By file, line and changed line, the reason why the change does the same. The changed line `*` is any."""


def listed_survivors() -> Survivors:
    """Return the reason of each listed survivor. Raises SystemExit for one without a reason."""
    rows = tomllib.loads((HERE / "survivors.toml").read_text()).get("survivor", [])
    listed: dict[tuple[str, str, str], str] = {}
    for row in rows:
        if not row.get("equivalent", "").strip():
            raise SystemExit(f"survivors.toml: {row.get('file')}: {row.get('was')!r} has no reason")
        becomes = row["becomes"]
        for changed in [becomes] if isinstance(becomes, str) else becomes:
            listed[row["file"], row["was"], changed] = row["equivalent"]
    return listed


def is_listed(mutant: Mutant, listed: Survivors) -> bool:
    """Return whether a mutant is listed as one that does the same."""
    return mutant.key in listed or (mutant.file, mutant.was, ANY) in listed


def check_list(listed: Survivors, files: Collection[str]) -> None:
    """Raise SystemExit for a listed survivor that is not a mutant of its file."""
    made = {key for file in files for mutant in mutants_of(TOP, file) for key in (mutant.key, (*mutant.key[:2], ANY))}
    for file, was, becomes in listed:
        if not (TOP / file).exists() or (file in files and (file, was, becomes) not in made):
            raise SystemExit(f"survivors.toml: {file} has no mutant (any more) that makes {becomes!r} of {was!r}")


def run(
    area: str, files: Sequence[str], number: int | None, seed: int, again: bool, seconds: float
) -> list[dict[str, object]]:
    """Judge the mutants of some files of an area, print each file's score and return the rows."""
    listed = listed_survivors()
    check_list(listed, files)
    everything = {file: mutants_of(TOP, file) for file in files}
    chosen = {file: sample(mutants, number, seed) for file, mutants in everything.items()}
    reach = reach_of(area)
    reach.max_seconds = seconds
    saved = TOP / ".mutation" / f"caught-{area.replace('/', '.')}.json"
    caught: dict[str, str] = json.loads(saved.read_text()) if saved.exists() else {}
    verdicts: dict[str, list[tuple[Mutant, Verdict]]] = defaultdict(list)
    waiting: list[Mutant] = []
    for file, mutants in chosen.items():
        for mutant in mutants:
            if again and mutant.digest in caught:
                verdicts[file].append((mutant, "noticed"))
            elif again and is_listed(mutant, listed):
                verdicts[file].append((mutant, "survived"))
            else:
                waiting.append(mutant)
    rows: list[dict[str, object]] = []

    def finish(file: str) -> None:
        rows.append(_report(file, verdicts[file], len(everything[file]), seed, listed))

    def tell(mutant: Mutant, verdict: Verdict, test: str) -> None:
        if verdict != "survived":
            caught[mutant.digest] = test
            if len(caught) % 20 == 0:
                saved.write_text(json.dumps(caught))
        if verdict == "survived" and not is_listed(mutant, listed):
            print(
                f"  {mutant.file}:{mutant.line} {mutant.operator}\n    - {mutant.was}\n    + {mutant.becomes}",
                flush=True,
            )
        verdicts[mutant.file].append((mutant, verdict))
        if len(verdicts[mutant.file]) == len(chosen[mutant.file]):
            finish(mutant.file)

    for file in files:
        if len(verdicts[file]) == len(chosen[file]):
            finish(file)
    judge(TOP, waiting, reach, tell, dict(caught))
    saved.write_text(json.dumps(caught))
    return rows


def _report(
    file: str,
    results: list[tuple[Mutant, Verdict]],
    mutants: int,
    seed: int,
    listed: Survivors,
) -> dict[str, object]:
    """Print a file's score and return its row."""
    survivors = [mutant for mutant, verdict in results if verdict == "survived"]
    equivalent = [mutant for mutant in survivors if is_listed(mutant, listed)]
    counted = len(results) - len(equivalent)
    noticed = len(results) - len(survivors)
    row = {
        "file": file,
        "mutants": mutants,
        "run": len(results),
        "noticed": noticed,
        "timed_out": sum(verdict == "timed out" for _, verdict in results),
        "equivalent": len(equivalent),
        "unlisted": len(survivors) - len(equivalent),
        "percent": round(100 * noticed / counted, 1) if counted else 100.0,
        "seed": None if len(results) == mutants else seed,
    }
    print(
        f"{file}: {row['percent']} % of {counted} noticed ({len(results)} run of {mutants}, "
        f"{row['timed_out']} timed out, {len(equivalent)} equivalent)"
    )
    kept = {mutant.key for mutant in survivors}
    for mutant, verdict in results:
        if mutant.key in listed and mutant.key not in kept:
            row["wrongly_listed"] = True
            print(f"  {file}:{mutant.line}: listed as equivalent, but {verdict}: {mutant.becomes}")
    sys.stdout.flush()
    return row


def table(rows: Sequence[Mapping[str, int | str | float | None]]) -> str:
    """Return the scores of the areas as a table in Markdown."""
    lines = [
        "| package | files | mutants | run | noticed | equivalent | left | score |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for area in AREAS:
        own = [row for row in rows if Path(str(row["file"])).is_relative_to(area) and row["run"]]
        total = {name: sum(int(row[name] or 0) for row in own) for name in ("mutants", "run", "noticed", "equivalent")}
        counted = total["run"] - total["equivalent"]
        if counted:
            numbers = [
                len(own),
                *total.values(),
                counted - total["noticed"],
                f"{100 * total['noticed'] / counted:.1f} %",
            ]
            lines.append(f"| `{area}` | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Mutation testing of the package.")
    parser.add_argument("--file", action="append", help="a file to mutate (may be repeated); default: all")
    parser.add_argument("--area", choices=AREAS, help="mutate the files of one area")
    parser.add_argument("--sample", type=int, metavar="N", help="run N random mutants of each file; default: all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default 1)")
    parser.add_argument(
        "--again",
        action="store_true",
        help="skip the mutants that were noticed before, and those that are listed as equivalent",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=MAX_TEST_SECONDS,
        help="processor time of one mutant's tests (default %(default)s)",
    )
    parser.add_argument("--record", action="store_true", help="write the scores into results.json")
    parser.add_argument("--table", action="store_true", help="run nothing, and print results.json as a table")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads((HERE / "results.json").read_text())))
        return 0
    rows: list[dict[str, object]] = []
    for area in AREAS:
        files = files_of(area)
        if options.file:
            files = [file for file in options.file if Path(file).is_relative_to(area)]
        elif options.area not in (None, area):
            continue
        if files:
            rows += run(area, files, options.sample, options.seed, options.again, options.seconds)
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
    return 1 if poor or any(row["unlisted"] or "wrongly_listed" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
