"""Export to a collector: promise O12 of docs/observability.md. Requests are decoded by OpenTelemetry's own messages."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

import iii_trio
from iii_trio.errors import ConfigError
from iii_trio.triggers.module import ModuleEnvironment, RunningModule
from iii_trio.triggers.observability import module as observability
from iii_trio.triggers.observability.declaration import OBSERVABILITY
from iii_trio.triggers.observability.export import Export
from iii_trio.triggers.observability.exporters import LOGS, METRICS, TRACES, Signal, wants_export
from iii_trio.triggers.observability.otlp import read_spans
from iii_trio.triggers.observability.settings import ExportSettings, ObservabilityConfig
from tests.helpers.bare import connected

from .collector import collecting, plain
from .observed import SAMPLED, TRACE, observed, spans
from .test_observed_workers import a_span, attribute, sent, span_message, text


async def test_O12_spans_of_the_engine_and_of_workers_reach_the_collector_in_one_trace() -> None:
    with collecting() as collector:
        settings = observed(
            exporter="both",
            logs_exporter="memory",
            metrics_exporter="memory",
            service_name="shop",
            resource={"deployment.environment": "test"},
            export=ExportSettings(endpoint=collector.address, headers={"x-team": "blue"}, goodbye_seconds=10),
        )
        config = iii_trio.EngineConfig(modules={"observability": settings})
        async with iii_trio.open_engine(config) as engine, engine.open_worker("app") as app:

            @app.function("app::show")
            async def show(reader: iii_trio.ChannelReader) -> int:
                return len(await reader.read_all())

            async with connected(engine, "/otel") as bare, app.create_channel() as channel:
                await channel.writer.send(b"abc")
                await channel.writer.aclose()
                await app.trigger("app::show", {"reader": channel.reader_ref}, traceparent=SAMPLED)
                await channel.wait_outcome()
                values = {
                    "rows": {"intValue": "3"}, "ratio": {"doubleValue": 0.5}, "hit": {"boolValue": True},
                    "tags": {"arrayValue": {"values": [text("a"), text("b")]}}, "token": text("kept"),
                }  # fmt: skip
                event = {"name": "retry", "timeUnixNano": "1700000000100000000", "attributes": []}
                link = {"traceId": "1" * 32, "spanId": "2" * 16, "attributes": [attribute("why", text("batch"))]}
                theirs = a_span(
                    attributes=[attribute(key, value) for key, value in values.items()], events=[event], links=[link],
                    traceState="vendor=1", status={"code": 2, "message": "late"},
                )  # fmt: skip
                await sent(bare, span_message(theirs))
        found = collector.spans()
        assert set(collector.paths) == {"/v1/traces"}
        assert collector.headers[0]["content-type"] == "application/x-protobuf"
        assert collector.headers[0]["x-team"] == "blue"
        call, resource, scope = found["call app::show"]
        assert call.trace_id.hex() == TRACE and call.parent_span_id.hex() == SAMPLED.split("-")[2]
        assert plain(resource.attributes) == {"service.name": "shop", "deployment.environment": "test"}
        assert scope.name == "iii_trio" and call.kind == 2 and call.status.code == 1
        assert plain(call.attributes)["iii.callee"] == "app"
        channel_span, _, _ = found["channel"]
        assert [linked.span_id for linked in channel_span.links] == [call.span_id]
        assert plain(channel_span.attributes)["iii.channel.bytes"] == 3
        theirs_out, resource, scope = found["tide::next"]
        assert theirs_out.trace_id.hex() == TRACE and theirs_out.trace_state == "vendor=1"
        assert plain(resource.attributes) == {"service.name": "harbour", "process.pid": 77}
        assert (scope.name, scope.version, theirs_out.kind) == ("iii-py", "0.25.0", 2)
        out = plain(theirs_out.attributes)
        assert [value.string_value for value in out.pop("tags").values] == ["a", "b"]
        assert out == {"rows": 3, "ratio": 0.5, "hit": True, "token": "kept"}
        assert theirs_out.start_time_unix_nano == 1_700_000_000_000_000_000
        assert theirs_out.end_time_unix_nano == 1_700_000_000_250_000_000
        assert [(one.name, one.time_unix_nano) for one in theirs_out.events] == [("retry", 1_700_000_000_100_000_000)]
        assert [(one.trace_id.hex(), plain(one.attributes)) for one in theirs_out.links] == [
            ("1" * 32, {"why": "batch"})
        ]
        assert (theirs_out.status.code, theirs_out.status.message) == (2, "late")


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Wait for the thread that an engine abandoned, because it would write its log lines into the next test."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("iii-trio otlp"):
            thread.join(10)
            assert not thread.is_alive(), thread.name


class StuckExporter:
    """A collector that takes a connection, and then nothing."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.was_shut_down = threading.Event()

    def export(self, spans: Sequence[Any]) -> Any:
        self.entered.set()
        self.release.wait()
        raise ConnectionError("nobody takes it")

    def shutdown(self) -> None:
        self.was_shut_down.set()
        self.release.set()


