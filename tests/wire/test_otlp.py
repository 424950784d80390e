"""Telemetry as SDKs send it; whatever else comes in its place is an error of one kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.errors import MessageError
from iii_trio.wire.otlp import (
    MAX_BYTES,
    Gauge,
    LogRecord,
    Telemetry,
    check_spans,
    read_gauges,
    read_logs,
    telemetry_kind,
)

WORKER = {"key": "worker.id", "value": {"stringValue": "w1"}}


def metrics(*found: dict[str, Any], resource: Any = None) -> bytes:
    request = {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": {}, "metrics": list(found)}]}]}
    return b"MTRC" + json.dumps(request).encode()


def gauge(name: str, **point: Any) -> dict[str, Any]:
    return {"name": name, "unit": "bytes", "gauge": {"dataPoints": [{"attributes": [WORKER], **point}]}}


def logs(*records: dict[str, Any], resource: Any = None) -> bytes:
    request = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": {}, "logRecords": list(records)}]}]}
    return b"LOGS" + json.dumps(request).encode()


def test_a_message_is_known_by_its_first_four_letters() -> None:
    kinds = [
        telemetry_kind(text) for text in (b"OTLP{}", bytearray(b"MTRC"), b"LOGS{", b"LOG", b"", b'{"type":"ping"}')
    ]
    assert kinds == [Telemetry.SPANS, Telemetry.METRICS, Telemetry.LOGS, None, None, None]


def test_gauges_carry_their_workers_id_themselves_or_by_their_resource() -> None:
    message = metrics(
        gauge("iii.worker.memory.rss", asInt=5, timeUnixNano="1700000000123456789"),
        gauge("iii.worker.cpu.percent", asDouble=0.5),
        gauge("as.text", asInt="9007199254740993"),
        {"name": "a.sum", "sum": {"dataPoints": [{"attributes": [WORKER], "asInt": 1}]}},
        {"name": "nobodys", "gauge": {"dataPoints": [{"asInt": 1}]}},
        {"name": "without a value", "gauge": {"dataPoints": [{"attributes": [WORKER], "asInt": None}]}},
    )
    assert list(read_gauges(message)) == [
        Gauge("w1", "iii.worker.memory.rss", 5, 1700000000123),
        Gauge("w1", "iii.worker.cpu.percent", 0.5, 0),
        Gauge("w1", "as.text", 9007199254740993, 0),
    ]
    whole = metrics({"name": "a", "gauge": {"dataPoints": [{"asInt": 1}]}}, resource={"attributes": [WORKER]})
    assert list(read_gauges(whole)) == [Gauge("w1", "a", 1, 0)]


def test_log_records_are_read_with_who_logged_them_and_in_which_trace() -> None:
    record = {
        "severityNumber": 17,
        "body": {"stringValue": "no\nroom"},
        "traceId": "ab",
        "spanId": "",
        "attributes": None,
    }
    service = {"attributes": [{"key": "service.name", "value": {"stringValue": "harbour"}}, WORKER]}
    other = {"body": {"kvlistValue": {"values": []}}}
    assert list(read_logs(logs(record, other, resource=service))) == [
        LogRecord(17, "no\nroom", "harbour", "ab", None, "w1"),
        LogRecord(0, '{"kvlistValue": {"values": []}}', "harbour", None, None, "w1"),
    ]
    assert list(read_logs(logs({}))) == [LogRecord(0, "", "unknown", None, None, None)]


def test_spans_are_looked_at_no_further_than_that_they_are_some() -> None:
    check_spans(b'OTLP{"resourceSpans":[{"anything":1}]}')
    check_spans(b'OTLP{"resourceSpans":["' + b"x" * 2 * MAX_BYTES + b'"]}')
    with pytest.raises(MessageError, match="at most 4194304 are read"):
        check_spans(b'OTLP{"resourceSpans":["' + b"x" * 4 * MAX_BYTES + b'"]}')
    for wrong in (b"OTLP{}", b'OTLP{"resourceSpans":{}}', b"OTLP", b"OTLP[]", b'OTLP{"resourceSpans":[NaN]}'):
        with pytest.raises(MessageError):
            check_spans(wrong)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff", b'{"resourceMetrics":7}', b'{"resourceMetrics":[{"scopeMetrics":[7]}]}',
        b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":7}]}]}]}', b'{"a":' + b"[" * 100_000,
        b'{"resourceMetrics":[],"x":"' + b"x" * MAX_BYTES + b'"}',
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_an_error_that_says_so(body: bytes) -> None:
    with pytest.raises(MessageError, match=r"."):
        list(read_gauges(b"MTRC" + body))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5), st.binary())
def test_nothing_that_is_sent_raises_anything_else(value: Any, noise: bytes) -> None:
    for body in (
        json.dumps({"resourceMetrics": value}).encode(), noise,
        json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": value}]}]}]}).encode(),
        json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"gauge": {"dataPoints": [
            {"attributes": [WORKER], "asInt": value, "timeUnixNano": value}]}}]}]}]}).encode(),
    ):  # fmt: skip
        for read in (read_gauges, read_logs):
            try:
                list(read(b"1234" + body))
            except MessageError:
                pass
