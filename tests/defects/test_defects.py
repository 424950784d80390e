"""The test kit finds bugs: each `*.patch` here plants one in a copy of the package, and must be caught within seconds.

A patch begins with a sentence that says what is wrong, and names the hunt (`hunt.py`) that finds it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, STDOUT

import attrs
import pytest
import trio

HERE = Path(__file__).parent
PACKAGE = HERE.parent.parent / "iii_trio"
PATCHES = sorted(HERE.glob("*.patch"))
HUNTS = ("frames", "scripts", "conversations", "clauses")
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


async def copy_of_the_package(folder: Path, patch: Path | None) -> None:
    """Copy the package, with a patch. Raises CalledProcessError if the patch does not apply."""
    shutil.copytree(PACKAGE, folder / "iii_trio", ignore=shutil.ignore_patterns("__pycache__"))
    if patch is not None:
        apply = ["git", "apply", "--whitespace=nowarn", str(patch)]
        await trio.run_process(apply, cwd=folder, env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)})


def finder_of(patch: Path) -> str:
    found = re.search(r"^Found by: (\w+)$", patch.read_text(), re.MULTILINE)
    assert found, f"{patch.name} does not say which hunt finds it"
    return found[1]


@pytest.fixture(scope="module")
def hunted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Hunted | BaseException]:
    """What became of every patch, and of none, by name; all are hunted at the first use, two at a time."""
    results: dict[str, Hunted | BaseException] = {}
    limit = trio.CapacityLimiter(2)

    async def one(key: str, name: str, patch: Path | None) -> None:
        async with limit:
            folder = tmp_path_factory.mktemp(key)
            try:
                await copy_of_the_package(folder, patch)
                results[key] = await hunt(name, folder)
            except Exception as error:
                results[key] = error

    async def everything() -> None:
        async with trio.open_nursery() as nursery:
            for name in HUNTS:
                nursery.start_soon(one, name, name, None)
            for patch in PATCHES:
                nursery.start_soon(one, patch.stem, finder_of(patch), patch)

    trio.run(everything)
    return results.__getitem__


def result(hunted: Callable[[str], Hunted | BaseException], key: str) -> Hunted:
    found = hunted(key)
    if isinstance(found, BaseException):
        raise AssertionError(f"{key} does not apply any more") from found
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", HUNTS)
def test_without_a_defect_nothing_is_found(name: str, hunted: Callable[[str], Hunted | BaseException]) -> None:
    found = result(hunted, name)
    assert found.exit_code == 0, found.said


@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_defect_is_caught(patch: Path, hunted: Callable[[str], Hunted | BaseException]) -> None:
    found = result(hunted, patch.stem)
    assert found.exit_code == 1, f"after {found.seconds:.1f} s: {found.said}"
    assert "the shortest:" in found.said, found.said
    assert found.seconds < 30
    print(f"{patch.read_text().splitlines()[0]}\ncaught in {found.seconds:.1f} s; {found.said}")


def test_there_are_enough_of_them() -> None:
    assert len(PATCHES) >= 10
