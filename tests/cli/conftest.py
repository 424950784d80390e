"""An engine in the test's own process for real `iii-trio` processes to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import iii_trio
from iii_trio.config import EngineConfig, Listener
from tests.helpers.cli_processes import Site


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where engines keep jobs that are told nothing else: not in the home of whoever runs the tests."""
    place = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    return place


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """An engine that listens at a port the system chose."""
    async with iii_trio.open_engine(EngineConfig(listeners=(Listener(port=0),))) as engine:
        (address,) = await engine.listen()
        yield Site(engine, str(address))
