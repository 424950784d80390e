"""The entry of the observability module in iii's YAML, in its words and in ours."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from ...config.section import OURS, Entry, ModuleEntry, Section, shown
from ...tracing import Sampling, SamplingRule
from .settings import DEFAULT_TRACES_PER_SECOND, ExportSettings, ObservabilityConfig

# An entry with the settings that are used most:
#   - name: iii-observability                 # or `observability`
#     config:
#       enabled: true
#       service_name: shop
#       exporter: both                        # memory, otlp, both
#       endpoint: http://localhost:4318
#       sampling_ratio: 0.1
#       sampling:
#         parent_based: true
#         rules: [{ operation: "orders::*", rate: 1.0 }]
#         rate_limit: { max_traces_per_second: 50 }
#       memory_max_spans: 100000
#       logs_max_count: 1000
#     iii-trio:
#       memory_bytes: 67108864
#       export: { queue_records: 8192 }

_OURS: Final = ("memory_bytes", "logs_bytes", "metrics_bytes", "export", "resource", "max_traces_per_second")
_WITHOUT_EFFECT: Final = {
    "live_spans": "spans that have not ended are shown whenever a worker sends them",
    "logs_batch_size": "logs are kept at once; for a collector give `export: { batch_records }` under `iii-trio`",
    "logs_flush_interval_ms": "logs are kept at once; for a collector give `export: { batch_seconds }` under `iii-trio`",
    "logs_sampling_ratio": "all lines are kept",
    "logs_console_output": "the log of the engine is set up by `iii-trio serve`",
    "level": "the log of the engine is set up by `iii-trio serve`",
    "format": "the log of the engine is set up by `iii-trio serve`",
    "collapse_spans": "all spans are shown",
    "alerts": "this engine has no alerts",
    "trace_storage": "traces are kept in memory",
    "service_version": "the version of the engine is known",
    "service_namespace": "give it as `resource` under `iii-trio`",
}
_WIRE: Final = (
    "enabled", "service_name", "exporter", "endpoint", "sampling_ratio", "sampling", "memory_max_spans",
    "metrics_retention_seconds", "metrics_max_count", "logs_max_count", "logs_retention_seconds", "logs_enabled",
    "logs_exporter", "metrics_enabled", "metrics_exporter", *_WITHOUT_EFFECT,
)  # fmt: skip
_EXPORTERS: Final = ("exporter", "logs_exporter", "metrics_exporter")
_GRPC_PORT: Final = 4317


def read_observability(entry: Entry) -> ModuleEntry:
    """Read the entry. Raises ConfigError."""
    wire, ours = entry.section("config"), entry.section(OURS)
    wire.only(_WIRE, f"in `config` of {entry.name}")
    ours.only(_OURS, f"in `{OURS}` of {entry.name}")
    enabled = wire.get("enabled", True)
    if not isinstance(enabled, bool):
        wire.fail("enabled", f"`enabled` is {shown(enabled)}; give true or false")
    for key, why in _WITHOUT_EFFECT.items():
        if key in wire:
            wire.warn(key, f"`{key}` has no effect: {why}; remove it")
    settings: dict[str, Any] = wire.settings(
        ObservabilityConfig,
        ("service_name", *_EXPORTERS, "logs_enabled", "metrics_enabled"),
    )
    for key in _EXPORTERS:
        if settings.get(key) == "auto":
            wire.fail(key, f"`{key}` is auto; give memory, otlp or both, or leave it out")
    for key in (
        "memory_max_spans", "metrics_max_count", "logs_max_count", "logs_retention_seconds", "metrics_retention_seconds",
    ):  # fmt: skip
        if key in wire:
            settings[key] = wire.count(key, 1)
    settings |= ours.settings(ObservabilityConfig, ("memory_bytes", "logs_bytes", "metrics_bytes", "resource"))
    export = ours.section("export").structure(ExportSettings) if "export" in ours else ExportSettings()
    if (endpoint := _endpoint(wire)) is not None:
        export = attrs.evolve(export, endpoint=endpoint)
    return ModuleEntry(
        ObservabilityConfig(**settings, sampling=_sampling(wire, ours), export=export) if enabled else None
    )


def _endpoint(wire: Section) -> str | None:
    endpoint = wire.text("endpoint", "the address of a collector, such as http://localhost:4318")
    if endpoint is None:
        return None
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError as error:
        wire.fail("endpoint", f"`endpoint` is not an address: {error}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        wire.fail("endpoint", f"`endpoint` is {shown(endpoint)}; give an address such as http://localhost:4318")
    # iii's default is the port for gRPC, at which a collector takes no HTTP.
    if port == _GRPC_PORT:
        wire.warn(
            "endpoint", f"`endpoint` has the port {_GRPC_PORT}, which is gRPC's; OTLP over HTTP mostly listens at 4318"
        )
    return endpoint


def _sampling(wire: Section, ours: Section) -> Sampling:
    section = wire.section("sampling")
    section.only(("default", "rules", "parent_based", "rate_limit"), "in `sampling`")
    values: dict[str, Any] = section.settings(Sampling, ("parent_based",))
    per_second: float | None = DEFAULT_TRACES_PER_SECOND
    for home, key in ((wire, "sampling_ratio"), (section, "default")):
        if key in home:
            values["ratio"] = _number(home, key, 0, 1)
            per_second = None  # a ratio that somebody chose is to hold
    if "rules" in section:
        values["rules"] = _rules(section)
        per_second = None
    limit = section.section("rate_limit")
    limit.only(("max_traces_per_second",), "in `sampling.rate_limit`")
    for home in (limit, ours):
        if "max_traces_per_second" in home:
            per_second = _number(home, "max_traces_per_second", 0.001, 1e9)
    return Sampling(**values, max_traces_per_second=per_second)


def _rules(section: Section) -> tuple[SamplingRule, ...]:
    given = section.get("rules") or []
    if not isinstance(given, list):
        section.fail("rules", "`rules` is not a list; give a list of `{ operation: …, rate: 0.1 }`")
    rules = []
    for one in given:
        if not isinstance(one, dict) or not isinstance(one.get("rate"), int | float) or not 0 <= one["rate"] <= 1:
            section.fail("rules", "a rule has no `rate` from 0 to 1; give `{ operation: …, service: …, rate: 0.1 }`")
        unknown = [key for key in one if key not in ("operation", "service", "rate")]
        if unknown:
            section.fail("rules", f"a rule has the unknown key `{unknown[0]}`; known are operation, service, rate")
        patterns = {key: one[key] for key in ("operation", "service") if one.get(key) is not None}
        if not all(isinstance(pattern, str) for pattern in patterns.values()):
            section.fail("rules", "the `operation` and the `service` of a rule have to be strings")
        rules.append(SamplingRule(float(one["rate"]), **patterns))
    return tuple(rules)


def _number(section: Section, key: str, low: float, high: float) -> float:
    value = section.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        section.fail(key, f"`{key}` is {shown(value)}; give a number from {low:g} to {high:g}")
    return float(value)
