"""Fixtures and rules for all tests: logging is restored after each test, and each test has a time limit."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator

import hypothesis
import pytest

from tests.helpers.time_limits import limited

SECONDS = 60
"""The limit of a test without a mark of its own."""
SLOW_SECONDS = 600
"""The limit of a test marked `slow` or `sdk`."""
TEARDOWN_SECONDS = 30
"""How long fixtures may take in addition."""


# A deadline of one example fails on a busy machine, and each test has a limit of its own.
hypothesis.settings.register_profile("iii-trio", deadline=None)
hypothesis.settings.load_profile("iii-trio")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Restore the package's logger, because the engine's command sends its log elsewhere."""
    logger = logging.getLogger("iii_trio")
    handlers, level, propagate, disabled = (
        logger.handlers[:],
        logger.level,
        logger.propagate,
        logging.root.manager.disable,
    )
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate
    logging.disable(disabled)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test two limits.

    Inside an async test a Trio deadline ends it in order and shows where its tasks wait. pytest-timeout ends everything
    else: synchronous code that hangs, and fixtures.
    """
    for item in items:
        if (own := item.get_closest_marker("timeout")) is not None:
            seconds = float(own.args[0]) - TEARDOWN_SECONDS
        else:
            slow = any(item.get_closest_marker(name) for name in ("slow", "sdk"))
            seconds = SLOW_SECONDS if slow else SECONDS
            item.add_marker(pytest.mark.timeout(seconds + TEARDOWN_SECONDS))
        if isinstance(item, pytest.Function):
            item.obj = limited(item.obj, seconds)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make each report's text readable to the process that runs the tests.

    Some tests log lone surrogates on purpose. pytest-xdist can send only what is UTF-8.
    """
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
