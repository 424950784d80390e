"""Telemetry of SDKs, which is OTLP's JSON form behind four letters, in binary messages on `/otel` or a worker's socket.

The gauges of workers and the log records are read. Of spans only the outermost shape is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, TypeVar

import attrs
import msgspec
from msgspec import Raw

from ..errors import MessageError

MAX_BYTES: Final = 1024 * 1024
"""Bytes of a message that is read. SDKs batch by the hundred, and a larger message would hold up the engine."""
MAX_SPAN_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a message of spans. Skipping them is quick."""


class Telemetry(StrEnum):
    """The kinds of telemetry, named like the requests of OTLP."""

    SPANS = "resourceSpans"
    METRICS = "resourceMetrics"
    LOGS = "resourceLogs"


T = TypeVar("T")
_KINDS: Final = {b"OTLP": Telemetry.SPANS, b"MTRC": Telemetry.METRICS, b"LOGS": Telemetry.LOGS}


def telemetry_kind(message: bytes | bytearray) -> Telemetry | None:
    """Return the kind of a message of telemetry, or None for any other message."""
    return _KINDS.get(bytes(message[:4]))


@attrs.frozen
class Gauge:
    """One measurement that belongs to a worker."""

    worker_id: str
    name: str
    value: int | float
    time_ms: int


@attrs.frozen
class LogRecord:
    """One line that a service logged."""

    severity: int
    """The number of OTLP. Debug begins at 5, info at 9, warning at 13 and error at 17."""
    body: str
    service: str
    trace_id: str | None
    span_id: str | None
    worker_id: str | None


# --- the shapes

# Every field may be absent or null, and unknown ones are skipped.


class _Value(msgspec.Struct, gc=False):
    stringValue: str | None = None
    intValue: int | str | None = None
    doubleValue: float | None = None
    boolValue: bool | None = None


class _Attribute(msgspec.Struct, gc=False):
    key: str = ""
    value: _Value | None = None


_Attributes = list[_Attribute] | None


class _Resource(msgspec.Struct, gc=False):
    attributes: _Attributes = None


class _Point(msgspec.Struct, gc=False):
    attributes: _Attributes = None
    asInt: int | str | None = None
    asDouble: float | None = None
    timeUnixNano: int | str | None = None


class _Points(msgspec.Struct, gc=False):
    dataPoints: list[_Point] | None = None


class _Metric(msgspec.Struct, gc=False):
    name: str = ""
    gauge: _Points | None = None


class _ScopeMetrics(msgspec.Struct, gc=False):
    metrics: list[_Metric] | None = None


class _ResourceMetrics(msgspec.Struct, gc=False):
    resource: _Resource | None = None
    scopeMetrics: list[_ScopeMetrics] | None = None


class _Metrics(msgspec.Struct, gc=False):
    resourceMetrics: list[_ResourceMetrics] | None = None


class _Record(msgspec.Struct, gc=False):
    severityNumber: int | None = None
    body: Raw = Raw()
    attributes: _Attributes = None
    traceId: str | None = None
    spanId: str | None = None


class _ScopeLogs(msgspec.Struct, gc=False):
    logRecords: list[_Record] | None = None


class _ResourceLogs(msgspec.Struct, gc=False):
    resource: _Resource | None = None
    scopeLogs: list[_ScopeLogs] | None = None


class _Logs(msgspec.Struct, gc=False):
    resourceLogs: list[_ResourceLogs] | None = None


class _Spans(msgspec.Struct, gc=False):
    resourceSpans: Raw = Raw()


_metrics: Final = msgspec.json.Decoder(_Metrics)
_logs: Final = msgspec.json.Decoder(_Logs)
_spans: Final = msgspec.json.Decoder(_Spans)
_body: Final = msgspec.json.Decoder(_Value)


# --- reading


def read_gauges(message: bytes | bytearray) -> Iterator[Gauge]:
    """Yield the gauges of a METRICS message that have a `worker.id`. Raises MessageError."""
    for resource in _decode(_metrics, message).resourceMetrics or ():
        # A point without a `worker.id` belongs to the worker of its resource.
        whole = _attribute(resource.resource.attributes if resource.resource is not None else None, "worker.id")
        for scope in resource.scopeMetrics or ():
            for metric in scope.metrics or ():
                for point in (metric.gauge.dataPoints if metric.gauge is not None else None) or ():
                    worker_id = _attribute(point.attributes, "worker.id") or whole
                    value = _number(point.asInt) if point.asInt is not None else point.asDouble
                    if worker_id is not None and value is not None:
                        yield Gauge(worker_id, metric.name, value, (_number(point.timeUnixNano) or 0) // 1_000_000)


def read_logs(message: bytes | bytearray) -> Iterator[LogRecord]:
    """Yield the records of a LOGS message. Raises MessageError."""
    for resource in _decode(_logs, message).resourceLogs or ():
        attributes = resource.resource.attributes if resource.resource is not None else None
        service = _attribute(attributes, "service.name") or "unknown"
        whole = _attribute(attributes, "worker.id")
        for scope in resource.scopeLogs or ():
            for record in scope.logRecords or ():
                worker_id = _attribute(record.attributes, "worker.id") or whole
                yield LogRecord(
                    record.severityNumber or 0, _text(record.body), service, record.traceId or None,
                    record.spanId or None, worker_id,
                )  # fmt: skip


def check_spans(message: bytes | bytearray) -> None:
    """Check the outermost shape of a SPANS message. Raises MessageError."""
    if not bytes(_decode(_spans, message, MAX_SPAN_BYTES).resourceSpans).startswith(b"["):
        raise MessageError("it has no list `resourceSpans`")


def _decode(decoder: msgspec.json.Decoder[T], message: bytes | bytearray, max_bytes: int = MAX_BYTES) -> T:
    if len(message) > max_bytes:
        raise MessageError(f"it is {len(message)} bytes, and at most {max_bytes} are read: send smaller batches")
    try:
        return decoder.decode(memoryview(message)[4:])
    except RecursionError:
        raise MessageError("it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MessageError(str(error)) from None


def _attribute(attributes: _Attributes, key: str) -> str | None:
    for attribute in attributes or ():
        if attribute.key == key and attribute.value is not None:
            return attribute.value.stringValue
    return None


def _number(value: int | str | None) -> int | None:
    """Read a 64-bit number."""
    # The JSON form of OTLP may write it as text.
    if isinstance(value, str):
        return int(value) if len(value) < 21 and value.lstrip("-").isdecimal() else None
    return value


def _text(body: Raw) -> str:
    """Return the text that was logged, or any other value as JSON."""
    try:
        text = _body.decode(body).stringValue
    except msgspec.DecodeError:
        text = None
    return text if text is not None else bytes(body).decode(errors="replace")