@asynccontextmanager
async def exporting_to(settings: ObservabilityConfig, **exporters: Any) -> AsyncIterator[iii_trio.Engine]:
    """An engine that exports to exporters of ours."""

    @asynccontextmanager
    async def open_with(
        address: Any, config: ObservabilityConfig, environment: ModuleEnvironment
    ) -> AsyncIterator[RunningModule]:
        async with observability.open_observability(
            address, config, environment=environment, exporters=exporters, environ={}
        ) as running:
            yield running

    ours = msgspec.structs.replace(OBSERVABILITY, name="exporting", open=open_with, entries=())
    config = iii_trio.EngineConfig(modules={"exporting": settings})
    async with iii_trio.open_engine(config, modules=[ours]) as engine:
        yield engine


async def test_O12_a_collector_that_takes_nothing_delays_no_call_and_no_end_and_its_loss_is_counted() -> None:
    exporter = StuckExporter()
    settings = observed(
        export=ExportSettings(queue_records=50, batch_records=10, batch_seconds=0.01, goodbye_seconds=0.1)
    )
    async with exporting_to(settings, traces=exporter) as engine, engine.open_worker("app") as app:

        @app.function("app::note")
        async def note() -> None: ...

        for _ in range(10):
            await app.trigger("app::note")
        await trio.to_thread.run_sync(exporter.entered.wait)
        # The thread holds one batch and the queue fills. Each further call is answered while nothing is taken.
        for _ in range(100):
            await app.trigger("app::note")
        health = await app.trigger("engine::health::check")
        details = health["components"]["otel"]["details"]
        assert (details["waiting"], details["sent"]) == (50, 0)
        # The rest, but for the batch that the thread holds.
        assert 110 - 50 - 10 <= details["lost"] < 110 - 50
        assert len(await spans(app)) == 110
        before = time.monotonic()
    # The goodbye, and what a loaded machine adds.
    assert time.monotonic() - before < 5
    assert exporter.was_shut_down.wait(5)


def test_O12_a_collector_that_is_gone_is_reported_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    exporter = StuckExporter()
    exporter.release.set()
    settings = ExportSettings(batch_records=1, batch_seconds=0.01, goodbye_seconds=60)
    export = Export(TRACES, exporter, settings, observability.LOGGER)
    (span,) = read_spans(span_message(a_span())[4:])
    for _ in range(20):
        export.put(span)
    export.close()
    export.join()
    status = export.status()
    assert (status["lost"], status["waiting"], status["sent"], status["failed"]) == (20, 0, 0, True)
    lines = [record for record in caplog.records if record.name == "iii_trio.observability"]
    assert len(lines) == 1 and "nobody takes it" in lines[0].getMessage()


async def test_O12_an_export_that_fails_makes_the_health_degraded() -> None:
    exporter = StuckExporter()
    exporter.release.set()
    settings = observed(export=ExportSettings(batch_records=1, batch_seconds=0.01))
    async with exporting_to(settings, traces=exporter) as engine, engine.open_worker("app") as app:
        assert (await app.trigger("engine::health::check"))["status"] == "healthy"
        engine.modules["exporting"]._functions._exports["traces"].failed = True  # type: ignore[attr-defined]
        assert (await app.trigger("engine::health::check"))["status"] == "degraded"


NAMED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}


@pytest.mark.parametrize(
    ("settings", "environ", "wanted"),
    [
        ({}, {}, []),
        ({}, NAMED, [TRACES, LOGS, METRICS]),
        ({}, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, [TRACES]),
        ({}, {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c:4318/v1/logs"}, [LOGS]),
        ({}, {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}, [METRICS]),
        ({}, NAMED | {"OTEL_SDK_DISABLED": "true"}, []),
        ({}, NAMED | {"OTEL_TRACES_EXPORTER": "none"}, [LOGS, METRICS]),
        ({}, NAMED | {"OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "None"}, [TRACES]),
        ({"exporter": "memory"}, NAMED, [LOGS, METRICS]),
        ({"logs_exporter": "memory", "metrics_enabled": False}, NAMED, [TRACES]),
        ({"exporter": "both"}, {}, [TRACES]),
        ({"logs_exporter": "otlp", "logs_enabled": False}, {}, []),
        ({"metrics_exporter": "both"}, {}, [METRICS]),
        ({"export": ExportSettings(endpoint="http://c:4318")}, {}, [TRACES, LOGS, METRICS]),
    ],
)
def test_O12_the_settings_and_then_the_environment_say_what_to_export(
    settings: dict[str, Any], environ: dict[str, str], wanted: list[Signal]
) -> None:
    config = ObservabilityConfig(**settings)
    assert [signal for signal in (TRACES, LOGS, METRICS) if wants_export(signal, config, environ)] == wanted


async def test_O12_without_the_exporter_the_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    config = iii_trio.EngineConfig(modules={"observability": observed(exporter="both")})
    with pytest.raises(ConfigError, match=r"install `iii-trio\[otel\]`"):
        async with iii_trio.open_engine(config):
            pass
