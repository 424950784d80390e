"""Telemetry as SDKs send it (promise O7): its numbers, its bounds, and whose it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from iii_trio.errors import MessageError
from iii_trio.triggers.observability.otlp import read_logs, read_points, read_spans
from iii_trio.triggers.observability.recorder import Recorder
from iii_trio.triggers.observability.settings import ObservabilityConfig

WORKER = {"key": "worker.id", "value": {"stringValue": "w1"}}
MIB = 1024 * 1024


class Host:
    """Takes what the recorder gives to the engine."""

    def __init__(self) -> None:
        self.gauges: list[tuple[str, dict[str, float], int]] = []
        self.lines: list[tuple[int, str, dict[str, str], str | None]] = []

    def show_gauges(self, worker_id: str, gauges: Mapping[str, float], time_ms: int) -> None:
        self.gauges.append((worker_id, dict(gauges), time_ms))

    def log_for_worker(self, level: int, text: str, fields: Mapping[str, str], worker_id: str | None = None) -> None:
        self.lines.append((level, text, dict(fields), worker_id))


def recorded(kind: str, message: Any) -> Host:
    """What the engine is given of a message."""
    host: Any = Host()
    recorder = Recorder(ObservabilityConfig(), lambda: 3.0, own_worker="own", host=host)
    recorder.add_telemetry(kind, json.dumps(message).encode(), {"session": "sender"})
    found: Host = host
    return found


def metrics(*found: dict[str, Any], resource: Any = None) -> Any:
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": {}, "metrics": list(found)}]}]}


def gauge(name: str, **point: Any) -> dict[str, Any]:
    return {"name": name, "unit": "bytes", "gauge": {"dataPoints": [{"attributes": [WORKER], **point}]}}


def test_O7_gauges_of_a_worker_go_to_the_engine_with_its_id_from_the_point_or_the_resource() -> None:
    others = [{"key": key, "value": {"stringValue": "no"}} for key in ("a", "worker", "worker.id.x", "z")]
    host = recorded(
        "resourceMetrics",
        metrics(
            gauge("iii.worker.memory.rss", asInt=5, timeUnixNano="1700000000123456789"),
            gauge("iii.worker.event_loop.lag_ms", asDouble=2.0, timeUnixNano="1700000000123456789"),
            gauge("iii.worker.cpu.percent", asDouble=0.5),
            gauge("as.text", asInt="9007199254740993"),
            gauge("iii.worker." + "x" * 65, asInt=1),
            {"name": "iii.worker.sum", "sum": {"dataPoints": [{"attributes": [WORKER], "asInt": 1}]}},
            {"name": "iii.worker.nobodys", "gauge": {"dataPoints": [{"attributes": others, "asInt": 1}]}},
            {"name": "iii.worker.no.value", "gauge": {"dataPoints": [{"attributes": [WORKER], "asInt": None}]}},
        ),
    )
    assert host.gauges == [
        ("w1", {"memory_rss": 5, "event_loop_lag_ms": 2.0}, 1700000000123),
        ("w1", {"cpu_percent": 0.5}, 3000),
    ]
    whole = metrics(
        {"name": "iii.worker.a", "gauge": {"dataPoints": [{"asInt": 1}]}}, resource={"attributes": [WORKER]}
    )
    assert recorded("resourceMetrics", whole).gauges == [("w1", {"a": 1}, 3000)]


@pytest.mark.parametrize(
    ("severity", "level"),
    [
        (0, logging.INFO), (1, logging.DEBUG), (8, logging.DEBUG), (9, logging.INFO), (12, logging.INFO),
        (13, logging.WARNING), (16, logging.WARNING), (17, logging.ERROR), (24, logging.ERROR),
    ],
)  # fmt: skip
def test_O7_a_log_record_is_a_line_of_its_level_that_names_its_worker_and_its_trace(severity: int, level: int) -> None:
    record = {"severityNumber": severity, "body": {"stringValue": "hi"}}
    records = [{**record, "attributes": [WORKER], "traceId": "t", "spanId": "s"}, {**record, "spanId": "s"}]
    service = {"attributes": [{"key": "service.name", "value": {"stringValue": "harbour"}}]}
    request = {"resourceLogs": [{"resource": service, "scopeLogs": [{"logRecords": records}]}]}
    fields = {"session": "sender", "service_name": "harbour"}
    assert recorded("resourceLogs", request).lines == [
        (level, "harbour: hi", {**fields, "trace_id": "t", "span_id": "s"}, "w1"),
        (level, "harbour: hi", {**fields, "span_id": "s"}, None),
    ]


@pytest.mark.parametrize("kind", ["resourceSpans", "resourceMetrics", "resourceLogs"])
def test_O7_telemetry_that_cannot_be_read_is_a_warning_about_its_sender(kind: str) -> None:
    ((level, text, fields, worker_id),) = recorded(kind, {kind: 7}).lines
    assert (level, fields, worker_id) == (logging.WARNING, {"session": "sender"}, None)
    assert text.startswith(f"telemetry ({kind}) that cannot be read was left out: ")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0), ("-5", -5), ("18446744073709551615", 2**64 - 1), ("-9223372036854775808", -(2**63)), ("1" * 21, 0),
        ("--5", 0), ("5-", 0), ("-", 0), ("", 0), ("x", 0), ("1.5", 0), (" 1", 0), ("\u0663", 0),
    ],
)  # fmt: skip
def test_O7_a_number_may_be_written_as_text_of_at_most_20_digits(text: str, number: int) -> None:
    body = json.dumps(metrics(gauge("g", asInt=text), gauge("t", asInt=1, timeUnixNano=text))).encode()
    value, time = read_points(body, 7)
    assert (value.value, time.time_ns) == (number, number or 7)


@pytest.mark.parametrize(
    ("kind", "bound"), [("resourceMetrics", MIB), ("resourceLogs", MIB), ("resourceSpans", 4 * MIB)]
)
def test_O7_a_message_is_read_up_to_its_bound(kind: str, bound: int) -> None:
    read: Any = {
        "resourceMetrics": lambda body: read_points(body, 5), "resourceLogs": lambda body: read_logs(body, 5),
        "resourceSpans": read_spans,
    }[kind]  # fmt: skip
    start = f'{{"{kind}":[],"x":"'.encode()
    assert list(read(start + b"x" * (bound - len(start) - 2) + b'"}')) == []
    with pytest.raises(MessageError, match=f"at most {bound} are read: send smaller batches"):
        list(read(start + b"x" * (bound - len(start) - 1) + b'"}'))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"a":' + b"[" * 100_000])
def test_O7_what_cannot_be_read_is_an_error_that_says_so(body: bytes) -> None:
    with pytest.raises(MessageError, match=r"."):
        list(read_points(body, 5))
