"""The test kit finds bugs: each defect of `planted.py` is planted in a copy of the package and caught within seconds.

`hunt.py` has the hunts that find them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from typing import get_args

import attrs
import pytest
import trio

from tests.defects.planted import DEFECTS, Defect, Hunt, NotPlanted

HERE = Path(__file__).parent
PACKAGE = HERE.parent.parent / "iii_trio"
HUNTS: tuple[str, ...] = get_args(Hunt)
MAX_SECONDS = 120.0


@attrs.frozen
class Hunted:
    """What a hunt came to."""

    exit_code: int
    said: str
    seconds: float


async def hunt(name: str, copy: Path) -> Hunted:
    """Run a hunt at a copy of the package."""
    began = trio.current_time()
    with trio.move_on_after(MAX_SECONDS):
        done = await trio.run_process(
            [sys.executable, str(HERE / "hunt.py"), name],
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=copy,
            stdin=DEVNULL,
            capture_stdout=True,
            stderr=STDOUT,
            check=False,
        )
        return Hunted(done.returncode, (done.stdout or b"").decode(), trio.current_time() - began)
    return Hunted(-1, "it was not over", MAX_SECONDS)


def copy_of_the_package(folder: Path, defect: Defect | None) -> None:
    """Copy the package, with a defect. Raises NotPlanted."""
    shutil.copytree(PACKAGE, folder / "iii_trio", ignore=shutil.ignore_patterns("__pycache__"))
    if defect is not None:
        changed = defect.plant(folder / "iii_trio")
        compile(changed.read_text(), str(changed), "exec")  # a defect that is not Python would be caught by any hunt


@pytest.fixture(scope="module")
def hunted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Hunted | BaseException]:
    """Return the results of hunting every defect, and none, by name. The first use hunts all, two at a time."""
    results: dict[str, Hunted | BaseException] = {}
    limit = trio.CapacityLimiter(2)

    async def one(key: str, name: str, defect: Defect | None) -> None:
        async with limit:
            folder = tmp_path_factory.mktemp(key)
            try:
                copy_of_the_package(folder, defect)
                results[key] = await hunt(name, folder)
            except Exception as error:
                results[key] = error

    async def everything() -> None:
        async with trio.open_nursery() as nursery:
            for name in HUNTS:
                nursery.start_soon(one, name, name, None)
            for defect in DEFECTS:
                nursery.start_soon(one, defect.name, defect.hunt, defect)

    trio.run(everything)
    return results.__getitem__


def result(hunted: Callable[[str], Hunted | BaseException], key: str) -> Hunted:
    found = hunted(key)
    if isinstance(found, BaseException):
        raise AssertionError(f"{key} was not planted") from found
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)  # the first test waits for all hunts
@pytest.mark.parametrize("name", HUNTS)
def test_without_a_defect_nothing_is_found(name: str, hunted: Callable[[str], Hunted | BaseException]) -> None:
    found = result(hunted, name)
    assert found.exit_code == 0, found.said


@pytest.mark.slow
@pytest.mark.timeout(1200)  # the first test waits for all hunts
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_caught(defect: Defect, hunted: Callable[[str], Hunted | BaseException]) -> None:
    found = result(hunted, defect.name)
    assert found.exit_code == 1, f"after {found.seconds:.1f} s: {found.said}"
    assert "the shortest:" in found.said, found.said
    assert found.seconds < MAX_SECONDS
    print(f"{defect.effect}\ncaught in {found.seconds:.1f} s; {found.said}")


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_can_be_planted_in_the_code_of_today(defect: Defect, tmp_path: Path) -> None:
    copy_of_the_package(tmp_path, defect)


def test_each_hunt_finds_defects_of_its_own() -> None:
    """Each of the four kinds of test is needed: without it, defects would go unnoticed."""
    hunts = Counter(defect.hunt for defect in DEFECTS)
    assert {hunt: hunts[hunt] >= 3 for hunt in HUNTS} == dict.fromkeys(HUNTS, True)
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS)


def planted(folder: Path, old: str, text: str) -> str:
    (folder / "code.py").write_text(text)
    Defect("some", "Something is wrong.", "frames", old, "new(\n    1,\n)").plant(folder)
    return (folder / "code.py").read_text()


def test_a_piece_is_found_whatever_its_line_breaks(tmp_path: Path) -> None:
    text = "if x:\n    old(\n        a,\n        b,\n    )\n"
    assert planted(tmp_path, "old(a, b)", text) == "if x:\n    new(\n        1,\n    )\n"


@pytest.mark.parametrize("text", ["other(a)\n", "old(a)\nold( a )\n", "old(aa)\n"])
def test_a_piece_that_is_not_there_exactly_once_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(NotPlanted, match="not once"):
        planted(tmp_path, "old(a)", text)
