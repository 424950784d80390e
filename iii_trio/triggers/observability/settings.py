"""Settings of the observability module."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import attrs
from attrs import validators

from ...records import settings
from ...tracing import Sampling

DEFAULT_TRACES_PER_SECOND: Final = 10.0
"""New traces a second by default. A person at a desk sees each call, and a busy engine spends 250 µs a second on it."""
Exporter: TypeAlias = Literal["auto", "memory", "otlp", "both"]
_positive: Any = validators.gt(0)


def _frozen(values: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(values))


def _default_sampling() -> Sampling:
    return Sampling(max_traces_per_second=DEFAULT_TRACES_PER_SECOND)


@settings
class ExportSettings:
    """How spans, lines and measurements leave for a collector, by OTLP over HTTP, each kind by a queue of its own.

    None leaves the choice to the variables `OTEL_EXPORTER_OTLP_…`.
    """

    endpoint: str | None = None
    """The address of the collector, without `/v1/traces` and its like, such as `http://localhost:4318`."""
    headers: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    """Headers of each request. They often hold a secret, so the variable is the better place."""
    queue_records: int = attrs.field(default=8192, validator=_positive)
    """Records of one kind that wait for the collector. Further ones are lost for it, and counted."""
    queue_bytes: int = attrs.field(default=32 * 1024 * 1024, validator=_positive)
    """The memory for these records."""
    batch_records: int = attrs.field(default=512, validator=_positive)
    batch_seconds: float = attrs.field(default=1.0, validator=_positive)
    """How long a record waits for others at the most."""
    metrics_seconds: float = attrs.field(default=60.0, validator=_positive)
    """The time between two measurements of the engine's own."""
    goodbye_seconds: float = attrs.field(default=1.0, validator=validators.ge(0))
    """The time for what waits when the engine ends. The rest is lost for the collector."""


@settings
class ObservabilityConfig:
    """What is recorded, how much of it is kept, and where it goes."""

    sampling: Sampling = attrs.field(factory=_default_sampling)
    exporter: Exporter = "auto"
    """Where spans go. `auto`: to memory, and to a collector if the settings or the environment name one."""
    logs_enabled: bool = True
    logs_exporter: Exporter = "auto"
    """Where lines go."""
    metrics_enabled: bool = True
    metrics_exporter: Exporter = "auto"
    """Where measurements go."""
    export: ExportSettings = attrs.field(factory=ExportSettings)
    service_name: str = "iii"
    """The name of the engine in its spans and logs."""
    resource: Mapping[str, str] = attrs.field(factory=dict, converter=_frozen)
    """Further attributes of the engine's resource, in its exported spans."""
    memory_max_spans: int = attrs.field(default=50_000, validator=_positive)
    memory_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_positive)
    """The memory for spans. The oldest traces are given up first."""
    logs_max_count: int = attrs.field(default=1000, validator=_positive)
    logs_bytes: int = attrs.field(default=8 * 1024 * 1024, validator=_positive)
    logs_retention_seconds: float = attrs.field(default=3600.0, validator=_positive)
    metrics_max_count: int = attrs.field(default=10_000, validator=_positive)
    """Measurements of workers that are kept."""
    metrics_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=_positive)
    metrics_retention_seconds: float = attrs.field(default=3600.0, validator=_positive)
