"""The tutorial in docs/testing.md is true: its code is that of examples/testing, its bug is found, its fix is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from iii_trio import testing
from iii_trio.testing import strategies

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "testing"
PAGE = (ROOT / "docs" / "testing.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The examples, where a reader has copied them to."""
    for path in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.recording")):
        shutil.copy(path, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")
    return tmp_path


def run(folder: Path, test: str) -> subprocess.CompletedProcess[str]:
    from importlib.metadata import entry_points

    installed = any(point.value == "iii_trio_pytest" for point in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "iii_trio_pytest"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "--tb=short", "--show-capture=no", "--hypothesis-seed=0", test],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_snippet_is_in_the_examples() -> None:
    code = [path.read_text() for path in EXAMPLES.glob("*.py")]
    assert blocks("python")
    assert [snippet for snippet in blocks("python") if not any(snippet in text for text in code)] == []


@pytest.mark.slow
def test_the_bug_is_found_and_its_shrunk_history_is_the_one_shown(folder: Path) -> None:
    result = run(folder, "test_archive.py")
    assert result.returncode == 1, result.stdout + result.stderr
    printed = re.sub(r"([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f-]{22}", r"\1…", result.stdout).splitlines()
    lines = iter(line.removeprefix("E   ").rstrip() for line in printed)
    [shown] = blocks("text")
    missing = [
        line for line in shown.splitlines() if line not in lines
    ]  # in this order: each search goes on from the last
    assert missing == [], result.stdout


@pytest.mark.slow
def test_with_the_fix_that_is_shown_the_property_holds(folder: Path) -> None:
    [fix] = blocks("diff")
    before, after = ("".join(line[1:] for line in fix.splitlines(keepends=True) if line[0] == sign) for sign in "-+")
    program = (folder / "archive.py").read_text()
    assert program.count(before) == 1
    (folder / "archive.py").write_text(program.replace(before, after))
    result = run(folder, "test_archive.py")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_a_recording_becomes_a_regression_test(folder: Path) -> None:
    result = run(folder, "test_recorded.py")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_the_other_tools_work_as_they_are_shown(folder: Path) -> None:
    result = run(folder, "test_more.py")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_reference_names_everything_public() -> None:
    reference = PAGE.partition("## Reference")[2]
    assert [name for name in testing.__all__ if not re.search(rf"`(?:await )?{name}\b", reference)] == []


@pytest.mark.parametrize("kind", [testing.World, testing.Network], ids=lambda kind: kind.__name__)
def test_the_reference_names_every_method(kind: type) -> None:
    names = [name for name in vars(kind) if not name.startswith("_")]
    assert [name for name in names if not re.search(rf"`{name}\b", PAGE)] == []


def test_the_reference_names_every_condition_and_strategy() -> None:
    drawn = [name for name, what in vars(strategies).items() if getattr(what, "__module__", "") == strategies.__name__]
    names = [field.name for field in attrs.fields(testing.Conditions)] + drawn
    assert [name for name in names if not re.search(rf"`{name}\b", PAGE)] == []
