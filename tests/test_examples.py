"""Every example runs, as a reader of the README would run it, and says what it promises to show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

SHOWS = {
    "duplex.py": ["STRUCTURED CONCURRENCY!", "that was all", "{'lines': 2}"],
    "file_download.py": ["5,120,000 bytes arrived; the same", "no_such_file"],
    "http_site.py": ["a range: b'world'", "an upload: b'{\"bytes\":1000000}'", 'data: {"tick":1}'],
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


def test_no_example_is_forgotten_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SHOWS, *SERVES}


@pytest.mark.parametrize("name", sorted(SHOWS))
def test_the_example_runs(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    for words in SHOWS[name]:
        assert words in ran.stdout
