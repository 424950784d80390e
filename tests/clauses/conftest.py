"""The world of the clauses: an engine in virtual time, checked to hold nothing once everybody has gone."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from tests.helpers.clause_world import ENDS, IN_PROCESS, WAITED, WEBSOCKET, Open, World, open_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock), "the test itself must ask for autojump_clock"
    async with open_world() as world:
        yield world


@pytest.fixture
def opening() -> Open:
    """For an engine with a configuration of its own: `async with opening(config) as world`."""
    return open_world


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Where the writer is (`writing`), and where the reader is (`reading`): all pairs that differ in kind."""
    asked = [name for name in ("writing", "reading") if name in metafunc.fixturenames]
    if len(asked) == 2:
        pairs = [*itertools.product((IN_PROCESS, WEBSOCKET), repeat=2), (WAITED, WAITED)]
        metafunc.parametrize(asked, pairs, ids=["-".join(pair) for pair in pairs])
    elif asked and not any(asked[0] in str(mark.args[:1]) for mark in metafunc.definition.iter_markers("parametrize")):
        metafunc.parametrize(asked[0], ENDS)
