"""A collector for tests. It takes OTLP over HTTP and decodes requests by OpenTelemetry's own messages."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_REQUESTS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}


class Collector:
    """Takes requests as a collector does, and keeps them."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.paths.append(self.path)
                collector.headers.append({key.lower(): value for key, value in self.headers.items()})
                collector.requests.append(_REQUESTS[self.path].FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> dict[str, tuple[Any, Any, Any]]:
        """Each span by its name, with its resource and scope."""
        return {
            span.name: (span, group.resource, scope.scope)
            for request in self._of(ExportTraceServiceRequest)
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        }

    def lines(self) -> dict[str, tuple[Any, Any, Any]]:
        """Each line by its text, with its resource and scope."""
        return {
            record.body.string_value: (record, group.resource, scope.scope)
            for request in self._of(ExportLogsServiceRequest)
            for group in request.resource_logs
            for scope in group.scope_logs
            for record in scope.log_records
        }

    def metrics(self) -> dict[str, tuple[Any, Any, Any]]:
        """The latest of each metric by its name, with its resource and scope."""
        return {
            metric.name: (metric, group.resource, scope.scope)
            for request in self._of(ExportMetricsServiceRequest)
            for group in request.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
        }

    def _of(self, kind: type[Any]) -> list[Any]:
        return [request for request in list(self.requests) if isinstance(request, kind)]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that runs for the length of the block."""
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        collector.server.server_close()
        thread.join()


def plain(attributes: Any) -> dict[str, Any]:
    """Attributes as a dictionary."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
