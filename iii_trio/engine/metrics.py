"""The metrics page of an engine, in the text format of Prometheus.

Nothing is counted for it but the ends of channels. Everything else is read when the page is asked for, so an engine
without a scraper pays nothing. No label has a value that a peer chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from ..wire import Outcome
from .statistics import engine_statistics

if TYPE_CHECKING:
    from prometheus_client import Metric

    from .shell import Shell

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


def render_metrics(shell: Shell) -> tuple[str, bytes] | None:
    """Return the content type and the text of the page, or None where prometheus-client is not installed."""
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
    except ImportError:
        return None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_EngineCollector(shell))
    ProcessCollector(registry=registry)
    return CONTENT_TYPE_LATEST, generate_latest(registry)


class _EngineCollector:
    """Reads an engine for one page."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: the registry is used once."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        shell = self._shell
        statistics = engine_statistics(shell.hub, shell.attached_channels, shell.connections)
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
