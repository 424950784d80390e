"""Telemetry is passed on, and the module `observability` reads it: gauges become metrics, records lines of the log."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import EngineConfig, Timeouts, open_engine
from iii_trio.engine.admit import serve_stream
from iii_trio.engine.policy import ListenerPolicy
from iii_trio.triggers.observability.settings import ObservabilityConfig
from tests.helpers.bare import Bare, connected, within

MODULES = {"observability": ObservabilityConfig(exporter="memory")}
READING = EngineConfig(modules=MODULES)
SERVICE = {"attributes": [{"key": "service.name", "value": {"stringValue": "harbour"}}]}


def metrics(worker_id: str, **values: float) -> bytes:
    """As SDKs send them."""
    mine = [{"key": "worker.id", "value": {"stringValue": worker_id}}]
    found = [
        {"name": f"iii.worker.{name}", "gauge": {"dataPoints": [
            {"attributes": mine, "timeUnixNano": "1700000000123456789", "asDouble": value}]}}
        for name, value in values.items()
    ]  # fmt: skip
    request = {"resourceMetrics": [{"resource": SERVICE, "scopeMetrics": [{"scope": {}, "metrics": found}]}]}
    return b"MTRC" + json.dumps(request).encode()


def logs(*bodies: str, severity: int = 13, worker_id: str | None = None) -> bytes:
    record: dict[str, Any] = {"severityNumber": severity, "traceId": "0af7", "spanId": "b7ad"}
    if worker_id is not None:
        record["attributes"] = [{"key": "worker.id", "value": {"stringValue": worker_id}}]
    records = [{**record, "body": {"stringValue": body}} for body in bodies]
    return (
        b"LOGS" + json.dumps({"resourceLogs": [{"resource": SERVICE, "scopeLogs": [{"logRecords": records}]}]}).encode()
    )


async def read_so_far(bare: Bare) -> None:
    """The engine has read all that was sent."""
    await bare.say(9, b"?")
    while await bare.frame() != (10, b"?"):
        pass


async def described(worker: iii_trio.Worker) -> dict[str, Any]:
    said: dict[str, Any] = (await worker.trigger("engine::workers::info", {"name": "files"}))["worker"]
    return said


@within(600)
@pytest.mark.parametrize("target", ["/otel", "/"])
async def test_a_workers_gauges_are_its_latest_metrics_for_two_minutes(
    target: str, autojump_clock: trio.testing.MockClock
) -> None:
    config = EngineConfig(timeouts=Timeouts(silent_worker_seconds=None), modules=MODULES)
    async with open_engine(config) as engine, engine.open_worker("files") as worker, connected(engine, target) as bare:
        row = await described(worker)
        assert "latest_metrics" not in row
        gauges = {"memory.rss": 5.0, "cpu.percent": 0.5, "event_loop.lag_ms": 2.0}
        await bare.say(2, metrics(row["id"], **gauges))
        await bare.say(2, metrics(row["id"], **{"cpu.percent": 0.75}))
        await bare.say(2, metrics("of nobody who is here", **gauges))
        await read_so_far(bare)
        assert (await described(worker))["latest_metrics"] == {
            "memory_rss": 5.0, "cpu_percent": 0.75, "event_loop_lag_ms": 2.0, "timestamp_ms": 1700000000123,
            "runtime": "python",
        }  # fmt: skip
        await trio.sleep(121)
        assert "latest_metrics" not in await described(worker)


@within(60)
async def test_only_so_many_gauges_are_kept_of_one_worker(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_engine(READING) as engine,
        engine.open_worker("files") as worker,
        connected(engine, "/otel") as bare,
    ):
        row = await described(worker)
        await bare.say(2, metrics(row["id"], **{f"g{number}": 1.0 for number in range(1000)}))
        await bare.say(2, metrics(row["id"], **{"g0": 2.0, "x" * 65: 1.0, "Ü": 1.0}))
        await read_so_far(bare)
        latest = (await described(worker))["latest_metrics"]
        assert len(latest) == 32 + 2 and latest["g0"] == 2.0


@within(60)
@pytest.mark.parametrize("target", ["/otel", "/"])
async def test_what_a_service_logs_is_a_line_of_the_log_with_its_ids(
    target: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "iii_trio.engine")
    async with open_engine(READING) as engine, engine.open_worker("files") as worker, connected(engine, target) as bare:
        sender = (await bare.message())["worker_id"] if target == "/" else None
        row = await described(worker)
        await bare.say(2, logs("no\nroom\x1b[31m"))
        await bare.say(2, logs("all is lost", severity=17, worker_id=row["id"]))
        await bare.say(2, logs("detail", severity=5, worker_id="of nobody who is here"))
        await read_so_far(bare)
    lines = [vars(record) for record in caplog.records if record.getMessage().startswith("harbour: ")]
    assert [(line["levelname"], line["args"][0]) for line in lines] == [
        ("WARNING", "harbour: no room"), ("ERROR", "harbour: all is lost"), ("DEBUG", "harbour: detail")
    ]  # fmt: skip
    assert [line.get("iii_session") for line in lines] == [sender, row["id"], sender]
    assert {(line["iii_service_name"], line["iii_trace_id"], line["iii_span_id"]) for line in lines} == {
        ("harbour", "0af7", "b7ad")
    }


@within(60)
@pytest.mark.parametrize("target", ["/otel", "/"])
async def test_what_cannot_be_read_is_a_line_in_the_log_and_the_next_message_is_read(
    target: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine(READING) as engine, engine.open_worker("files") as worker, connected(engine, target) as bare:
        row = await described(worker)
        for nonsense in (b"MTRC{", b"LOGS\xff", b"OTLP[]", b"MTRC" + b"[" * 10_000, b"LOGS" + b" " * 4_000_000):
            await bare.say(2, nonsense)
        await bare.say(2, metrics(row["id"], cpu=1.0))
        await read_so_far(bare)
        assert (await described(worker))["latest_metrics"]["cpu"] == 1.0
    lines = [record for record in caplog.records if "telemetry" in record.getMessage()]
    assert len(lines) == 5 and all(hasattr(line, "iii_session" if target == "/" else "iii_peer") for line in lines)
    assert "at most 1048576 are read: send smaller batches" in lines[-1].getMessage()


@within(60)
async def test_text_and_messages_of_other_kinds_mean_nothing_on_otel(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    async with open_engine(READING) as engine, connected(engine, "/otel") as bare:
        await bare.say(1, logs("as text"))
        await bare.say(2, b"ABCD")
        await bare.tell(type="invokefunction", function_id="engine::log::info", data={"message": "from otel"})
        await read_so_far(bare)
        assert engine.statistics().sessions == 0
    assert not [record for record in caplog.records if record.name == "iii_trio.engine"]


@within(60)
async def test_one_that_breaks_the_protocol_ends_itself_only_and_the_log_says_why(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine(READING) as engine, connected(engine, "/otel") as bare, connected(engine, "/otel") as other:
        await bare.say(3, b"a reserved opcode")
        opcode, payload = await bare.frame() or (0, b"")
        assert (opcode, int.from_bytes(payload[:2], "big")) == (8, 1002)
        await read_so_far(other)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "iii_trio.engine"]
    assert "a telemetry connection was ended: it broke the protocol" in line


@within(60)
@pytest.mark.parametrize("config", [EngineConfig(), READING])
async def test_the_embedding_program_gets_telemetry_as_it_came_with_or_without_the_module(
    config: EngineConfig, autojump_clock: trio.testing.MockClock
) -> None:
    got: list[tuple[str, bytes]] = []

    def take(kind: str, body: bytes) -> None:
        got.append((kind, body))
        raise RuntimeError("the collector is away")

    async with open_engine(config, on_telemetry=take) as engine, connected(engine, "/otel") as bare:
        await bare.say(2, b'OTLP{"resourceSpans":[{"a":1}]}')
        await bare.say(2, b"OTLP{")
        await bare.say(2, metrics("w", cpu=1.0))
        await bare.say(2, logs("line"))
        await read_so_far(bare)
    assert [kind for kind, _ in got] == ["resourceSpans", "resourceSpans", "resourceMetrics", "resourceLogs"]
    assert [body for _, body in got][:2] == [b'{"resourceSpans":[{"a":1}]}', b"{"]


@within(60)
async def test_without_the_module_telemetry_is_not_read(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "iii_trio.engine")
    async with open_engine() as engine, engine.open_worker("files") as worker, connected(engine, "/otel") as bare:
        row = await described(worker)
        for message in (metrics(row["id"], cpu=1.0), logs("a line"), b"MTRC{"):
            await bare.say(2, message)
        await read_so_far(bare)
        assert "latest_metrics" not in await described(worker)
    assert not [record for record in caplog.records if "a line" in record.getMessage() or "read" in record.getMessage()]


@within(60)
async def test_a_flood_of_a_services_lines_is_bounded_and_hides_neither_others_nor_the_engines(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    async with open_engine(READING) as engine, connected(engine, "/") as flood, connected(engine, "/") as quiet:
        for _ in range(20):
            await flood.say(2, logs(*["noise"] * 500))
        await quiet.say(2, logs("a word"))
        await read_so_far(flood)
        await read_so_far(quiet)
    said = [record.getMessage() for record in caplog.records]
    assert said.count("harbour: noise") <= 60 and said.count("harbour: a word") == 1
    assert sum("is gone" in line for line in said) == 2


@within(60)
@pytest.mark.parametrize(("token", "believed"), [("known", True), ("wrong", False), (None, False)])
async def test_where_workers_need_a_token_telemetry_without_one_is_taken_and_thrown_away(
    token: str | None, believed: bool, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine(READING) as engine, trio.open_nursery() as nursery:
        near, far = trio.testing.memory_stream_pair()
        nursery.start_soon(serve_stream, engine._shell, far, None, ListenerPolicy(tokens=["known"]))
        bare = Bare(near)
        assert await bare.ask("/otel", **({} if token is None else {"authorization": f"Bearer {token}"})) == 101
        await bare.say(2, logs("a line"))
        await read_so_far(bare)
        assert any("harbour: a line" in record.getMessage() for record in caplog.records) == believed
        await trio.aclose_forcefully(near)
