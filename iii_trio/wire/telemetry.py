"""Telemetry of SDKs: binary messages that begin with four letters for their kind. What follows is read by a module."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Telemetry(StrEnum):
    """The kinds of telemetry, named like the requests of OTLP."""

    SPANS = "resourceSpans"
    METRICS = "resourceMetrics"
    LOGS = "resourceLogs"


_KINDS: Final = {b"OTLP": Telemetry.SPANS, b"MTRC": Telemetry.METRICS, b"LOGS": Telemetry.LOGS}


def telemetry_kind(message: bytes | bytearray) -> Telemetry | None:
    """Return the kind of a message of telemetry, or None for any other message."""
    return _KINDS.get(bytes(message[:4]))
