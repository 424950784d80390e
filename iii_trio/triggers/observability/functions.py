"""The functions of the observability module (builtin-workers 13.4)."""

# Annotations are not texts here, because a start reads them and would compile each text.

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
import trio

from ...structure import FunctionInput, refuse_negative
from ...version import installed_version
from ...worker import Worker
from .export import NOT_EXPORTING, Export
from .metrics import Durations, MetricsInput, aggregate, engine_metrics, point_row, points_between
from .numbers import read_queues
from .recorder import Recorder
from .records import StoredLog, StoredSpan
from .rows import log_row
from .settings import ObservabilityConfig
from .trace_queries import (
    GroupInput,
    Groups,
    TracesInput,
    TraceSpans,
    TreeInput,
    add_to_groups,
    check_times,
    find_traces,
    latest_groups,
    page,
    select,
    tree,
)

_SPANS_A_TURN: Final = 2000
"""Spans that a search looks at before other tasks have their turn."""
_MAX_LINES: Final = 1000


class LogsInput(FunctionInput, frozen=True):
    """The payload of `engine::logs::list`."""

    start_time: float | None = None
    end_time: float | None = None
    trace_id: str | None = None
    span_id: str | None = None
    severity_min: int | None = None
    severity_text: str | None = None
    offset: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        refuse_negative(offset=self.offset, limit=self.limit)


