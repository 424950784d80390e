"""docs/glossary.md names each term once, at the place where the code has it, and misses no core term."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import iii_trio

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "iii_trio"
ROW = re.compile(r"^\| ([^|]+?) \| ([^|]+?) \| `([\w/]+\.py)` `([\w.]+)` \|$", re.MULTILINE)
TERMS = ROW.findall((ROOT / "docs" / "glossary.md").read_text())
NOT_TERMS = {"Refused", "NameWaiter", "ConnectionState", "ConnectionEvent", "HeartbeatTarget", "InProcess", "Listeners",
             "LocalWriter", "LocalReader", "AttachedEnd", "BaggageKey", "BaggageEntry",
             "LostSession", "RunInThread", "NothingRecorded"}  # fmt: skip
"""Classes of `core/` and `engine/` that are parts of a term, or are explained by their file."""


def names_in(path: Path) -> set[str]:
    """The classes, functions and type aliases of a file, and `Class.member` for what stands in a class."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(f"{node.name}.{inner.name}")
            elif isinstance(inner, ast.Assign) and isinstance(inner.targets[0], ast.Name):
                names.add(f"{node.name}.{inner.targets[0].id}")
    return names


def test_each_row_is_read_and_each_term_stands_once() -> None:
    rows = [line for line in (ROOT / "docs" / "glossary.md").read_text().splitlines() if line.startswith("| ")]
    headings = sum(line.startswith("| Term") for line in rows)
    assert len(TERMS) == len(rows) - headings
    twice = [
        what for column in (0, 3) for what, count in Counter(row[column].lower() for row in TERMS).items() if count > 1
    ]
    # Two files may each have a class of one name only if the terms differ.
    assert [what for what in twice if what not in {"channelresult"}] == []


@pytest.mark.parametrize(("term", "meaning", "file", "name"), TERMS, ids=[row[0] for row in TERMS])
def test_the_term_is_in_the_code(term: str, meaning: str, file: str, name: str) -> None:
    assert name in names_in(PACKAGE / file)


def test_every_public_class_of_users_is_a_term_or_an_error() -> None:
    classes = {name for name in iii_trio.__all__ if isinstance(getattr(iii_trio, name), type)}
    errors = {name for name in classes if issubclass(getattr(iii_trio, name), iii_trio.IIIError)}
    assert classes - errors - {row[3] for row in TERMS} == set()


def test_every_noun_of_the_core_and_the_engine_is_a_term() -> None:
    effects = names_in(PACKAGE / "core" / "effects.py")
    missing = []
    for folder in ("core", "engine"):
        for path in sorted((PACKAGE / folder).glob("*.py")):
            classes = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
            for name in classes:
                # Inputs, states and events are explained by the tables and functions that they belong to.
                part = re.search(r"^_|Input$|State$|Event$|^List|^Describe", name) and name != "State"
                if not part and name not in effects | NOT_TERMS | {row[3] for row in TERMS}:
                    missing.append(f"{path.relative_to(PACKAGE)} {name}")
    assert missing == [], "add them to docs/glossary.md"
