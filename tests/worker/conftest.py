"""A test that hangs fails: at the end of a virtual hour, or of ten real seconds where the clock is real."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and HERE in item.path.parents and inspect.iscoroutinefunction(item.obj):
            virtual = "autojump_clock" in item.fixturenames
            item.obj = _with_deadline(item.obj, 3600 if virtual else 10)


def _with_deadline(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(**arguments: Any) -> None:
        with trio.fail_after(seconds):
            await test(**arguments)

    return run
