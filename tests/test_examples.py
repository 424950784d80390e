"""Every example runs, as a reader of the README would run it, and says what it promises to show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

SHOWS = {
    "duplex.py": ["STRUCTURED CONCURRENCY!", "that was all", "{'lines': 2}"],
    "file_download.py": ["5,120,000 bytes arrived; the same", "no_such_file"],
    "external_function.py": ["the next tide: {'harbour': 'brest', 'height': 6.1}"],
    "http_download.py": ["resumed with 206: 10,240,000 bytes", "unchanged: 304, 0 bytes", "no such file: 404"],
    "http_events.py": ["event 3: ", "the client left, and the handler was cancelled", "event 4: "],
    "http_upload.py": ['{"file":"tides.bin","bytes":10000000}', "30,000,000 bytes: 413", '"bytes":5000000}'],
    "large_upload.py": ["'bytes': 13107200", "aborted: the disk could not be read", "the caller got: the disk"],
    "progress.py": ["30 of 30", "reader_cancelled"],
    "retrying_queue.py": [
        "rent, attempt 3: booked",
        "ada's in their order: ['rent', 'tea']",
        "a dead letter: no_paper: the printer has no paper (after 3 calls)",
        "mended, and tried again: printer",
    ],
}

SERVES = {"files_worker.py"}
"""Run until they are stopped. tests/test_code_blocks.py runs the README's commands against them."""


def _one_sentence(name: str, **variables: str) -> str:
    """Run an example that has to fail, and return the only line that it says."""
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    (sentence,) = ran.stderr.splitlines()
    return sentence


def test_no_example_is_forgotten_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SHOWS, *SERVES}


@pytest.mark.parametrize("name", sorted(SERVES))
def test_an_example_without_its_engine_ends_with_one_sentence(name: str) -> None:
    sentence = _one_sentence(name, III_URL="ws://127.0.0.1:1")
    assert "127.0.0.1:1" in sentence and "start `iii-trio`" in sentence


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("external_function.py", "httpcore2", "external"), ("http_upload.py", "multipart", "http")],
)
def test_an_example_without_its_extra_ends_with_one_sentence(
    name: str, package: str, extra: str, tmp_path: Path
) -> None:
    # Python loads this module at its start, and finds the package no more, as if it were not installed.
    hide = f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError(name, name=name)

find = __import__("importlib.util").util.find_spec
__import__("importlib.util").util.find_spec = lambda name, *more: None if name == {package!r} else find(name, *more)
sys.meta_path.insert(0, Hidden())
"""
    (tmp_path / "sitecustomize.py").write_text(hide)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    sentence = _one_sentence(name, PYTHONPATH=os.pathsep.join(paths))
    assert f"pip install 'iii-trio[{extra}]'" in sentence


@pytest.mark.parametrize("name", sorted(SHOWS))
def test_the_example_runs(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    for words in SHOWS[name]:
        assert words in ran.stdout
