"""The world of the clauses: an engine in virtual time, checked to hold nothing once everybody has gone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from clause_world import ENDS, Open, World, open_world


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


@pytest.fixture(params=ENDS)
def writing(request: pytest.FixtureRequest) -> str:
    """Where the writer is."""
    return str(request.param)


@pytest.fixture(params=ENDS)
def reading(request: pytest.FixtureRequest) -> str:
    """Where the reader is."""
    return str(request.param)
