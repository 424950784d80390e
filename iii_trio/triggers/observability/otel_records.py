"""Spans, lines and measurements in the forms that OpenTelemetry's exporters take, whose libraries are loaded late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .records import Attributes, Resource, Scope, StoredLog, StoredPoint, StoredSpan


def to_spans(spans: Sequence[StoredSpan]) -> list[Any]:
    """Return spans as `OTLPSpanExporter` takes them."""
    return [to_readable(span) for span in spans]


def to_readable(span: StoredSpan) -> Any:
    """Return one span."""
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
    from opentelemetry.trace.status import Status, StatusCode

    def context(trace_id: str, span_id: str, flags: int, trace_state: str) -> SpanContext:
        state = TraceState.from_header([trace_state]) if trace_state else None
        return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(flags & 0xFF), state)

    parent = span.parent_span_id
    return ReadableSpan(
        name=span.name,
        context=context(span.trace_id, span.span_id, span.flags, span.trace_state),
        parent=None if parent is None else context(span.trace_id, parent, span.flags, ""),
        resource=_resource(span.resource),
        attributes=_values(span.attributes),
        events=[Event(event.name, _values(event.attributes), event.time_ns) for event in span.events],
        links=[
            Link(context(link.trace_id, link.span_id, link.flags, link.trace_state), _values(link.attributes))
            for link in span.links
        ],
        kind=SpanKind(span.kind - 1 if 1 <= span.kind <= 5 else 0),
        status=Status(StatusCode(span.status), span.status_text if span.status == 2 else None),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=_scope(span.scope),
    )


def to_lines(lines: Sequence[StoredLog]) -> list[Any]:
    """Return lines as `OTLPLogExporter` takes them."""
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.trace import TraceFlags

    return [
        ReadableLogRecord(
            LogRecord(
                timestamp=line.time_ns,
                observed_timestamp=line.observed_ns,
                trace_id=_id(line.trace_id, 32),
                span_id=_id(line.span_id, 16),
                trace_flags=TraceFlags(0),
                severity_text=line.severity_text,
                severity_number=SeverityNumber(line.severity if 0 <= line.severity <= 24 else 0),
                body=line.body,
                attributes=_values(line.attributes),
            ),
            _resource(line.resource),
            _scope(line.scope),
        )
        for line in lines
    ]


def to_metrics(points: Sequence[StoredPoint]) -> Any:
    """Return measurements as `OTLPMetricExporter` takes them, those of one metric together."""
    from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics, ScopeMetrics

    # The exporter keeps one group for each resource and scope, so equal ones of several messages have to be one.
    groups: dict[Any, dict[Scope, dict[Any, list[StoredPoint]]]] = {}
    made: dict[int, Any] = {}
    for point in points:
        resource = made.get(id(point.resource))
        if resource is None:
            resource = made[id(point.resource)] = _resource(point.resource)
        metrics = groups.setdefault(resource, {}).setdefault(point.scope, {})
        key = (point.name, point.kind, point.unit, point.is_delta, point.is_monotonic)
        metrics.setdefault(key, []).append(point)
    return MetricsData(
        [
            ResourceMetrics(
                resource,
                [
                    ScopeMetrics(
                        _scope(scope),
                        [Metric(same[0].name, "", same[0].unit, _data_of(same)) for same in metrics.values()],
                        schema_url="",
                    )
                    for scope, metrics in scopes.items()
                ],
                schema_url="",
            )
            for resource, scopes in groups.items()
        ]
    )


def _data_of(points: list[StoredPoint]) -> Any:
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Gauge,
        Histogram,
        HistogramDataPoint,
        NumberDataPoint,
        Sum,
    )

    first = points[0]
    temporality = AggregationTemporality.DELTA if first.is_delta else AggregationTemporality.CUMULATIVE
    if first.kind == "histogram":
        return Histogram([_histogram_point(HistogramDataPoint, point) for point in points], temporality)
    numbers = [
        NumberDataPoint(_values(point.attributes), point.start_ns, point.time_ns, point.value) for point in points
    ]
    return Gauge(numbers) if first.kind == "gauge" else Sum(numbers, temporality, first.is_monotonic)


def _histogram_point(make: Any, point: StoredPoint) -> Any:
    buckets = point.buckets
    return make(
        _values(point.attributes),
        point.start_ns,
        point.time_ns,
        point.count or 0,
        float(point.value),
        buckets.counts if buckets is not None else [],
        buckets.bounds if buckets is not None else [],
        # Absent extremes stay absent.
        buckets.low if buckets is not None else None,
        buckets.high if buckets is not None else None,
    )


def _resource(resource: Resource) -> Any:
    from opentelemetry.sdk.resources import Resource as OtelResource

    return OtelResource(_values(resource.attributes))


def _scope(scope: Scope) -> Any:
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    return InstrumentationScope(scope.name or "", scope.version)


def _values(attributes: Attributes) -> Any:
    return {key: value for key, value in attributes.items() if value is not None}


def _id(text: str | None, digits: int) -> int:
    """Return an id as a number. Workers write any text there, and 0 stands for none."""
    try:
        return int(text, 16) if text is not None and len(text) == digits else 0
    except ValueError:
        return 0
