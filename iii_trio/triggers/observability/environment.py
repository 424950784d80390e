"""The variables of OpenTelemetry that stand for settings: `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER` and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import attrs

from ...report import get_logger
from ...tracing import Sampling
from .settings import ObservabilityConfig

_LOGGER: Final = get_logger("iii_trio.observability")
_SAMPLERS: Final = {
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}
"""The ratio (None: `OTEL_TRACES_SAMPLER_ARG` says it) and whether the decision of a caller holds."""


def with_environment(config: ObservabilityConfig, environ: Mapping[str, str]) -> ObservabilityConfig:
    """Return the settings with what OpenTelemetry's variables say, where the settings have their defaults."""
    default = ObservabilityConfig()
    changes: dict[str, Any] = {}
    resource = _pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    # OTEL_SERVICE_NAME wins over the attribute of the resource, as the specification says.
    name = environ.get("OTEL_SERVICE_NAME") or resource.pop("service.name", "")
    if name and config.service_name == default.service_name:
        changes["service_name"] = name
    if resource:
        changes["resource"] = {**resource, **config.resource}
    # OpenTelemetry's variable has milliseconds.
    interval = environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")
    if interval and config.export.metrics_seconds == default.export.metrics_seconds:
        if interval.isascii() and interval.isdigit() and int(interval):
            changes["export"] = attrs.evolve(config.export, metrics_seconds=int(interval) / 1000)
        else:
            _LOGGER.warning("OTEL_METRIC_EXPORT_INTERVAL is %r; give a number of milliseconds", interval)
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").lower()
    # The file stands closer to this engine than the environment does.
    if sampler and config.sampling == default.sampling:
        sampling = _sampling(sampler, environ.get("OTEL_TRACES_SAMPLER_ARG", ""))
        if sampling is not None:
            changes["sampling"] = sampling
    return attrs.evolve(config, **changes) if changes else config


def _sampling(sampler: str, argument: str) -> Sampling | None:
    if sampler not in _SAMPLERS:
        _LOGGER.warning("OTEL_TRACES_SAMPLER is %r, which this engine does not know", sampler)
        return None
    ratio, parent_based = _SAMPLERS[sampler]
    if ratio is None:
        try:
            ratio = float(argument or 1)
            return Sampling(ratio, parent_based)
        except ValueError:
            _LOGGER.warning("OTEL_TRACES_SAMPLER_ARG is %r; give a number from 0 to 1", argument)
            return None
    return Sampling(ratio, parent_based)


def _pairs(text: str) -> dict[str, str]:
    """Return the pairs of `OTEL_RESOURCE_ATTRIBUTES`. Parts that are none are left out."""
    pairs = (part.partition("=") for part in text.split(","))
    return {key.strip(): unquote(value.strip()) for key, sign, value in pairs if sign and key.strip()}
