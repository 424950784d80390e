"""The metrics page of an engine, in the text format of Prometheus.

Everything is read when the page is asked for, but for the ends of channels, calls and sessions, which are counted as they
come. A label has a value that a peer chooses only for queues, and for a hundred of them at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import trio

from ..observed import Measured
from ..wire import Outcome

if TYPE_CHECKING:
    from prometheus_client import Metric

    from .shell import Shell

_SOURCE_SECONDS: Final = 1.0
_GAUGES: Final = {
    "sessions": "Workers that are connected.",
    "functions": "Functions that workers offer.",
    "trigger_types": "Trigger types that workers provide.",
    "bindings": "Functions that are bound to a trigger type.",
    "calls": "Calls that wait for an answer.",
    "channels": "Channels that are open.",
    "attached_channels": "Channels of which an end is attached.",
    "connections": "Connections, of workers, channel ends and others.",
}
"""The gauges `iii_NAME`, by the fields of EngineStatistics."""


async def read_metrics(shell: Shell) -> Sequence[Measured]:
    """Ask a module for its numbers. It has a second, and a failure of it is logged. If cancelled: nothing has changed."""
    if shell.metrics_source is None:
        return ()
    with trio.move_on_after(_SOURCE_SECONDS):
        try:
            return await shell.metrics_source()
        # The engine's own numbers are worth more than an error.
        except Exception as error:
            shell.log_error("a module has no numbers for /metrics", error)
    return ()


def render_metrics(shell: Shell, more: Sequence[Measured] = ()) -> tuple[str, bytes] | None:
    """Return the content type and the text of the page, or None where prometheus-client is not installed."""
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
    except ImportError:
        return None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_EngineCollector(shell, more))
    ProcessCollector(registry=registry)
    return CONTENT_TYPE_LATEST, generate_latest(registry)


class _EngineCollector:
    """Reads an engine for one page."""

    def __init__(self, shell: Shell, more: Sequence[Measured]) -> None:
        self._shell = shell
        self._more = more

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: the registry is used once."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        shell = self._shell
        statistics = shell.statistics()
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"iii_{name}", text, value=getattr(statistics, name))
        yield GaugeMetricFamily("iii_draining", "1 while the engine takes nothing new.", value=shell.hub.draining)
        text = "Memory that counts against limits.memory_bytes."
        yield GaugeMetricFamily("iii_memory_budget_used_bytes", text, value=shell.memory.used_bytes)
        yield GaugeMetricFamily("iii_memory_budget_limit_bytes", "limits.memory_bytes.", value=shell.memory.limit_bytes)
        ended = CounterMetricFamily("iii_channels_ended", "Channels that ended, by outcome.", labels=["outcome"])
        # Outcomes that did not occur are shown as 0, so that a rate can be formed at once.
        for outcome in Outcome:
            ended.add_metric([str(outcome)], shell.ended_channels.get(outcome, 0))
        yield ended
        counts = shell.hub.state.call_counts
        calls = CounterMetricFamily("iii_calls_ended", "Calls of workers' functions that ended.", labels=["outcome"])
        calls.add_metric(["succeeded"], counts.succeeded)
        calls.add_metric(["failed"], counts.failed)
        yield calls
        for name, text, value in (
            ("iii_calls_enqueued", "Calls that were made into jobs.", counts.enqueued),
            ("iii_sessions_started", "Workers that have connected.", counts.sessions_started),
            ("iii_sessions_ended", "Workers that have left, or were lost.", counts.sessions_ended),
        ):
            yield CounterMetricFamily(name, text, value=value)
        for measured in self._more:
            make = GaugeMetricFamily if measured.kind == "gauge" else CounterMetricFamily
            labels = list(measured.values[0][0]) if measured.values else []
            family = make(measured.name.replace(".", "_"), measured.text, labels=labels)
            for values, number in measured.values:
                family.add_metric([values[label] for label in labels], number)
            yield family
