"""Every code block of the README and of docs/ runs, or is marked with the reason why it does not.

A comment before a block says how it is meant:

    <!-- not run: the reason -->            the block is shown only
    <!-- fragment -->                       a piece of Python, run beside an engine and two workers
    <!-- fragment: from __future__ … -->    the same, behind these lines

Without a comment, Python runs as a program, console commands run against an engine with `examples/files_worker.py`, and
YAML is read as a configuration file.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

import iii_trio
from iii_trio.config.file import read_config
from iii_trio.triggers.table import MODULES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIAL = ROOT / "docs" / "testing.md"
"""Its Python is that of examples/testing. tests/test_tutorial.py holds that and runs it."""
SHOWN_ONLY = {"javascript", "ini", "text", "diff", "mermaid"}
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|fragment)(?::\s(?P<text>.*?))?\s*-->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
ENGINE_COMMAND = re.compile(r"iii-trio(?: --config \S+)?$")


@attrs.frozen
class Block:
    """One code block of a page."""

    page: Path
    line: int
    language: str
    code: str
    mark: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        yield Block(page, line, found["language"], found["code"], found["mark"], found["text"] or "")


BLOCKS = [block for page in PAGES if page.exists() for block in read_blocks(page)]
PYTHON = [
    block for block in BLOCKS if block.language == "python" and block.page != TUTORIAL and block.mark != "not run"
]
CONSOLE = [block for block in BLOCKS if block.language == "console" and block.mark != "not run"]
INSTALLS = [block for block in CONSOLE if "pip install" in block.code]


def test_every_block_runs_or_says_why_not() -> None:
    unknown = {block.language for block in BLOCKS} - SHOWN_ONLY - {"python", "console", "yaml"}
    assert not unknown
    marked = [block for block in BLOCKS if block.mark == "not run"]
    assert [str(block) for block in marked if not block.text] == [], "say why"
    # Raise a number only for a block that cannot run here: it needs another machine, another SDK, or an hour.
    assert Counter(block.language for block in marked) == {"python": 5, "console": 20}


def program(block: Block, folder: Path) -> list[str]:
    path = folder / "block.py"
    path.write_text(f"{block.text}\n{block.code}" if block.mark == "fragment" else block.code)
    if block.mark == "fragment":
        return [sys.executable, "-m", "tests.helpers.run_fragment", str(path)]
    return [sys.executable, str(path)]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs(block: Block, tmp_path: Path) -> None:
    moved = attrs.evolve(block, code=block.code.replace("/var/lib/shop", str(tmp_path / "shop")))
    command = program(moved, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert ran.returncode == 0, ran.stderr
    if block.mark is None:
        assert ran.stdout, "a program shows something"


def commands(block: Block) -> list[str]:
    """The commands of a block, without comments. What would not end by itself is asked once instead."""
    lines = [shlex.join(shlex.split(line[2:], comments=True)) if "&&" not in line else line[2:]
             for line in block.code.splitlines() if line.startswith("$ ")]  # fmt: skip
    return [line.replace(" --watch", "") for line in lines if not ENGINE_COMMAND.match(line)]


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `iii-trio` and `python` are those of this test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, call in {"iii-trio": "-m iii_trio", "python": ""}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {call} "$@"\n')
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


async def run_script(lines: list[str], folder: Path, environment: dict[str, str], seconds: float) -> str:
    with trio.fail_after(seconds):
        ran = await trio.run_process(
            ["bash", "-ec", "\n".join(lines)], cwd=folder, env=environment,
            capture_stdout=True, capture_stderr=True, check=False,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout.decode()


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in CONSOLE if block not in INSTALLS], ids=str)
async def test_commands_run(block: Block, tmp_path: Path, shell: dict[str, str]) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    shutil.copy(ROOT / "README.md", folder)
    async with iii_trio.open_engine() as engine, trio.open_nursery() as nursery:
        [address] = await engine.listen(iii_trio.Listener("127.0.0.1", 0))
        environment = {**shell, "III_URL": str(address)}
        lines = [line.replace("ws://127.0.0.1:49134", str(address)) for line in commands(block)]
        assert lines
        worker: trio.Process = await nursery.start(start_files_worker, folder, environment)
        with trio.fail_after(30):
            assert worker.stdout is not None
            assert b"can be called" in await worker.stdout.receive_some()
        out = await run_script(lines, folder, environment, 300)
        if block.page.name == "README.md":
            assert '"lines"' in out and (folder / "copy.md").read_bytes() == (ROOT / "README.md").read_bytes()
        nursery.cancel_scope.cancel()


async def start_files_worker(
    folder: Path, environment: dict[str, str], task_status: trio.TaskStatus[trio.Process]
) -> None:
    """Run the example until cancelled."""
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[trio.Process]) -> None:
            await trio.run_process(
                [sys.executable, str(ROOT / "examples" / "files_worker.py")], cwd=folder, env=environment,
                stdout=subprocess.PIPE, check=False, task_status=task_status,
            )  # fmt: skip

        task_status.started(await nursery.start(run))


@pytest.mark.slow
@pytest.mark.parametrize("block", INSTALLS, ids=str)
async def test_the_installation_runs(block: Block, tmp_path: Path, shell: dict[str, str]) -> None:
    """Everything from nothing, in a copy of the checkout, with an environment of its own."""
    listed = await trio.run_process(["git", "ls-files"], cwd=ROOT, capture_stdout=True)
    for name in listed.stdout.decode().split():
        if (ROOT / name).is_file():
            (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "copy" / name)
    alone = {name: value for name, value in shell.items() if name != "PYTHONPATH"}
    out = await run_script(commands(block), tmp_path / "copy", alone, 500)
    if "iii-trio demo" in block.code:
        assert "writer_lost" in out


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "yaml" and block.mark != "not run"], ids=str
)
def test_configurations_are_read(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(block.code)
    read_config(path, modules=MODULES)
