"""Spans and lines of logs as functions and triggers show them (builtin-workers 13.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .records import STATUS, Attributes, StoredLog, StoredSpan


def span_row(span: StoredSpan) -> dict[str, Any]:
    """Return a span as a row."""
    row: dict[str, Any] = {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_span_id,
        "name": span.name,
        "start_time_unix_nano": span.start_ns,
        "end_time_unix_nano": span.end_ns,
        "status": STATUS[span.status],
        "attributes": pairs(span.attributes),
        "service_name": span.resource.service,
        "events": [
            {"name": event.name, "timestamp_unix_nano": event.time_ns, "attributes": pairs(event.attributes)}
            for event in span.events
        ],
        "links": [
            {
                "trace_id": link.trace_id,
                "span_id": link.span_id,
                "trace_state": link.trace_state,
                "attributes": pairs(link.attributes),
            }
            for link in span.links
        ],
    }
    optional = {
        "status_description": span.status_text,
        "instrumentation_scope_name": span.scope.name,
        "instrumentation_scope_version": span.scope.version,
        "flags": span.flags,
        "trace_state": span.trace_state,
    }
    row |= {key: value for key, value in optional.items() if value}
    if span.pending:
        row["pending"] = True
    return row


def log_row(log: StoredLog) -> dict[str, Any]:
    """Return a line of a log as a row."""
    row = {
        "timestamp_unix_nano": log.time_ns,
        "observed_timestamp_unix_nano": log.observed_ns,
        "severity_number": log.severity,
        "severity_text": log.severity_text,
        "body": log.body,
        "attributes": log.attributes,
        "resource": log.resource.attributes,
        "service_name": log.resource.service,
    }
    optional = {
        "trace_id": log.trace_id,
        "span_id": log.span_id,
        "instrumentation_scope_name": log.scope.name,
        "instrumentation_scope_version": log.scope.version,
    }
    return row | {key: value for key, value in optional.items() if value}


def pairs(attributes: Attributes) -> list[list[str]]:
    """Return attributes as pairs of texts."""
    return [[key, text(value)] for key, value in attributes.items()]


def text(value: Any) -> str:
    """Return the value of an attribute as a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list) or value is None:
        return msgspec.json.encode(value).decode()
    return str(value)
