"""Read the spans, logs and metrics of workers, in OTLP's JSON form. Wrong shapes raise MessageError."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec

from ...errors import MessageError
from .records import (
    Attributes,
    Buckets,
    Event,
    Resource,
    Scope,
    SpanLink,
    StoredLog,
    StoredPoint,
    StoredSpan,
    clean,
    redacted,
    severity_text,
    size_of,
)

T = TypeVar("T")
_MAX_DEPTH: Final = 8
"""Levels of lists and maps in the value of an attribute. Deeper ones are left out."""
_MAX_BODY: Final = 8192
"""Characters of a line of a log."""
_MAX_ATTRIBUTES: Final = 128
_MAX_BUCKETS: Final = 256
_DELTA: Final = 1
"""OTLP's number of measurements that are about the time since the last one."""
_MAX_BYTES: Final = 1024 * 1024
"""Bytes of a message that is read. SDKs batch by the hundred, and a larger message would hold up the engine."""
_MAX_SPAN_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a message of spans."""
_DAY_NS: Final = 86_400 * 10**9
_MAX_RECORDS: Final = 4096
"""Records of one message that are read. SDKs send some hundred at once, and more would hold up the engine."""


# --- the shapes

# Every field may be absent or null, and unknown ones are skipped.


class _Value(msgspec.Struct):
    stringValue: str | None = None
    boolValue: bool | None = None
    intValue: int | str | None = None
    doubleValue: float | str | None = None
    arrayValue: _List | None = None
    kvlistValue: _Map | None = None
    bytesValue: str | None = None


class _List(msgspec.Struct):
    values: list[_Value] | None = None


class _Attribute(msgspec.Struct):
    key: str = ""
    value: _Value | None = None


class _Map(msgspec.Struct):
    values: list[_Attribute] | None = None


_Attributes = list[_Attribute] | None


class _Resource(msgspec.Struct):
    attributes: _Attributes = None


class _Scope(msgspec.Struct):
    name: str | None = None
    version: str | None = None


class _Event(msgspec.Struct):
    name: str | None = None
    timeUnixNano: int | str | None = None
    attributes: _Attributes = None


class _Link(msgspec.Struct):
    traceId: str = ""
    spanId: str = ""
    traceState: str | None = None
    attributes: _Attributes = None
    flags: int | None = None


class _Status(msgspec.Struct):
    code: int | None = None
    message: str | None = None


class _Span(msgspec.Struct):
    traceId: str = ""
    spanId: str = ""
    parentSpanId: str | None = None
    traceState: str | None = None
    name: str | None = None
    kind: int | None = None
    startTimeUnixNano: int | str | None = None
    endTimeUnixNano: int | str | None = None
    attributes: _Attributes = None
    events: list[_Event] | None = None
    links: list[_Link] | None = None
    status: _Status | None = None
    flags: int | None = None


class _ScopeSpans(msgspec.Struct):
    scope: _Scope | None = None
    spans: list[_Span] | None = None


class _ResourceSpans(msgspec.Struct):
    resource: _Resource | None = None
    scopeSpans: list[_ScopeSpans] | None = None


class _Spans(msgspec.Struct):
    resourceSpans: list[_ResourceSpans] | None = None


class _Record(msgspec.Struct):
    timeUnixNano: int | str | None = None
    observedTimeUnixNano: int | str | None = None
    severityNumber: int | None = None
    severityText: str | None = None
    body: _Value | None = None
    attributes: _Attributes = None
    traceId: str | None = None
    spanId: str | None = None


class _ScopeLogs(msgspec.Struct):
    scope: _Scope | None = None
    logRecords: list[_Record] | None = None


class _ResourceLogs(msgspec.Struct):
    resource: _Resource | None = None
    scopeLogs: list[_ScopeLogs] | None = None


class _Logs(msgspec.Struct):
    resourceLogs: list[_ResourceLogs] | None = None


class _Point(msgspec.Struct):
    attributes: _Attributes = None
    timeUnixNano: int | str | None = None
    asInt: int | str | None = None
    asDouble: float | str | None = None
    startTimeUnixNano: int | str | None = None
    count: int | str | None = None
    sum: float | None = None
    bucketCounts: list[int | str] | None = None
    explicitBounds: list[float] | None = None
    min: float | None = None
    max: float | None = None


class _Points(msgspec.Struct):
    dataPoints: list[_Point] | None = None
    aggregationTemporality: int | None = None
    isMonotonic: bool | None = None


class _Metric(msgspec.Struct):
    name: str = ""
    unit: str | None = None
    gauge: _Points | None = None
    sum: _Points | None = None
    histogram: _Points | None = None


class _ScopeMetrics(msgspec.Struct):
    scope: _Scope | None = None
    metrics: list[_Metric] | None = None


class _ResourceMetrics(msgspec.Struct):
    resource: _Resource | None = None
    scopeMetrics: list[_ScopeMetrics] | None = None


class _Metrics(msgspec.Struct):
    resourceMetrics: list[_ResourceMetrics] | None = None


# Decoders are made with the first message, because msgspec reads the annotations of all shapes for them.


@cache
def _spans() -> msgspec.json.Decoder[_Spans]:
    return msgspec.json.Decoder(_Spans)


@cache
def _logs() -> msgspec.json.Decoder[_Logs]:
    return msgspec.json.Decoder(_Logs)


@cache
def _metrics() -> msgspec.json.Decoder[_Metrics]:
    return msgspec.json.Decoder(_Metrics)


# --- reading


def read_spans(body: bytes) -> Iterator[StoredSpan]:
    """Yield the spans of an export request, up to a number of them. Spans without valid ids are left out."""
    yield from islice(_spans_of(body), _MAX_RECORDS)


def _spans_of(body: bytes) -> Iterator[StoredSpan]:
    for group in _decode(_spans(), body, _MAX_SPAN_BYTES).resourceSpans or ():
        resource = _resource(group.resource)
        for scope_spans in group.scopeSpans or ():
            scope = _scope(scope_spans.scope)
            for span in scope_spans.spans or ():
                # Other exporters write ids in capitals, and the same span must have the same id.
                trace_id, span_id = span.traceId.lower(), span.spanId.lower()
                if _is_id(trace_id, 32) and _is_id(span_id, 16):
                    yield _span(span, trace_id, span_id, resource, scope)


def _span(span: _Span, trace_id: str, span_id: str, resource: Resource, scope: Scope) -> StoredSpan:
    attributes = _attributes(span.attributes)
    # An empty parent means a root, and so does one that is not an id.
    parent = (span.parentSpanId or "").lower()
    events = [
        Event(event.name or "", _number(event.timeUnixNano), _attributes(event.attributes))
        for event in (span.events or ())[:_MAX_ATTRIBUTES]
    ]
    links = [
        SpanLink(
            link.traceId.lower(), link.spanId.lower(), link.traceState or "", _attributes(link.attributes),
            link.flags or 0,
        )
        for link in (span.links or ())[:_MAX_ATTRIBUTES]
        if _is_id(link.traceId.lower(), 32) and _is_id(link.spanId.lower(), 16)
    ]  # fmt: skip
    start, end = _number(span.startTimeUnixNano), _number(span.endTimeUnixNano)
    status = span.status or _Status()
    parts = [*(event.attributes for event in events), *(link.attributes for link in links)]
    extra = resource.size + sum(200 + len(str(part)) for part in parts) + len(status.message or "")
    return StoredSpan(
        trace_id,
        span_id,
        parent if _is_id(parent, 16) else None,
        (span.name or "")[:_MAX_BODY],
        span.kind or 0,
        start,
        end,
        status.code if status.code in (0, 1, 2) else 0,
        status.message or None,
        attributes,
        events,
        links,
        resource,
        scope,
        span.flags or 0,
        span.traceState or "",
        size_of(span.name or "", attributes, extra),
        pending=end == 0,
    )


def read_logs(body: bytes, now_ns: int) -> Iterator[StoredLog]:
    """Yield the lines of an export request, up to a number. A line without a time has the time of its arrival."""
    yield from islice(_logs_of(body, now_ns), _MAX_RECORDS)


def _logs_of(body: bytes, now_ns: int) -> Iterator[StoredLog]:
    for group in _decode(_logs(), body).resourceLogs or ():
        resource = _resource(group.resource)
        for scope_logs in group.scopeLogs or ():
            scope = _scope(scope_logs.scope)
            for record in scope_logs.logRecords or ():
                observed = _time(record.observedTimeUnixNano, now_ns)
                severity = record.severityNumber or 0
                line, attributes = _body(record.body), _attributes(record.attributes)
                yield StoredLog(
                    _time(record.timeUnixNano, observed, earliest=1),
                    observed,
                    severity,
                    record.severityText or severity_text(severity),
                    line,
                    attributes,
                    record.traceId or None,
                    record.spanId or None,
                    resource,
                    scope,
                    size_of(line, attributes, resource.size),
                )


def read_points(body: bytes, now_ns: int) -> Iterator[StoredPoint]:
    """Yield the measurements of an export request, up to a number of them."""
    yield from islice(_points_of(body, now_ns), _MAX_RECORDS)


def _points_of(body: bytes, now_ns: int) -> Iterator[StoredPoint]:
    for group in _decode(_metrics(), body).resourceMetrics or ():
        resource = _resource(group.resource)
        for scope_metrics in group.scopeMetrics or ():
            scope = _scope(scope_metrics.scope)
            for metric in scope_metrics.metrics or ():
                for kind, points in (("gauge", metric.gauge), ("sum", metric.sum), ("histogram", metric.histogram)):
                    for point in (points.dataPoints if points is not None else None) or ():
                        value = point.sum if kind == "histogram" else _value_of(point)
                        attributes = _attributes(point.attributes)
                        if value is not None:
                            # A point without a value says that there was no measurement.
                            yield StoredPoint(
                                metric.name,
                                kind,
                                metric.unit or "",
                                _number(point.timeUnixNano) or now_ns,
                                value,
                                _number(point.count) if point.count is not None else None,
                                attributes,
                                resource,
                                size_of(metric.name, attributes, resource.size),
                                _number(point.startTimeUnixNano),
                                points is not None and points.aggregationTemporality == _DELTA,
                                points is not None and points.isMonotonic is True,
                                _buckets(point) if kind == "histogram" else None,
                                scope,
                            )


def _buckets(point: _Point) -> Buckets:
    counts = [_number(count) for count in (point.bucketCounts or ())[:_MAX_BUCKETS]]
    bounds = (point.explicitBounds or [])[: max(0, len(counts) - 1)]
    # A histogram may have no buckets at all. Otherwise there is one more than there are bounds.
    fits = len(counts) == len(bounds) + 1
    return Buckets(counts if fits else [], bounds if fits else [], point.min, point.max)


def _value_of(point: _Point) -> float | int | None:
    if point.asInt is not None:
        return _number(point.asInt)
    return _float(point.asDouble) if point.asDouble is not None else None


# --- inside


def _decode(decoder: msgspec.json.Decoder[T], body: bytes, max_bytes: int = _MAX_BYTES) -> T:
    if len(body) > max_bytes:
        raise MessageError(f"it is {len(body)} bytes, and at most {max_bytes} are read: send smaller batches")
    try:
        return decoder.decode(body)
    except RecursionError:
        raise MessageError("it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MessageError(str(error)) from None


def _resource(resource: _Resource | None) -> Resource:
    attributes = _attributes(resource.attributes if resource is not None else None)
    service = attributes.get("service.name")
    name = service if isinstance(service, str) and service else "unknown"
    # The records of one message share it, but any one of them may be the last to hold it.
    return Resource(name, attributes, sum(len(key) + len(str(value)) for key, value in attributes.items()))


def _scope(scope: _Scope | None) -> Scope:
    return Scope(scope.name or None, scope.version or None) if scope is not None else Scope()


def _attributes(attributes: _Attributes) -> Attributes:
    # OpenTelemetry allows 128 by default, and a service without a limit must not fill the memory.
    pairs = (attributes or ())[:_MAX_ATTRIBUTES]
    return redacted({pair.key: _plain(pair.value) for pair in pairs if pair.key})


def _plain(value: _Value | None, depth: int = 0) -> Any:
    """Return the value that OTLP wraps."""
    if value is None or depth > _MAX_DEPTH:
        return None
    # Zero, false and an empty text are values.
    if value.intValue is not None:
        return _number(value.intValue)
    if value.doubleValue is not None:
        return _float(value.doubleValue)
    if value.arrayValue is not None:
        return [_plain(each, depth + 1) for each in value.arrayValue.values or ()]
    if value.kvlistValue is not None:
        return {pair.key: _plain(pair.value, depth + 1) for pair in value.kvlistValue.values or ()}
    for plain in (value.stringValue, value.boolValue, value.bytesValue):
        if plain is not None:
            return plain
    return None


def _body(value: _Value | None) -> str:
    plain = _plain(value)
    text = plain if isinstance(plain, str) else "" if plain is None else msgspec.json.encode(plain).decode()
    return clean(text[:_MAX_BODY])


def _number(value: int | str | None) -> int:
    """Read a 64-bit number. The JSON form of OTLP may write it as text."""
    if isinstance(value, str):
        return (
            int(value)
            if len(value) < 21 and value.removeprefix("-").isascii() and value.removeprefix("-").isdigit()
            else 0
        )
    return value if value is not None and abs(value) < 1 << 64 else 0


def _time(value: int | str | None, instead: int, earliest: int | None = None) -> int:
    """Read a date that is not far in the future, nor before `earliest`. Another one is that of the arrival."""
    date = _number(value)
    # A line is observed about when it comes, but it may tell of the past.
    low = instead - _DAY_NS if earliest is None else earliest
    return date if low <= date <= instead + _DAY_NS else instead


def _float(value: float | str) -> float:
    """Read a number that the JSON form may write as `NaN` or `Infinity`."""
    try:
        return float(value)
    except ValueError:
        return 0.0


def _is_id(text: str, digits: int) -> bool:
    return len(text) == digits and text.strip("0") != "" and all(letter in "0123456789abcdef" for letter in text)
