"""The table of workarounds names every one of them."""

from __future__ import annotations

from pathlib import Path

from iii_trio import compat
from iii_trio.compat import message_splitter, sdk_limits

FOLDER = Path(compat.__file__).parent
TABLE = (FOLDER / "README.md").read_text()
HELPERS = {"SMALL_MESSAGE", "RUST", "RUST_DEPTH", "nests_deeper"}
"""Parts of workarounds that the table names by another name."""


def test_every_workaround_is_in_the_table() -> None:
    own = {name for name in vars(sdk_limits) if name.isupper() or callable(getattr(sdk_limits, name))}
    public = {name for name in own if not name.startswith("_") and name not in vars(message_splitter)}
    public -= {"LARGE_MESSAGES", "Final", "Set", "accumulate"}
    assert {name for name in public - HELPERS if f"`sdk_limits.{name}`" not in TABLE} == set()
    assert "`message_splitter.py`" in TABLE


def test_every_row_says_when_it_can_go() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("|")
    ]
    assert rows[0] == ["SDK", "versions", "defect", "what we do", "where", "remove it when"]
    assert len(rows) >= 7 and all(len(row) == 6 and all(row) for row in rows)
