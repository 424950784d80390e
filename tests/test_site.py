"""The documentation site builds without a warning, and its reference has every public name."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import iii_trio

ROOT = Path(__file__).parent.parent


def test_the_reference_has_every_public_name_at_its_place() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    named = re.findall(r"^::: (iii_trio[.\w]*)\.(\w+)$", page, re.MULTILINE)
    homes = {name: home for home, name in named}
    assert len(homes) == len(named), "each name once"
    assert {name: homes.get(name) for name in iii_trio.__all__} == {
        name: getattr(iii_trio, name).__module__ for name in iii_trio.__all__
    }
    # The page says that all others are importable from iii_trio.
    last_section = re.findall(r"^::: .*\.(\w+)$", page.rpartition("\n## ")[2], re.MULTILINE)
    assert set(homes) - set(iii_trio.__all__) == set(last_section)


def test_every_page_is_in_the_navigation() -> None:
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    named = set(re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert named - pages == set()
    # Each decision is reached from the list of decisions.
    assert {page for page in pages - named if not page.startswith("decisions/")} == set()


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("zensical is not installed: pip install '.[docs]'")
    config = (ROOT / "mkdocs.yml").read_text()
    assert "docs_dir: docs\nsite_dir: site\n" in config
    (tmp_path / "mkdocs.yml").write_text(config)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "iii_trio").symlink_to(ROOT / "iii_trio")
    ran = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", "mkdocs.yml"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    page = (tmp_path / "site" / "reference" / "index.html").read_text()
    assert "open_engine" in page and re.search(r"doc-label-async|>async<", page)
