"""What one test does to logging, the next one does not see: an engine's own command, say, sends its log elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
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
