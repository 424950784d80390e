"""The entry of the configuration file, the environment, and new settings while the module runs."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from trio.testing import MockClock

import iii_trio
from iii_trio.cli.data import with_served_modules
from iii_trio.config.file import parse_config
from iii_trio.errors import ConfigError
from iii_trio.tracing import Sampling, SamplingRule
from iii_trio.triggers.observability.environment import with_environment
from iii_trio.triggers.observability.settings import ExportSettings, ObservabilityConfig
from iii_trio.triggers.table import MODULES

from .observed import observed, open_observed, spans


def read(config: str, ours: str = "") -> tuple[ObservabilityConfig | None, list[str]]:
    """The settings of an entry with these lines, and the warnings."""
    lines = ["workers:", "  - name: iii-observability", "    config:"]
    lines += [f"      {line}" for line in config.strip().splitlines()] or ["      {}"]
    if ours:
        lines += ["    iii-trio:", *(f"      {line}" for line in ours.strip().splitlines())]
    found = parse_config("\n".join(lines), "f.yaml", {}, modules=MODULES)
    return found.config.modules["observability"], found.warnings


def test_the_words_of_iii_are_understood() -> None:
    config, warnings = read(
        """
enabled: true
service_name: shop
exporter: both
endpoint: http://collector:4318
sampling_ratio: 0.25
sampling:
  parent_based: false
  rules: [{ operation: "orders::*", service: shop, rate: 1 }]
  rate_limit: { max_traces_per_second: 5 }
memory_max_spans: 1000
logs_enabled: true
logs_exporter: otlp
metrics_enabled: false
metrics_exporter: both
logs_max_count: 20
logs_retention_seconds: 60
metrics_max_count: 30
metrics_retention_seconds: 90
""",
        "memory_bytes: 1000000\nresource: { team: blue }\nexport: { queue_records: 7 }",
    )
    assert not warnings
    assert config == ObservabilityConfig(
        sampling=Sampling(0.25, False, (SamplingRule(1.0, "orders::*", "shop"),), 5.0),
        exporter="both",
        export=ExportSettings(endpoint="http://collector:4318", queue_records=7),
        service_name="shop",
        resource={"team": "blue"},
        logs_exporter="otlp",
        metrics_enabled=False,
        metrics_exporter="both",
        memory_max_spans=1000,
        memory_bytes=1_000_000,
        logs_max_count=20,
        logs_retention_seconds=60,
        metrics_max_count=30,
        metrics_retention_seconds=90,
    )


def test_a_ratio_that_somebody_chose_has_no_bound_beside_it() -> None:
    config, _ = read("sampling_ratio: 1.0")
    assert config is not None and config.sampling == Sampling(1.0)
    default, _ = read("service_name: shop")
    assert default is not None and default.sampling == Sampling(max_traces_per_second=10)


def test_what_has_no_effect_here_is_a_warning_with_its_line() -> None:
    config, warnings = read("trace_storage: { enabled: true }\nendpoint: http://localhost:4317")
    assert config is not None
    assert [warning.split(": ", 1)[0] for warning in warnings] == ["f.yaml:4", "f.yaml:5"]
    assert "traces are kept in memory" in warnings[0] and "4317" in warnings[1]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("sampling_ratio: 2", "give a number from 0 to 1"),
        ("sampling_ratio: yes", "give a number from 0 to 1"),
        ("sampling: { rules: [{ operation: f }] }", "no `rate` from 0 to 1"),
        ("sampling: { rules: [{ rate: 1, worker: f }] }", "unknown key `worker`"),
        ("sampling: { rate_limit: { max_traces_per_second: 0 } }", "max_traces_per_second"),
        ("exporter: jaeger", "exporter"),
        ("exporter: auto", "give memory, otlp or both"),
        ("endpoint: collector", "give an address"),
        ("endpoint: http://c:99999", "not an address"),
        ("enabled: 1", "give true or false"),
        ("memory_max_spans: 0", "at least 1"),
        ("sample_ratio: 1", "did you mean `sampling_ratio`"),
    ],
)
def test_what_cannot_be_used_is_an_error_with_its_line(line: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=r"^f\.yaml:4: ") as caught:
        read(line)
    assert sentence in str(caught.value)


def test_an_engine_of_its_own_records_unless_the_file_says_otherwise() -> None:
    assert with_served_modules(iii_trio.EngineConfig()).modules["observability"] == ObservabilityConfig()
    config, _ = read("enabled: false")
    assert config is None
    off = iii_trio.EngineConfig(modules={"observability": None})
    assert with_served_modules(off).modules["observability"] is None


@pytest.mark.parametrize(
    ("environ", "changes"),
    [
        ({}, {}),
        ({"OTEL_SERVICE_NAME": "shop"}, {"service_name": "shop"}),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop, team=a%20b ,odd,=x"},
            {"service_name": "shop", "resource": {"team": "a b"}},
        ),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, {"sampling": Sampling(0.0, False)}),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"},
            {"sampling": Sampling(0.5)},
        ),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "many"}, {}),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, {}),
    ],
)
def test_the_environment_stands_for_settings_that_nobody_chose(
    environ: dict[str, str], changes: dict[str, Any]
) -> None:
    assert with_environment(ObservabilityConfig(), environ) == ObservabilityConfig(**changes)
    chosen = ObservabilityConfig(service_name="mine", sampling=Sampling(0.1))
    kept = with_environment(chosen, environ)
    assert (kept.service_name, kept.sampling) == ("mine", Sampling(0.1))


async def test_new_settings_keep_what_is_recorded(autojump_clock: MockClock) -> None:
    before = observed(memory_max_spans=5)
    async with open_observed(before) as (engine, app):

        @app.function("app::note")
        async def note() -> None: ...

        for _ in range(4):
            await app.trigger("app::note")
        after = attrs.evolve(before, sampling=Sampling(0), memory_max_spans=2)
        await engine.reload(attrs.evolve(engine.config, listeners=(), modules={"observability": after}))
        await app.trigger("app::note")
        assert len(await spans(app)) == 2
        assert (await app.trigger("engine::sampling::rules"))["default"] == 0
