"""Telemetry of workers, the functions and the trigger types: promises O7, O10 and O11 of docs/observability.md."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import iii_trio
from iii_trio.errors import MessageError
from iii_trio.triggers.observability.otlp import read_logs, read_points, read_spans
from tests.helpers.bare import Bare, connected

from .observed import PARENT, SAMPLED, TRACE, names, observed, open_observed, spans, tree

CHILD = "b7ad6b7169203331"


def text(value: str) -> dict[str, Any]:
    return {"stringValue": value}


def attribute(key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"key": key, "value": value}


RESOURCE = {"attributes": [attribute("service.name", text("harbour")), attribute("process.pid", {"intValue": "77"})]}


def a_span(**fields: Any) -> dict[str, Any]:
    return {
        "traceId": TRACE, "spanId": CHILD, "parentSpanId": PARENT, "name": "tide::next", "kind": 2,
        "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000250000000",
        "attributes": [attribute("rows", {"intValue": "3"}), attribute("Authorization", text("Bearer hunter2"))],
        "status": {"code": 1}, **fields,
    }  # fmt: skip


def span_message(*found: dict[str, Any]) -> bytes:
    scope = {"scope": {"name": "iii-py", "version": "0.25.0"}, "spans": list(found)}
    return b"OTLP" + json.dumps({"resourceSpans": [{"resource": RESOURCE, "scopeSpans": [scope]}]}).encode()


def log_message(*records: dict[str, Any]) -> bytes:
    scope = {"scope": {"name": "iii-py"}, "logRecords": list(records)}
    return b"LOGS" + json.dumps({"resourceLogs": [{"resource": RESOURCE, "scopeLogs": [scope]}]}).encode()


def metric_message(*metrics: dict[str, Any]) -> bytes:
    scope = {"scope": {}, "metrics": list(metrics)}
    return b"MTRC" + json.dumps({"resourceMetrics": [{"resource": RESOURCE, "scopeMetrics": [scope]}]}).encode()


async def sent(bare: Bare, *messages: bytes) -> None:
    """The engine has read these."""
    for message in messages:
        await bare.say(2, message)
    await bare.say(9, b"?")
    while await bare.frame() != (10, b"?"):
        pass


@pytest.mark.parametrize("target", ["/otel", "/"])
async def test_O7_the_spans_of_a_worker_join_the_engines_in_one_trace(target: str, autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, target) as bare:

        @app.function("app::show")
        async def show() -> None: ...

        await app.trigger("app::show", traceparent=SAMPLED)
        (call,) = await spans(app)
        await sent(bare, span_message(a_span(parentSpanId=call["span_id"])))
        (root,) = await tree(app)
        assert names([root]) == [["call app::show", ["tide::next"]]]
        row = root["children"][0]
        assert row["service_name"] == "harbour" and row["status"] == "ok"
        assert (row["instrumentation_scope_name"], row["instrumentation_scope_version"]) == ("iii-py", "0.25.0")
        assert row["end_time_unix_nano"] - row["start_time_unix_nano"] == 250_000_000
        assert row["attributes"] == [["rows", "3"], ["Authorization", "[REDACTED]"]]


async def test_O7_a_pending_span_is_replaced_by_its_final_form_and_not_the_other_way(
    autojump_clock: MockClock,
) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        pending, final = a_span(endTimeUnixNano=0, name="at work"), a_span(name="done")
        await sent(bare, span_message(pending))
        (row,) = await spans(app)
        assert row["pending"] is True and row["name"] == "at work"
        await sent(bare, span_message(final), span_message(pending))
        (row,) = await spans(app)
        assert "pending" not in row and row["name"] == "done"


async def test_O7_spans_with_ids_that_are_none_are_left_out_and_the_others_kept(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        odd = [
            a_span(traceId="xyz"), a_span(traceId="0" * 32), a_span(spanId=""), a_span(spanId="0" * 16),
            a_span(spanId="c" * 16, parentSpanId="no id", name="kept"), a_span(traceId=TRACE.upper(), name="kept too"),
        ]  # fmt: skip
        await sent(bare, span_message(*odd))
        found = await spans(app)
        assert sorted(row["name"] for row in found) == ["kept", "kept too"]
        assert {row["trace_id"] for row in found} == {TRACE}


async def test_O7_logs_and_measurements_of_workers_are_kept(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        record = {
            "timeUnixNano": "1700000000000000001", "severityNumber": 13, "severityText": "WARN",
            "body": text("\x1b[31mno room\x1b[0m"), "attributes": [attribute("password", text("hunter2"))],
            "traceId": TRACE, "spanId": CHILD,
        }  # fmt: skip
        histogram = {"name": "lag", "unit": "ms", "histogram": {"dataPoints": [{"count": "4", "sum": 10.0}]}}
        gauge = {"name": "depth", "gauge": {"dataPoints": [{"timeUnixNano": "1700000000000000000", "asInt": "7"}]}}
        await sent(bare, log_message(record), metric_message(gauge, histogram))
        answer = await app.trigger("engine::logs::list", {"trace_id": TRACE})
        (line,) = answer["logs"]
        assert line["body"] == "no room" and line["attributes"] == {"password": "[REDACTED]"}
        assert line["resource"] == {"service.name": "harbour", "process.pid": 77}
        assert (line["timestamp_unix_nano"], line["severity_number"], line["severity_text"]) == (
            1700000000000000001, 13, "WARN",
        )  # fmt: skip
        assert (line["trace_id"], line["span_id"], line["service_name"]) == (TRACE, CHILD, "harbour")
        assert answer["total"] == 1 and answer["query"] == {"trace_id": TRACE}
        measured = (await app.trigger("engine::metrics::list"))["sdk_metrics"]
        assert {(row["name"], row["type"], row["value"], row.get("count")) for row in measured} == {
            ("depth", "gauge", 7, None), ("lag", "histogram", 10.0, 4),
        }  # fmt: skip


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
_keys = ("resourceSpans", "resourceLogs", "resourceMetrics", "scopeSpans", "spans", "attributes", "value", "traceId")


@given(_json | st.dictionaries(st.sampled_from(_keys), _json))
def test_O7_any_other_json_is_read_or_refused_and_nothing_else(value: Any) -> None:
    body = json.dumps(value).encode()
    for read in (read_spans, lambda body: read_logs(body, 5), lambda body: read_points(body, 5)):
        try:
            list(read(body))
        except MessageError:
            continue


# --- O9: secrets


@pytest.mark.parametrize(
    ("sent_value", "kept"),
    [
        ("https://ann:hunter2@shop.example/a?x=1", "https://[REDACTED]@shop.example/a?x=1"),
        ("https://ann:hunter2@2@shop.example", "https://[REDACTED]@shop.example"),
        ("postgres://hunter2@db/shop", "postgres://[REDACTED]@db/shop"),
        ("https://shop.example/@ann?to=b@c", "https://shop.example/@ann?to=b@c"),
        ("/a?page=2&access_token=hunter2&y=3#top", "/a?page=2&access_token=[REDACTED]&y=3#top"),
        ("https://s3.example/a?X-Amz-Signature=hunter2", "https://s3.example/a?X-Amz-Signature=[REDACTED]"),
        ("https://shop.example/a#id%5Ftoken=hunter2", "https://shop.example/a#id%5Ftoken=[REDACTED]"),
        ("api_key=hunter2&tokens=3", "api_key=[REDACTED]&tokens=3"),
        ("https://shop.example/a?token=", "https://shop.example/a?token="),
        ("a = b; who@example", "a = b; who@example"),
    ],
)
async def test_O9_the_secrets_of_urls_in_attributes_are_not_kept(
    sent_value: str, kept: str, autojump_clock: MockClock
) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        listed = {"arrayValue": {"values": [text(sent_value)]}}
        mapped = {"kvlistValue": {"values": [attribute("url", text(sent_value)), attribute("password", text("h"))]}}
        given = [attribute("url.full", text(sent_value)), attribute("urls", listed), attribute("map", mapped)]
        await sent(bare, span_message(a_span(attributes=given)), log_message({"attributes": given}))
        (row,) = await spans(app)
        found = {"url.full": kept, "urls": [kept], "map": {"url": kept, "password": "[REDACTED]"}}
        assert {
            key: value if key == "url.full" else json.loads(value) for key, value in row["attributes"].items()
        } == found
        lines = (await app.trigger("engine::logs::list", {}))["logs"]
        assert [line["attributes"] for line in lines if line["service_name"] == "harbour"] == [found]


async def test_O9_secrets_within_the_data_of_a_line_are_not_kept(autojump_clock: MockClock) -> None:
    async with open_observed() as (_, app):
        data: Any = {"user": {"name": "ann", "password": "hunter2"}, "n": 1}
        await app.trigger("engine::log::error", {"message": "line", "data": data})
        (line,) = (await app.trigger("engine::logs::list", {"severity_min": 17}))["logs"]
        assert line["attributes"] == {"data": {"user": {"name": "ann", "password": "[REDACTED]"}, "n": 1}}


async def test_O9_data_that_is_nested_very_deeply_is_kept_in_part(autojump_clock: MockClock) -> None:
    async with open_observed() as (_, app):
        data: Any = "hunter2"
        for level in range(400):
            data = {"password": data} if level == 0 else [data] if level % 2 else {"a": data}
        await app.trigger("engine::log::error", {"message": "line", "data": data})
        (line,) = (await app.trigger("engine::logs::list", {"severity_min": 17}))["logs"]
        assert line["attributes"]["data"][0]["a"][0]["a"]
        assert "hunter2" not in str(line) and "[REDACTED]" in str(line)
        # The recorder is still there.
        assert (await app.trigger("engine::health::check"))["status"] == "healthy"


# --- O10: functions


async def test_O10_a_list_filters_sorts_and_pages(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        second = 1_000_000_000
        found = [
            a_span(
                traceId=f"{number:032x}", spanId=f"{number:016x}", parentSpanId=None, name=f"job {number}",
                startTimeUnixNano=number * second, endTimeUnixNano=(number + 10 - number) * second + number * second,
                attributes=[attribute("parity", text("odd" if number % 2 else "even"))],
                status={"code": 2 if number == 3 else 0},
            )
            for number in range(1, 8)
        ]  # fmt: skip
        await sent(bare, span_message(*found))

        async def listed(**which: Any) -> list[int]:
            answer = await app.trigger("engine::traces::list", which)
            return [int(row["trace_id"], 16) for row in answer["spans"]]

        assert await listed() == [1, 2, 3, 4, 5, 6, 7]
        assert await listed(sort_order="desc", limit=2, offset=1) == [6, 5]
        assert await listed(name="JOB 4") == [4]
        assert await listed(status="error") == [3]
        assert await listed(attributes=[["parity", "even"]]) == [2, 4, 6]
        assert await listed(exclude_attributes=[["parity", "even"]], status="unset") == [1, 5, 7]
        assert await listed(service_name="nobody") == []
        assert await listed(trace_id=f"{5:032x}") == [5]
        assert await listed(trace_ids=[f"{6:032x}", f"{2:032x}", f"{6:032x}", "unknown"]) == [2, 6]
        assert await listed(min_duration_ms=10_001) == []
        # Any overlap with the time counts.
        assert await listed(start_time=13_500, end_time=100_000) == [4, 5, 6, 7]
        assert await listed(end_time=2_500) == [1, 2]
        answer = await app.trigger("engine::traces::list", {"limit": 3})
        assert (answer["total"], answer["offset"], answer["limit"]) == (7, 0, 3)
        with pytest.raises(iii_trio.CallError) as caught:
            await listed(start_time=1e300)
        assert caught.value.code == "time_value_overflow"


@pytest.mark.parametrize(
    ("function", "which", "field"),
    [
        ("engine::traces::list", {"limit": -1}, "limit"),
        ("engine::traces::list", {"offset": -1}, "offset"),
        ("engine::traces::group_by", {"attribute": "shop", "limit": -1}, "limit"),
        ("engine::logs::list", {"limit": -1}, "limit"),
        ("engine::logs::list", {"offset": -1}, "offset"),
        ("engine::metrics::list", {"aggregate_interval": -1}, "aggregate_interval"),
    ],
)
async def test_O10_a_negative_number_of_rows_or_seconds_is_refused_by_its_name(
    function: str, which: dict[str, Any], field: str, autojump_clock: MockClock
) -> None:
    async with open_observed() as (_, app):
        with pytest.raises(iii_trio.CallError, match=rf"\b{field}\b.*-1") as caught:
            await app.trigger(function, which)
        assert caught.value.code == "deserialization_error"
        assert await app.trigger(function, {**which, field: 0})


async def test_O10_without_search_all_spans_only_roots_are_listed(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        child = a_span(spanId="c" * 16, parentSpanId=CHILD, name="below")
        await sent(bare, span_message(a_span(name="above"), child))
        roots = (await app.trigger("engine::traces::list", {}))["spans"]
        assert [row["name"] for row in roots] == ["above"]
        assert len((await app.trigger("engine::traces::list", {"search_all_spans": True}))["spans"]) == 2


async def test_O10_a_trace_whose_parents_form_a_circle_is_listed_by_its_earliest_span(
    autojump_clock: MockClock,
) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        later = a_span(spanId="a" * 16, parentSpanId="b" * 16, name="later", startTimeUnixNano="1700000000100000000")
        earlier = a_span(spanId="b" * 16, parentSpanId="a" * 16, name="earlier")
        await sent(bare, span_message(later, earlier))
        answer = await app.trigger("engine::traces::list", {})
        assert [(row["trace_id"], row["name"]) for row in answer["spans"]] == [(TRACE, "earlier")]
        assert names(await tree(app)) == [["earlier", ["later"]]]


async def test_O10_a_tree_survives_circles_and_depth(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        circle = [a_span(spanId="a" * 16, parentSpanId="b" * 16), a_span(spanId="b" * 16, parentSpanId="a" * 16)]
        chain = [
            a_span(spanId=f"{number:016x}", parentSpanId=f"{number - 1:016x}" if number > 1 else None)
            for number in range(1, 701)
        ]
        await sent(bare, span_message(*circle, *chain))
        roots = await tree(app)
        count, pending = 0, list(roots)
        while pending:
            row = pending.pop()
            count += 1
            pending += row["children"]
        assert count == 702


async def test_O10_traces_are_grouped_and_forgotten(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        spans_of_shops = [
            a_span(spanId=f"{number:016x}", attributes=[attribute("shop", text("north" if number < 3 else "south"))])
            for number in range(1, 6)
        ]
        await sent(bare, span_message(*spans_of_shops))
        answer = await app.trigger("engine::traces::group_by", {"attribute": "shop"})
        assert {group["value"]: group["span_count"] for group in answer["groups"]} == {"north": 2, "south": 3}
        assert {group["duration_ms"] for group in answer["groups"]} == {250}
        assert await app.trigger("engine::traces::clear") == {"success": True}
        assert await spans(app) == []


async def test_O10_the_metrics_of_the_engine_count_every_call_also_where_none_is_sampled(
    autojump_clock: MockClock,
) -> None:
    async with open_observed(observed(sampling=iii_trio.tracing.Sampling(0))) as (_, app):

        @app.function("app::odd")
        async def odd(number: int) -> None:
            if number % 2 == 0:
                raise iii_trio.CallError("even", "")

        for number in range(5):
            try:
                await app.trigger("app::odd", {"number": number})
            except iii_trio.CallError:
                pass
        metrics = (await app.trigger("engine::metrics::list"))["engine_metrics"]
        assert metrics["invocations"]["by_function"]["app::odd"] == 5
        assert metrics["invocations"]["error"] == 3
        assert metrics["workers"]["active"] == 1
        assert await spans(app) == []


async def test_O10_lines_of_engine_log_are_listed_by_their_level_latest_first(autojump_clock: MockClock) -> None:
    async with open_observed() as (_, app):
        for level in ("trace", "debug", "info", "warn", "error"):
            about = {"message": f"at {level}", "service_name": "shop", "data": {"n": 1}}
            await app.trigger(f"engine::log::{level}", about, traceparent=SAMPLED)
        answer = await app.trigger("engine::logs::list", {"severity_min": 1, "trace_id": TRACE})
        shown = [(line["severity_number"], line["body"]) for line in answer["logs"]]
        assert shown == [(17, "at error"), (13, "at warn"), (9, "at info"), (5, "at debug"), (1, "at trace")]
        assert answer["logs"][0]["attributes"] == {"data": {"n": 1}}
        assert {line["service_name"] for line in answer["logs"]} == {"shop"}
        assert await app.trigger("engine::logs::clear") == {"success": True}
        assert (await app.trigger("engine::logs::list"))["total"] == 0


async def test_O10_lines_and_measurements_are_listed_for_as_long_as_they_are_to_be_kept(
    autojump_clock: MockClock,
) -> None:
    settings = observed(logs_retention_seconds=60, metrics_retention_seconds=60)
    async with open_observed(settings) as (engine, app), connected(engine, "/otel") as bare:
        await app.trigger("engine::log::error", {"message": "line"})
        await sent(bare, metric_message({"name": "g", "gauge": {"dataPoints": [{"asInt": 1}]}}))

        async def listed() -> tuple[int, int]:
            lines = await app.trigger("engine::logs::list", {"severity_min": 17})
            return lines["total"], len((await app.trigger("engine::metrics::list"))["sdk_metrics"])

        assert await listed() == (1, 1)
        await trio.sleep(59)
        assert await listed() == (1, 1)
        await trio.sleep(2)
        assert await listed() == (0, 0)


# --- O11: trigger types


async def test_O11_a_binding_to_log_is_called_with_the_lines_of_exactly_its_level(autojump_clock: MockClock) -> None:
    async with open_observed() as (_, app):
        told: list[Any] = []

        @app.function("app::warned")
        async def warned(line: dict[str, Any], metadata: Any) -> None:
            told.append((line["body"], line["severity_number"], metadata))

        app.register_trigger("log", "app::warned", config={"level": "warn"}, metadata={"from": "test"})
        await app.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        for level in ("info", "warn", "error"):
            await app.trigger(f"engine::log::{level}", {"message": level})
        await trio.testing.wait_all_tasks_blocked()
        assert told == [("warn", 13, {"from": "test"})]


async def test_O11_a_slow_function_delays_nothing_and_loses_the_oldest_lines(autojump_clock: MockClock) -> None:
    async with open_observed() as (_, app):
        told: list[str] = []
        go_on = trio.Event()

        @app.function("app::slow")
        async def slow(line: dict[str, Any]) -> None:
            told.append(line["body"])
            await go_on.wait()

        app.register_trigger("log", "app::slow", config={"level": "error"})
        await app.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        for number in range(1500):
            await app.trigger("engine::log::error", {"message": str(number)})
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert told[0] == "0" and told[-1] == "1499"
        assert len(told) == 1 + 1024


async def test_O11_a_binding_to_trace_is_called_once_with_what_belongs_together(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        told: list[Any] = []

        @app.function("app::traced")
        async def traced(trace_ids: list[str]) -> None:
            told.append(trace_ids)

        app.register_trigger("trace", "app::traced", config={"service_name": "HARBOUR", "status": "Error"})
        await app.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        bad = {"code": 2}
        await sent(
            bare,
            span_message(a_span(status=bad), a_span(spanId="c" * 16, status=bad)),
            span_message(a_span(traceId="1" * 32)),
            span_message(a_span(traceId="2" * 32, status=bad)),
        )
        await trio.sleep(1)
        assert told == [[TRACE, "2" * 32]]


async def test_O11_a_binding_whose_function_is_missing_writes_no_line_that_calls_it_again(
    autojump_clock: MockClock,
) -> None:
    async with open_observed() as (_, app):
        app.register_trigger("log", "app::none", config={"level": "all"})
        await app.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        await app.trigger("engine::log::error", {"message": "once"})
        await trio.testing.wait_all_tasks_blocked()
        lines = (await app.trigger("engine::logs::list", {"severity_min": 13}))["logs"]
        assert [line["body"] for line in lines] == ["once"]


async def test_O11_a_level_that_is_none_is_refused_to_its_binder(autojump_clock: MockClock) -> None:
    async with open_observed() as (_, app):

        @app.function("app::note")
        async def note() -> None: ...

        binding = app.register_trigger("log", "app::note", config={"level": "loud"})
        await app.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        assert binding.error is not None and "level" in binding.error.message


# --- O8: bounds, against workers that send much


async def test_O8_large_attributes_resources_and_lines_of_workers_are_within_the_bounds(
    autojump_clock: MockClock,
) -> None:
    bound = 400_000
    settings = observed(memory_bytes=bound, logs_bytes=bound, metrics_bytes=bound)
    large = text("x" * 100_000)
    async with open_observed(settings) as (engine, _), connected(engine, "/otel") as bare:
        gauge = {"name": "g", "gauge": {"dataPoints": [{"asInt": 1, "attributes": [attribute("a", large)]}]}}
        for number in range(20):
            ids = {"spanId": f"{number + 1:016x}", "traceId": f"{number + 1:032x}"}
            await sent(
                bare,
                span_message(a_span(**ids, attributes=[attribute("a", large)])),
                log_message({"body": text("line"), "attributes": [attribute("a", large)]}),
                metric_message(gauge),
            )
            whole = {"attributes": [attribute("service.name", text("s")), attribute("a", large)]}
            scopes = [{"spans": [a_span(traceId=f"{number + 100:032x}")]}]
            resource_spans = {"resourceSpans": [{"resource": whole, "scopeSpans": scopes}]}
            await sent(bare, b"OTLP" + json.dumps(resource_spans).encode())
        recorder = engine.modules["observability"].recorder  # type: ignore[attr-defined]
        for kept in (recorder.spans, recorder.logs, recorder.points):
            assert kept.dropped >= 15
            assert bound - 120_000 < kept.bytes <= bound
        assert recorder.spans.bytes == sum(span.size for trace in recorder.spans for span in trace.values())
        assert recorder.logs.bytes == sum(line.size for line in recorder.logs)


async def test_O8_a_message_of_very_many_records_is_read_up_to_a_number(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        short = {"traceId": TRACE, "name": "s"}
        await sent(bare, span_message(*({**short, "spanId": f"{number:016x}"} for number in range(1, 9000))))
        assert (await app.trigger("engine::traces::list", {"search_all_spans": True}))["total"] == 4096


@pytest.mark.parametrize(
    ("function", "which"),
    [("engine::traces::list", {"name": "nothing"}), ("engine::traces::group_by", {"attribute": "rows"})],
)
async def test_O10_a_search_through_many_spans_lets_other_tasks_run(
    function: str, which: dict[str, Any], autojump_clock: MockClock
) -> None:
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with open_observed() as (engine, app), trio.open_nursery() as nursery:

        async def turns_of_one_search() -> int:
            nonlocal turns
            turns = 0
            await app.trigger(function, which)
            return turns

        nursery.start_soon(tick)
        few = await turns_of_one_search()
        recorder = engine.modules["observability"].recorder  # type: ignore[attr-defined]
        (span,) = read_spans(span_message(a_span())[4:])
        for number in range(1, 10_001):
            recorder.spans.add(msgspec.structs.replace(span, trace_id=f"{number:032x}"))
        assert await turns_of_one_search() >= few + 5
        nursery.cancel_scope.cancel()
