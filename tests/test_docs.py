"""What the documents say of the code is so."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import iii_trio

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_lifecycles_are_drawn_from_todays_tables() -> None:
    spec = importlib.util.spec_from_file_location("draw_lifecycles", ROOT / "docs" / "draw_lifecycles.py")
    assert spec is not None and spec.loader is not None
    drawer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawer)
    assert (ROOT / "docs" / "lifecycles.md").read_text() == drawer.drawings(), "run python docs/draw_lifecycles.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text())
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing


def test_every_public_name_is_exported_once_and_has_a_docstring() -> None:
    assert sorted(set(iii_trio.__all__)) == sorted(iii_trio.__all__)
    without = [name for name in iii_trio.__all__ if not (getattr(iii_trio, name).__doc__ or "").strip()]
    assert not without


def test_the_public_names_are_these() -> None:
    assert set(iii_trio.__all__) == {
        "AttachRefused", "BoundTrigger", "CallError", "CallInfo", "Channel", "ChannelBroken",
        "ChannelDefaults", "ChannelReader", "ChannelResult", "ChannelWriter", "ConfigError",
        "ConnectionFailed", "TriggerBinding",
        "Engine", "EngineConfig", "EngineStatistics", "IIIError", "Limits", "ListenFailed", "Listener", "ListenerLimits",
        "MisuseError", "ModuleFailed", "Outcome", "Timeouts", "PeerError", "QueueConfig", "QueueSettings", "Queues",
        "Receipt", "Ref", "Rejected", "StorageError", "TriggerType", "Worker", "current_call", "duplex", "enqueue",
        "find_refs", "open_engine", "open_worker", "register_type", "serve_engine",
    }  # fmt: skip


def test_the_names_that_users_of_iiis_sdk_are_given_exist() -> None:
    page = (ROOT / "docs" / "sdks.md").read_text()
    rows = re.findall(r"^\| [^|]*\| ([^|]+) \|[^|]*\|$", page.partition("## From iii's Python SDK")[2], re.MULTILINE)
    named = re.findall(r"\b(iii_trio|worker|channel\.writer|channel\.reader)\.(\w+)", " ".join(rows))
    homes = {
        "iii_trio": iii_trio, "worker": iii_trio.Worker, "channel.writer": iii_trio.ChannelWriter,
        "channel.reader": iii_trio.ChannelReader,
    }  # fmt: skip
    assert len(named) > 15 and [name for home, name in named if not hasattr(homes[home], name)] == []


def test_the_readme_is_short_and_begins_with_the_two_commands_and_the_picture() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    first_screen = "\n".join(lines[:30])
    assert "pip install ." in first_screen and "iii-trio demo" in first_screen and "docs/demo.svg" in first_screen


def test_the_project_stands_alone() -> None:
    """Nothing refers to what lies outside of the repository."""
    outside = re.compile(r"\.\./(?:shared|\.library)|/work/|/tmp/venv")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    wrong = []
    for name in listed:
        path = ROOT / name
        if path == Path(__file__) or not path.is_file() or path.suffix in (".png", ".svg"):
            continue
        if outside.search(path.read_text(errors="ignore")):
            wrong.append(name)
    assert not wrong


def test_the_readme_has_no_relative_link_on_an_index_page() -> None:
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"][
        "fancy-pypi-readme"
    ]
    text = (ROOT / "README.md").read_text()
    for substitution in hook["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)
    assert "demo.svg" not in text
    assert "`docs/channels.md`" in text and "[Trio](https://trio.readthedocs.io)" in text
    assert not [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
