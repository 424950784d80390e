"""OpenTelemetry's own exporters (OTLP over HTTP, protobuf) of spans, lines and measurements, and whether they are wanted."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from ...errors import ConfigError
from .otel_records import to_lines, to_metrics, to_spans
from .settings import Exporter, ExportSettings, ObservabilityConfig

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_DISABLED: Final = "OTEL_SDK_DISABLED"
_PACKAGE: Final = "opentelemetry.exporter.otlp.proto.http"


class OtelExporter(Protocol):
    """The parts of OpenTelemetry's exporters that are used."""

    def export(self, records: Any) -> Any:
        """Send records, and return whether they were taken. Blocks."""

    def shutdown(self) -> None:
        """End, and interrupt the pauses between repetitions."""


class Signal(msgspec.Struct, frozen=True):
    """A kind of records, with what its export needs."""

    name: str
    """Its name in the path of a collector and, in capitals, in OpenTelemetry's variables."""
    records: str
    """Its records, for people."""
    convert: Callable[[Sequence[Any]], Any]
    """Returns records in the form that the exporter takes."""
    place: tuple[str, str]
    """The module and the class of the exporter."""
    wish: Callable[[ObservabilityConfig], tuple[bool, Exporter]]
    """Returns from the settings whether there are such records, and where they go."""


TRACES: Final = Signal(
    "traces", "spans", to_spans, ("trace_exporter", "OTLPSpanExporter"), lambda config: (True, config.exporter)
)
LOGS: Final = Signal(
    "logs",
    "lines",
    to_lines,
    ("_log_exporter", "OTLPLogExporter"),
    lambda config: (config.logs_enabled, config.logs_exporter),
)
METRICS: Final = Signal(
    "metrics",
    "measurements",
    to_metrics,
    ("metric_exporter", "OTLPMetricExporter"),
    lambda config: (config.metrics_enabled, config.metrics_exporter),
)
SIGNALS: Final = (TRACES, LOGS, METRICS)


def wants_export(signal: Signal, config: ObservabilityConfig, environ: Mapping[str, str]) -> bool:
    """Return whether records are to be exported, as the settings and the environment say."""
    enabled, wish = signal.wish(config)
    if environ.get(_DISABLED, "").lower() == "true" or not enabled or wish == "memory":
        return False
    # An endpoint in the file is a wish to export, also without `exporter`.
    if wish in ("otlp", "both") or config.export.endpoint is not None:
        return True
    capitals = signal.name.upper()
    if environ.get(f"OTEL_{capitals}_EXPORTER", "").lower() == "none":
        return False
    return bool(environ.get(_ENDPOINT) or environ.get(f"OTEL_EXPORTER_OTLP_{capitals}_ENDPOINT"))


def new_exporter(signal: Signal, settings: ExportSettings) -> OtelExporter:
    """Make OpenTelemetry's exporter. Raises ConfigError if it is not installed."""
    module, name = signal.place
    try:
        found = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name)
    except ImportError:
        raise ConfigError(
            f"{signal.name} cannot be exported, because OpenTelemetry's exporter is missing: install `iii-trio[otel]`"
        ) from None
    # Without any handler Python writes its lines to stderr as they are. What matters of them is in our own log.
    logging.getLogger("opentelemetry.exporter").addHandler(logging.NullHandler())
    endpoint = f"{settings.endpoint.rstrip('/')}/v1/{signal.name}" if settings.endpoint is not None else None
    headers = dict(settings.headers) if settings.headers is not None else None
    # What is not given here the exporter reads from its variables, such as OTEL_EXPORTER_OTLP_TIMEOUT.
    exporter: OtelExporter = found(endpoint=endpoint, headers=headers)
    return exporter