class Functions:
    """The answers of the functions."""

    def __init__(
        self,
        worker: Worker,
        recorder: Recorder,
        durations: Durations,
        config: ObservabilityConfig,
        exports: Mapping[str, Export],
        is_attached: Callable[[], bool],
    ) -> None:
        self._worker = worker
        self._recorder = recorder
        self._durations = durations
        self._exports = exports
        self._is_attached = is_attached
        self.config = config

    def register(self) -> None:
        """Offer the functions, all in the namespace `default`."""
        offer = self._worker.function
        offer("engine::traces::list", description="the spans that were recorded")(self.list_traces)
        offer("engine::traces::tree", description="the spans of one trace, as a tree")(self.tree)
        offer("engine::traces::group_by", description="the traces by the value of an attribute")(self.group_by)
        offer("engine::traces::clear", description="forget all spans")(self.clear_traces)
        offer("engine::logs::list", description="the lines that were logged, latest first")(self.list_logs)
        offer("engine::logs::clear", description="forget all lines")(self.clear_logs)
        offer("engine::metrics::list", description="numbers of the engine, and measurements of workers")(self.metrics)
        offer("engine::sampling::rules", description="which traces are recorded")(self.sampling_rules)
        offer("engine::health::check", description="whether traces, logs and metrics are recorded")(self.health)

    async def list_traces(self, which: TracesInput) -> dict[str, Any]:
        check_times(which.start_time, which.end_time, which.min_duration_ms, which.max_duration_ms)
        store = self._recorder.spans
        found: list[StoredSpan] = []
        async for trace in _in_turns(find_traces(store, which)):
            found += select(trace, which)
        return {**page(found, store, which), "storage": self._storage()}

    async def tree(self, which: TreeInput) -> dict[str, Any]:
        return {"roots": tree(self._recorder.spans.trace(which.trace_id.lower())), "storage": self._storage()}

    async def group_by(self, which: GroupInput) -> dict[str, Any]:
        check_times(which.since_ms)
        found: Groups = {}
        async for trace in _in_turns(self._recorder.spans):
            add_to_groups(found, trace, which)
        return {"groups": latest_groups(found, which), "storage": self._storage()}

    async def clear_traces(self) -> dict[str, Any]:
        self._recorder.spans.clear()
        return {"success": True}

    def _storage(self) -> dict[str, Any]:
        spans = self._recorder.spans
        return {
            "archive": "disabled",
            "completeness": "partial" if spans.dropped else "complete",
            "known_dropped_spans": spans.dropped,
            "physical_bytes": spans.bytes,
            "max_disk_bytes": 0,
            "last_error": None,
        }

    async def list_logs(self, which: LogsInput) -> dict[str, Any]:
        check_times(which.start_time, which.end_time)
        oldest = self._recorder.now_ns - int(self.config.logs_retention_seconds * 1e9)
        found = [line for line in reversed(self._recorder.logs) if line.observed_ns >= oldest and _fits(line, which)]
        offset = which.offset or 0
        limit = min(_MAX_LINES if which.limit is None else which.limit, _MAX_LINES)
        answer = {
            "logs": [log_row(line) for line in found[offset : offset + limit]],
            "total": len(found),
            "timestamp": self._recorder.now_ns // 1_000_000,
        }
        query = {key: value for key, value in msgspec.structs.asdict(which).items() if value is not None}
        return {**answer, "query": query} if query else answer

    async def clear_logs(self) -> dict[str, Any]:
        self._recorder.logs.clear()
        return {"success": True}

    async def metrics(self, which: MetricsInput) -> dict[str, Any]:
        check_times(which.start_time, which.end_time)
        # The engine counts calls itself, and is asked as any other worker would ask it.
        counts = await self._worker.trigger("engine::statistics", {"calls": True})
        queues = await read_queues(self._worker)
        now_ns = self._recorder.now_ns
        oldest = now_ns - int(self.config.metrics_retention_seconds * 1e9)
        points = points_between(list(self._recorder.points), which, oldest)
        answer: dict[str, Any] = {
            "engine_metrics": engine_metrics(counts, self._durations) | {"queue": msgspec.to_builtins(queues)},
            "sdk_metrics": [point_row(point) for point in points],
            "timestamp": now_ns // 1_000_000,
        }
        if which.aggregate_interval:
            answer["aggregated_metrics"] = aggregate(points, which.aggregate_interval)
        query = {key: value for key, value in msgspec.structs.asdict(which).items() if value is not None}
        return {**answer, "query": query} if query else answer

    async def sampling_rules(self) -> dict[str, Any]:
        sampling = self.config.sampling
        return {
            "default": sampling.ratio,
            "parent_based": sampling.parent_based,
            "rules": [
                {"operation": rule.operation, "service": rule.service, "rate": rule.rate} for rule in sampling.rules
            ],
            "rate_limit": (
                None
                if sampling.max_traces_per_second is None
                else {"max_traces_per_second": sampling.max_traces_per_second}
            ),
        }

    async def health(self) -> dict[str, Any]:
        recorder = self._recorder
        exports = {name: export.status() for name, export in self._exports.items()}
        failed = any(export["failed"] for export in exports.values())
        # The numbers of spans stand where they stood before lines and measurements were exported as well.
        details = {**exports.get("traces", NOT_EXPORTING), **{n: e for n, e in exports.items() if n != "traces"}}
        components: dict[str, dict[str, Any]] = {
            "otel": {"status": "degraded" if failed else "healthy", "details": details},
            "metrics": {"status": "healthy", "details": {"stored": len(recorder.points)}},
            "logs": {"status": "healthy", "details": {"stored": len(recorder.logs)}},
            "spans": {
                "status": "healthy" if self._is_attached() else "degraded",
                "details": {
                    "stored": recorder.spans.spans,
                    "traces": len(recorder.spans),
                    "bytes": recorder.spans.bytes,
                    "dropped": recorder.spans.dropped,
                },
            },
        }
        # A collector may take nothing, and a recorder that failed gets nothing any more.
        healthy = all(component["status"] == "healthy" for component in components.values())
        return {
            "status": "healthy" if healthy else "degraded",
            "components": components,
            "timestamp": recorder.now_ns // 1_000_000,
            "version": installed_version(),
        }


async def _in_turns(traces: Iterable[TraceSpans]) -> AsyncIterator[TraceSpans]:
    """Yield traces, and let other tasks run in between, because calls must not wait for a search through all spans."""
    looked_at = 0
    for trace in traces:
        yield trace
        looked_at += len(trace)
        if looked_at >= _SPANS_A_TURN:
            looked_at = 0
            await trio.lowlevel.checkpoint()


def _fits(line: StoredLog, which: LogsInput) -> bool:
    return (
        (which.start_time is None or line.time_ns >= which.start_time * 1e6)
        and (which.end_time is None or line.time_ns <= which.end_time * 1e6)
        and (which.trace_id is None or line.trace_id == which.trace_id)
        and (which.span_id is None or line.span_id == which.span_id)
        and (which.severity_min is None or line.severity >= which.severity_min)
        and (which.severity_text is None or line.severity_text.lower() == which.severity_text.lower())
    )
