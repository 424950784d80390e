"""The fixtures work in a program's own tests, and cost a test run that does not use them nothing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import iii_trio_pytest

PROJECT = Path(__file__).parents[2]

USER_TEST = """
import trio

async def test_a_stream(iii_clock, iii_engine, iii_worker):
    async with iii_worker.create_channel() as channel:
        async with channel.writer as writer:
            await writer.send(b"hello")
        assert await channel.reader.read_all() == b"hello"
    await trio.sleep(1_000)
    assert trio.current_time() == 1_000
    assert iii_engine.statistics().sessions == 1
"""


def run(path: Path, test: str) -> subprocess.CompletedProcess[str]:
    (path / "test_user.py").write_text(test)
    (path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_plugin(), str(path)],
        cwd=path,
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def _plugin() -> list[str]:
    """Where the project is not installed, its entry point is not seen."""
    from importlib.metadata import entry_points

    installed = any(point.value == "iii_trio_pytest" for point in entry_points(group="pytest11"))
    return [] if installed else ["-p", "iii_trio_pytest"]


def test_a_users_test_gets_an_engine_a_worker_and_a_clock(tmp_path: Path) -> None:
    result = run(tmp_path, USER_TEST)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_run_that_uses_no_fixture_does_not_import_the_package(tmp_path: Path) -> None:
    result = run(tmp_path, "import sys\n\ndef test_it():\n    assert 'iii_trio' not in sys.modules\n")
    assert result.returncode == 0, result.stdout + result.stderr


def test_without_pytest_trio_a_fixture_names_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest_trio", None)  # an import fails then
    monkeypatch.setattr(pytest, "fixture", lambda name: lambda function: function)

    async def iii_engine() -> None:
        pass

    with pytest.raises(pytest.fail.Exception) as caught:
        iii_trio_pytest._async_fixture(iii_engine)()
    assert str(caught.value) == "the fixture iii_engine needs pytest-trio: pip install 'iii-trio[testing]'"
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(each.startswith("pytest-trio") for each in extras["testing"])
