"""pytest fixtures for programs that use channels; found by pytest through an entry point.

`iii_clock`
    A virtual clock that jumps: time passes only when everybody waits for it. pytest-trio makes it the test's clock.
`iii_engine`
    An engine in the test's process, in memory.
`iii_worker`
    A worker of that engine.

A module of its own, beside the package, because every pytest run imports it: it imports nothing of the package before a
fixture is asked for. Needs pytest-trio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from iii_trio import Engine, Worker


def _async_fixture(function: Any) -> Any:
    """A fixture that pytest-trio runs; without pytest-trio it says so where it is asked for."""
    try:
        from pytest_trio import trio_fixture  # type: ignore[import-untyped]
    except ImportError:

        def fixture() -> None:
            pytest.fail(f"the fixture {function.__name__} needs pytest-trio: pip install 'iii-trio[testing]'")

        fixture.__doc__ = function.__doc__
        return pytest.fixture(name=function.__name__)(fixture)
    return trio_fixture(function)


@pytest.fixture
def iii_clock() -> Any:
    """A virtual clock that jumps: time passes only when everybody waits for it."""
    import trio.testing

    return trio.testing.MockClock(autojump_threshold=0)


@_async_fixture
async def iii_engine() -> AsyncIterator[Engine]:
    """An engine in this process, in memory; it ends with the test."""
    import iii_trio

    async with iii_trio.open_engine() as engine:
        yield engine


@_async_fixture
async def iii_worker(iii_engine: Engine) -> AsyncIterator[Worker]:
    """A worker of `iii_engine`; it leaves with the test."""
    async with iii_engine.open_worker("iii_worker") as worker:
        yield worker
