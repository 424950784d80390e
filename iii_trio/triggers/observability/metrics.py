"""The answer of `engine::metrics::list`. It holds the engine's own numbers and the latest measurements of workers."""

# Annotations are not texts here, because a start reads them and would compile each text.

from collections.abc import Mapping
from typing import Any, Final

from ...structure import FunctionInput, refuse_negative
from .records import StoredPoint, StoredSpan

_MAX_POINTS: Final = 10_000
_MAX_DURATIONS: Final = 4096


class MetricsInput(FunctionInput, frozen=True):
    """The payload of `engine::metrics::list`."""

    start_time: float | None = None
    end_time: float | None = None
    metric_name: str | None = None
    aggregate_interval: float | None = None

    def __post_init__(self) -> None:
        refuse_negative(aggregate_interval=self.aggregate_interval)


class Durations:
    """The durations of the latest calls that were sampled."""

    def __init__(self) -> None:
        self._latest: list[float] = []
        self._next = 0

    def add(self, span: StoredSpan) -> None:
        """Take the duration of a call. Other spans are ignored."""
        if "iii.call.outcome" not in span.attributes:
            return
        # The average of the latest calls says more about now than that of all.
        lasted = (span.end_ns - span.start_ns) / 1e6
        if len(self._latest) < _MAX_DURATIONS:
            self._latest.append(lasted)
        else:
            self._latest[self._next] = lasted
            self._next = (self._next + 1) % _MAX_DURATIONS

    def summary(self) -> dict[str, float]:
        """Return their average, extremes and percentiles in milliseconds. All are 0 where there is none."""
        # Sorting a few thousand numbers is quicker than keeping them sorted at each call.
        ordered = sorted(self._latest)
        if not ordered:
            return {f"{name}_duration_ms": 0.0 for name in ("avg", "p50", "p95", "p99", "min", "max")}
        last = len(ordered) - 1
        return {
            "avg_duration_ms": sum(ordered) / len(ordered),
            **{f"p{percent}_duration_ms": ordered[round(last * percent / 100)] for percent in (50, 95, 99)},
            "min_duration_ms": ordered[0],
            "max_duration_ms": ordered[-1],
        }


def engine_metrics(counts: Mapping[str, Any], durations: Durations) -> dict[str, Any]:
    """Return the engine's own numbers, out of what `engine::statistics` answers."""
    calls = counts["calls_ended"]
    return {
        "invocations": {
            "total": calls["succeeded"] + calls["failed"],
            "success": calls["succeeded"],
            "error": calls["failed"],
            "deferred": calls["enqueued"],
            "by_function": {name: total for name, (total, _) in calls["by_function"].items()},
        },
        "workers": {
            "spawns": calls["sessions_started"],
            "deaths": calls["sessions_ended"],
            "active": counts["sessions"],
        },
        "performance": durations.summary(),
    }


def points_between(points: list[StoredPoint], which: MetricsInput, oldest_ns: int) -> list[StoredPoint]:
    """Return the measurements that a list is about, the oldest first."""
    # Older measurements stay in memory until newer ones take their place, but they count no longer.
    start = max(oldest_ns, int((which.start_time or 0) * 1e6))
    return [
        point
        for point in points
        if point.time_ns >= start
        and (which.end_time is None or point.time_ns <= which.end_time * 1e6)
        and (which.metric_name is None or point.name == which.metric_name)
    ][-_MAX_POINTS:]


def point_row(point: StoredPoint) -> dict[str, Any]:
    """Return a measurement as a row."""
    row = {
        "name": point.name,
        "type": point.kind,
        "unit": point.unit,
        "timestamp_unix_nano": point.time_ns,
        "value": point.value,
        "attributes": point.attributes,
        "service_name": point.resource.service,
    }
    return row if point.count is None else row | {"count": point.count}


def aggregate(points: list[StoredPoint], seconds: float) -> list[dict[str, Any]]:
    """Return the measurements of each name in intervals of so many seconds, with their number, sum, average and extremes."""
    # An interval shorter than the clock's unit would divide by zero.
    length = max(1, int(seconds * 1e9))
    buckets: dict[tuple[str, int], list[float]] = {}
    for point in points:
        buckets.setdefault((point.name, point.time_ns // length * length), []).append(point.value)
    return [
        {
            "name": name,
            "bucket_start_ns": start,
            "bucket_end_ns": start + length,
            "count": len(values),
            "sum": sum(values),
            "avg": sum(values) / len(values),
            "min": min(values),
            "max": max(values),
        }
        for (name, start), values in sorted(buckets.items())
    ]
