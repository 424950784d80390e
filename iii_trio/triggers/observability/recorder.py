"""The recorder of what an engine observes. It keeps the latest records within bounds, and tells its listeners of each."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Final, final

from ...errors import MessageError
from ...observed import CallFacts, ChannelCounts, ChannelFacts, LogLine
from ...tracing import Span
from ..module import Host
from .bounded import Bounded
from .engine_spans import span_of_call, span_of_channel, span_of_module
from .otlp import read_logs, read_points, read_spans
from .records import Resource, Scope, StoredLog, StoredPoint, StoredSpan, keep_log, log_level
from .settings import ObservabilityConfig
from .span_store import SpanStore

_SCOPE: Final = Scope("iii_trio")
_GAUGE: Final = r"iii\.worker\.([a-z0-9_.]{1,64})"


@final
class Recorder:
    """The sink of an engine's tracing. `own_worker` is the name of the module's worker, whose calls are not recorded.

    `host` gets the lines that workers log, and what they measure of themselves.
    """

    def __init__(
        self,
        config: ObservabilityConfig,
        wall_clock: Callable[[], float],
        *,
        own_worker: str,
        host: Host | None = None,
    ) -> None:
        self.spans = SpanStore(config.memory_max_spans, config.memory_bytes)
        self.logs: Bounded[StoredLog] = Bounded(config.logs_max_count, config.logs_bytes)
        self.points: Bounded[StoredPoint] = Bounded(config.metrics_max_count, config.metrics_bytes)
        self.on_span: list[Callable[[StoredSpan], object]] = []
        """Called with each span that was recorded and has ended."""
        self.on_log: list[Callable[[StoredLog], object]] = []
        """Called with each line that was recorded."""
        self.on_point: list[Callable[[StoredPoint], object]] = []
        """Called with each measurement of a worker that was recorded."""
        self._wall_clock = wall_clock
        self._own_worker = own_worker
        self._host = host
        self.resource = Resource("", {})
        """The engine, as the maker of its records."""
        self._config = config
        self.reconfigure(config)

    def reconfigure(self, config: ObservabilityConfig) -> None:
        """Use these bounds and names from now on."""
        self.spans.change_bounds(config.memory_max_spans, config.memory_bytes)
        self.logs.change_bounds(config.logs_max_count, config.logs_bytes)
        self.points.change_bounds(config.metrics_max_count, config.metrics_bytes)
        self._config = config
        self.resource = Resource(config.service_name, {"service.name": config.service_name, **config.resource})

    @property
    def now_ns(self) -> int:
        """The time in nanoseconds since 1970."""
        return int(self._wall_clock() * 1e9)

    def add_span(self, span: Span) -> None:
        """Record a span of a module's own work."""
        self._record(span_of_module(span, self.resource))

    def add_call(self, call: CallFacts, start_ns: int, end_ns: int) -> None:
        """Record a call that has ended."""
        # Looking at traces must not fill the memory of traces.
        if call.callee == self._own_worker or call.caller == self._own_worker:
            return
        self._record(span_of_call(call, start_ns, end_ns, self.resource))

    def add_channel(
        self, channel: ChannelFacts, outcome: str, counts: ChannelCounts, start_ns: int, end_ns: int
    ) -> None:
        """Record a channel that has ended."""
        self._record(span_of_channel(channel, outcome, counts, start_ns, end_ns, self.resource))

    def _record(self, span: StoredSpan) -> None:
        # Where a collector has the spans, the memory may be saved.
        if self._config.exporter != "otlp":
            self.spans.add(span)
        # A pending span is a preview, and its final form follows.
        if not span.pending:
            for listener in self.on_span:
                listener(span)

    def add_log(self, line: LogLine) -> None:
        """Record a line of the engine's log, or of `engine::log::*`."""
        if not self._config.logs_enabled:
            return
        # The engine's own lines have the name that its spans have.
        if line.service == "iii":
            line.service = self.resource.service
        self._keep_line(keep_log(line, self.now_ns, self.resource, _SCOPE))

    def _keep_line(self, line: StoredLog) -> None:
        if self._config.logs_exporter != "otlp":
            self.logs.append(line)
        for listener in self.on_log:
            listener(line)

    def add_telemetry(self, kind: str, message: bytes, fields: Mapping[str, str]) -> None:
        """Record the telemetry of a worker. `fields` name its sender.

        A message with an unreadable part is logged, and not used from there on.
        """
        try:
            match kind:
                case "resourceSpans":
                    for span in read_spans(message):
                        self._record(span)
                case "resourceLogs":
                    for line in read_logs(message, self.now_ns):
                        if self._config.logs_enabled:
                            self._keep_line(line)
                        self._log_line(line, fields)
                case "resourceMetrics":
                    points = list(read_points(message, self.now_ns))
                    if self._config.metrics_enabled:
                        self._keep_points(points)
                    self._show_gauges(points)
        except MessageError as problem:
            text = f"telemetry ({kind}) that cannot be read was left out: {problem}"
            if self._host is not None:
                self._host.log_for_worker(logging.WARNING, text, fields)

    def _keep_points(self, points: list[StoredPoint]) -> None:
        for point in points:
            if self._config.metrics_exporter != "otlp":
                self.points.append(point)
            for listener in self.on_point:
                listener(point)

    def _log_line(self, line: StoredLog, fields: Mapping[str, str]) -> None:
        """Write a worker's line into the engine's log as well."""
        about = {**fields, "service_name": line.resource.service}
        for key in ("trace_id", "span_id"):
            value = getattr(line, key)
            if value is not None:
                about[key] = value
        text = f"{line.resource.service}: {line.body}"
        if self._host is not None:
            self._host.log_for_worker(log_level(line.severity), text, about, _worker_of(line))

    def _show_gauges(self, points: list[StoredPoint]) -> None:
        """Have the engine show what workers measured of themselves. Other names are the workers' own business."""
        of_workers: dict[tuple[str, int], dict[str, int | float]] = {}
        for point in points:
            match, worker_id = re.fullmatch(_GAUGE, point.name), _worker_of(point)
            if match is not None and point.kind == "gauge" and worker_id is not None:
                gauges = of_workers.setdefault((worker_id, point.time_ns // 1_000_000), {})
                gauges[match[1].replace(".", "_")] = point.value
        if self._host is not None:
            for (worker_id, time_ms), gauges in of_workers.items():
                self._host.show_gauges(worker_id, gauges, time_ms)


def _worker_of(record: StoredLog | StoredPoint) -> str | None:
    # A record without a `worker.id` belongs to the worker of its resource.
    for attributes in (record.attributes, record.resource.attributes):
        worker_id = attributes.get("worker.id")
        if isinstance(worker_id, str) and worker_id:
            return worker_id
    return None
