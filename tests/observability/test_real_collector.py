"""A collector of others between the engine and what reads it: Rotel, which PyPI has as a package with its program.

It takes OTLP over HTTP from the engine, decodes it by its own code, and sends what it understood on to a reader of ours.
"""

from __future__ import annotations

import importlib.util
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

import iii_trio
from iii_trio.triggers.observability.settings import ExportSettings
from tests.helpers.bare import connected

from .collector import Collector, collecting, plain
from .observed import SAMPLED, TRACE, observed
from .test_observed_workers import a_span, log_message, metric_message, sent, span_message, text

pytestmark = pytest.mark.slow


@pytest.fixture
def program() -> str:
    """The program of the collector, or a reason to skip."""
    found = importlib.util.find_spec("rotel")
    if found is None or found.origin is None:
        pytest.skip("there is no collector: pip install rotel==0.0.1a15")
    path = Path(found.origin).with_name("rotel-agent")
    tried = subprocess.run([path, "version"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"the collector does not run on this machine: {tried.stderr.decode()[:200]}")
    return str(path)


def free_ports(count: int) -> list[int]:
    """Ports that nothing uses. The program takes no sockets of ours, and no port 0."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def rotel(program: str, reader: Collector, directory: Path) -> Iterator[str]:
    """A running collector that sends all on to `reader`. Yields its address."""
    http, grpc = free_ports(2)
    arguments = [
        program, "start", "--otlp-http-endpoint", f"127.0.0.1:{http}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}",
        "--exporter", "otlp", "--otlp-exporter-protocol", "http", "--disable-batching",
        *(part for name in ("traces", "metrics", "logs")
          for part in (f"--otlp-exporter-{name}-endpoint", f"{reader.address}/v1/{name}")),
    ]  # fmt: skip
    log = directory / "rotel.log"
    with log.open("wb") as output, subprocess.Popen(arguments, stdout=output, stderr=output, cwd=directory) as process:
        try:
            yield f"http://127.0.0.1:{http}"
        finally:
            process.terminate()
            process.wait(30)


async def reached(address: str) -> None:
    """Wait until the collector listens."""
    host, port = address.removeprefix("http://").split(":")
    with trio.fail_after(60):
        while True:
            try:
                stream = await trio.open_tcp_stream(host, int(port))
            except OSError:
                await trio.sleep(0.05)
            else:
                await stream.aclose()
                return


async def test_O12_a_collector_of_others_understands_spans_lines_and_measurements(program: str, tmp_path: Path) -> None:
    with collecting() as reader, rotel(program, reader, tmp_path) as address:
        await reached(address)
        export = ExportSettings(endpoint=address, batch_seconds=0.05, metrics_seconds=0.2, goodbye_seconds=10)
        settings = observed(
            exporter="both", logs_exporter="both", metrics_exporter="both", service_name="shop", export=export
        )
        config = iii_trio.EngineConfig(modules={"observability": settings})
        async with iii_trio.open_engine(config) as engine, engine.open_worker("app") as app:

            @app.function("app::show")
            async def show() -> int:
                return 3

            await app.trigger("app::show", traceparent=SAMPLED)
            async with connected(engine, "/otel") as bare:
                gauge = {"name": "depth", "gauge": {"dataPoints": [{"asInt": "7"}]}}
                lag = {"count": "4", "sum": 10.0, "bucketCounts": ["1", "3"], "explicitBounds": [2.5]}
                histogram = {"name": "lag", "histogram": {"dataPoints": [lag], "aggregationTemporality": 2}}
                await sent(
                    bare,
                    span_message(a_span()),
                    log_message({"body": text("no room"), "severityNumber": 13, "traceId": TRACE}),
                    metric_message(gauge, histogram),
                )
            with trio.fail_after(60):
                while not (  # noqa: ASYNC110 - the reader is a thread
                    {"call app::show", "tide::next"} <= reader.spans().keys()
                    and "no room" in reader.lines()
                    and {"depth", "lag", "iii.invocations.total", "iii.queue.jobs"} <= reader.metrics().keys()
                ):
                    await trio.sleep(0.05)
            details = (await app.trigger("engine::health::check"))["components"]["otel"]["details"]
            assert (details["lost"], details["logs"]["lost"], details["metrics"]["lost"]) == (0, 0, 0)
    call, resource, _ = reader.spans()["call app::show"]
    assert call.trace_id.hex() == TRACE and plain(resource.attributes)["service.name"] == "shop"
    theirs, resource, _ = reader.spans()["tide::next"]
    assert theirs.trace_id.hex() == TRACE and plain(resource.attributes)["service.name"] == "harbour"
    line, _, _ = reader.lines()["no room"]
    assert (line.severity_number, line.trace_id.hex()) == (13, TRACE)
    (point,) = reader.metrics()["lag"][0].histogram.data_points
    assert (point.count, list(point.bucket_counts)) == (4, [1, 3])
