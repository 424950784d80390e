"""Lines and measurements for a collector (promise O12), and the numbers of queues (O14)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio.engine.policy import ListenerPolicy
from iii_trio.triggers.observability.numbers import OTHERS, Commits, QueueLabels, QueueNumbers, QueueRow
from iii_trio.triggers.observability.settings import ExportSettings
from tests.engine.test_metrics import ask
from tests.helpers.bare import connected

from .collector import Collector, collecting, plain
from .observed import SAMPLED, TRACE, VIRTUAL, observed, open_observed
from .test_export import StuckExporter, exporting_to
from .test_observed_workers import CHILD, attribute, log_message, metric_message, sent, text


def exporting(collector: Collector, **more: Any) -> Any:
    """Settings that send lines and measurements to a collector, and no spans."""
    export = ExportSettings(endpoint=collector.address, goodbye_seconds=10)
    wished = {"exporter": "memory", "logs_exporter": "both", "metrics_exporter": "both", "export": export}
    return observed(service_name="shop", **{**wished, **more})


def numbers(metric: Any, kind: str = "gauge") -> dict[tuple[str, ...], float]:
    """The values of a metric by their labels."""
    return {
        tuple(plain(point.attributes).values()): point.as_double or point.as_int
        for point in getattr(metric, kind).data_points
    }


async def test_O12_lines_of_the_engine_and_of_workers_reach_the_collector() -> None:
    with collecting() as collector:
        config = iii_trio.EngineConfig(modules={"observability": exporting(collector)})
        async with iii_trio.open_engine(config) as engine, engine.open_worker("app") as app:
            async with connected(engine, "/otel") as bare:
                record = {
                    "timeUnixNano": "1700000000000000001", "severityNumber": 13, "severityText": "WARN",
                    "body": text("no room"), "attributes": [attribute("password", text("hunter2"))],
                    "traceId": TRACE, "spanId": CHILD,
                }  # fmt: skip
                await sent(bare, log_message(record))
            line = {"message": "sold out", "data": {"rows": 3}, "service_name": "till"}
            await app.trigger("engine::log::error", line, traceparent=SAMPLED)
        found = collector.lines()
        assert set(collector.paths) <= {"/v1/logs", "/v1/metrics"}
        theirs, resource, scope = found["no room"]
        assert (theirs.time_unix_nano, theirs.severity_number, theirs.severity_text) == (
            1700000000000000001,
            13,
            "WARN",
        )
        assert (theirs.trace_id.hex(), theirs.span_id.hex()) == (TRACE, CHILD)
        assert plain(theirs.attributes) == {"password": "[REDACTED]"}
        assert plain(resource.attributes) == {"service.name": "harbour", "process.pid": 77} and scope.name == "iii-py"
        ours, resource, _ = found["sold out"]
        assert (ours.severity_number, ours.trace_id.hex()) == (17, TRACE)
        assert plain(resource.attributes) == {"service.name": "till"}
        assert plain(ours.attributes)["data"].values[0].value.int_value == 3


async def test_O12_measurements_of_workers_reach_the_collector_as_they_were_taken() -> None:
    with collecting() as collector:
        config = iii_trio.EngineConfig(modules={"observability": exporting(collector)})
        async with iii_trio.open_engine(config) as engine, connected(engine, "/otel") as bare:
            point = {"startTimeUnixNano": "5", "timeUnixNano": "1700000000000000000"}
            lag = {**point, "count": "4", "sum": 10.0, "bucketCounts": ["1", "3"], "explicitBounds": [2.5], "max": 6.0}
            await sent(
                bare,
                metric_message(
                    {"name": "depth", "unit": "jobs", "gauge": {"dataPoints": [{**point, "asInt": "7"}]}},
                    {"name": "sold", "sum": {"dataPoints": [{**point, "asInt": "9"}], "isMonotonic": True,
                                             "aggregationTemporality": 2}},
                    {"name": "change", "sum": {"dataPoints": [{**point, "asDouble": -1.5}], "aggregationTemporality": 1}},
                    {"name": "lag", "histogram": {"dataPoints": [lag], "aggregationTemporality": 1}},
                ),
                metric_message({"name": "in another message", "gauge": {"dataPoints": [{**point, "asInt": "1"}]}}),
            )  # fmt: skip
        found = collector.metrics()
        depth, resource, scope = found["depth"]
        assert plain(resource.attributes)["service.name"] == "harbour" and scope.name == ""
        assert "in another message" in found
        assert depth.unit == "jobs" and depth.gauge.data_points[0].as_int == 7
        assert depth.gauge.data_points[0].time_unix_nano == 1700000000000000000
        sold, change = found["sold"][0].sum, found["change"][0].sum
        assert (sold.is_monotonic, sold.aggregation_temporality, sold.data_points[0].as_int) == (True, 2, 9)
        assert sold.data_points[0].start_time_unix_nano == 5
        assert (change.is_monotonic, change.aggregation_temporality, change.data_points[0].as_double) == (
            False,
            1,
            -1.5,
        )
        (histogram,) = found["lag"][0].histogram.data_points
        assert (histogram.count, histogram.sum, histogram.max) == (4, 10.0, 6.0)
        assert not histogram.HasField("min")
        assert (list(histogram.bucket_counts), list(histogram.explicit_bounds)) == ([1, 3], [2.5])


async def test_O12_the_engines_own_numbers_reach_the_collector_also_at_its_end() -> None:
    with collecting() as collector:
        modules = {"observability": exporting(collector)}
        config = iii_trio.EngineConfig(modules=modules)
        async with iii_trio.open_engine(config) as engine, engine.open_worker("app") as app:

            @app.function("app::note")
            async def note() -> None: ...

            for _ in range(3):
                await app.trigger("app::note")
        found = collector.metrics()
        invocations, resource, _ = found["iii.invocations.total"]
        assert numbers(invocations, "sum") == {("app::note", "ok"): 3, ("app::note", "error"): 0}
        assert invocations.sum.is_monotonic and plain(resource.attributes)["service.name"] == "shop"
        assert "iii.workers.active" in found and numbers(found["iii.telemetry.lost"][0], "sum")[("metrics",)] == 0


async def test_O12_a_collector_of_lines_that_takes_nothing_delays_no_call_and_no_end() -> None:
    stuck, also_stuck = StuckExporter(), StuckExporter()
    export = ExportSettings(queue_records=20, batch_records=5, batch_seconds=0.01, goodbye_seconds=0.1)
    async with (
        exporting_to(observed(export=export), logs=stuck, metrics=also_stuck) as engine,
        engine.open_worker("app") as app,
    ):
        with trio.fail_after(30):
            for _ in range(100):
                await app.trigger("engine::log::info", {"message": "line"})
            await trio.to_thread.run_sync(stuck.entered.wait)
            details = (await app.trigger("engine::health::check"))["components"]["otel"]["details"]
        assert details["exporting"] is False and details["logs"]["sent"] == 0
        assert details["logs"]["waiting"] <= 20 and details["logs"]["lost"] >= 100 - 20 - 5
        lines = (await app.trigger("engine::logs::list", {"severity_text": "INFO"}))["total"]
        assert lines >= 100
    assert stuck.was_shut_down.wait(5)


async def test_O12_the_engines_numbers_are_taken_at_each_interval(autojump_clock: MockClock) -> None:
    taken: list[Any] = []

    class Exporter:
        def export(self, data: Any) -> Any:
            taken.append(data)
            raise ConnectionError

        def shutdown(self) -> None: ...

    settings = observed(export=ExportSettings(metrics_seconds=60, batch_seconds=0.01, goodbye_seconds=5))
    async with exporting_to(settings, metrics=Exporter()) as engine:
        export = engine.modules["exporting"]._functions._exports["metrics"]  # type: ignore[attr-defined]
        put: list[str] = []
        export.put = lambda point: put.append(point.name)
        await trio.sleep(59)
        assert not put
        await trio.sleep(2)
        assert put.count("iii.workers.active") == 1
        await trio.sleep(60)
        assert put.count("iii.workers.active") == 2


async def test_logs_and_metrics_can_be_switched_off(autojump_clock: MockClock) -> None:
    settings = observed(logs_enabled=False, metrics_enabled=False)
    async with open_observed(settings) as (engine, app), connected(engine, "/otel") as bare:
        gauge = {"name": "depth", "gauge": {"dataPoints": [{"asInt": "7"}]}}
        await sent(bare, log_message({"body": text("line")}), metric_message(gauge))
        await app.trigger("engine::log::error", {"message": "line"})
        assert (await app.trigger("engine::logs::list"))["logs"] == []
        assert (await app.trigger("engine::metrics::list"))["sdk_metrics"] == []


# --- O14: the numbers of queues


async def test_O14_queues_are_in_the_list_of_metrics_and_on_the_page(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app):

        @app.function("app::fail")
        async def fail() -> None:
            raise ValueError("no")

        receipt = await app.trigger("app::fail", {}, action=iii_trio.enqueue("default"))
        await app.trigger("app::later", {}, action=iii_trio.enqueue("default"))
        assert receipt
        await trio.sleep(3600)
        queue = (await app.trigger("engine::metrics::list"))["engine_metrics"]["queue"]
        (row,) = [row for row in queue["queues"] if row["name"] == "default"]
        assert (row["dead"], row["depth"]) == (1, 1) and row["calls"] > 1 and row["oldest_seconds"] >= 3600
        assert queue["commits"]["count"] > 0
        _, page = await ask(engine, ListenerPolicy())
        assert 'iii_queue_jobs{kind="queue",queue="default",state="dead"} 1.0' in page
        assert f'iii_queue_attempts_total{{kind="queue",queue="default"}} {float(row["calls"])}' in page
        assert 'iii_queue_commit_seconds{of="median"}' in page


def test_O14_a_hundred_queues_are_told_apart_and_the_others_are_one() -> None:
    labels = QueueLabels()
    first = QueueNumbers([QueueRow(f"q{number}", "queue", depth=1, calls=2) for number in range(100)])
    assert len(labels.measured(first)[0].values) == 400
    more = [QueueRow(f"a{number}", "topic", depth=2, calls=3, oldest_seconds=float(number)) for number in range(50)]
    found = {each.name: each for each in labels.measured(QueueNumbers([*more, *first.queues], Commits(5, 0.25, 1.0)))}
    attempts = {labels["queue"]: value for labels, value in found["iii.queue.attempts"].values}
    assert len(attempts) == 101 and attempts[OTHERS] == 150 and attempts["q7"] == 2
    oldest = {labels["queue"]: value for labels, value in found["iii.queue.oldest_seconds"].values}
    assert oldest == {OTHERS: 49.0}
    assert found["iii.queue.commit_seconds"].values == [({"of": "median"}, 0.25), ({"of": "max"}, 1.0)]


async def test_O14_without_a_queue_there_are_no_numbers_of_one(autojump_clock: MockClock) -> None:
    modules = {"queue": None, "observability": observed()}
    async with (
        iii_trio.open_engine(iii_trio.EngineConfig(modules=modules), environment=VIRTUAL) as engine,
        engine.open_worker("app") as app,
    ):
        assert (await app.trigger("engine::metrics::list"))["engine_metrics"]["queue"]["queues"] == []


@pytest.mark.parametrize("failure", ["raises", "hangs"])
async def test_O14_a_source_of_numbers_that_fails_leaves_the_page_of_the_engine(
    failure: str, autojump_clock: MockClock
) -> None:
    async def source() -> Any:
        if failure == "raises":
            raise ValueError("odd")
        await trio.sleep_forever()

    async with iii_trio.open_engine() as engine:
        engine._shell.metrics_source = source
        status, page = await ask(engine, ListenerPolicy())
        assert status == 200 and "iii_sessions 0.0" in page
