"""The parts of a server that all its requests use."""

from __future__ import annotations

import logging
from typing import Final

import attrs
import trio

from ...records import define
from ...report import RateLimitedLogger, get_logger
from ...worker import Worker
from .kept_bytes import KeptBytes

_READ: Final = 262_144
LOGGER: Final = get_logger("iii_trio.http")


@define(eq=False)
class Shared:
    """The worker that makes the calls, the log, and the bytes that are kept."""

    worker: Worker
    kept: KeptBytes = attrs.field(factory=KeptBytes)
    buffer: memoryview = attrs.field(factory=lambda: memoryview(bytearray(_READ)))
    """The buffer into which all connections read. Nothing waits between a read and its copy."""
    _log: RateLimitedLogger = attrs.field(factory=lambda: RateLimitedLogger("iii-http", LOGGER))

    def log(self, level: int, text: str, function_id: str) -> None:
        """Write a line about a route. Clients and workers cause such lines, so they are bounded, and shown safely."""
        self._log.log(trio.current_time(), level, text, {"function": function_id}, peer_controlled=True)

    def warn(self, text: str, function_id: str) -> None:
        """Write a warning about a route."""
        self.log(logging.WARNING, text, function_id)
