"""The observability module, a worker whose recorder is the sink of the engine's tracing."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, final

import trio

from ...nursery import open_service_nursery
from ...report import get_logger
from ...tracing import Tracing
from ...transport.link import Address
from ...worker import open_worker
from ..module import ModuleEnvironment, RunningModule
from .environment import with_environment
from .export import Export
from .exporters import SIGNALS, OtelExporter, new_exporter, wants_export
from .functions import Functions
from .metrics import Durations
from .numbers import Numbers
from .recorder import Recorder
from .settings import ObservabilityConfig
from .trigger_types import LogTrigger, LogTriggerConfig, TraceTrigger, TraceTriggerConfig

LOGGER: Final = get_logger("iii_trio.observability")
WORKER: Final = "iii-observability"
_LEAVE_SECONDS: Final = 0.5
"""The time beyond `goodbye_seconds` after which a thread that does not end is abandoned."""


@asynccontextmanager
async def open_observability(
    address: Address,
    config: ObservabilityConfig | None = None,
    *,
    environment: ModuleEnvironment,
    exporters: Mapping[str, OtelExporter] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> AsyncIterator[Observability]:
    """Record what the engine at `address` does, for the length of the block.

    `exporters` replace OpenTelemetry's, by the name of their signal (`traces`, `logs`, `metrics`). The variables of
    `environ` apply where the settings say nothing. Leaving the block gives what waits for the collector
    `goodbye_seconds`, and drops the rest.

    Raises ConfigError if something is to be exported and OpenTelemetry's exporter is not installed.
    If cancelled: as leaving the block.
    """
    config = with_environment(config or ObservabilityConfig(), environ)
    tracing = environment.tracing
    # The exporters are made first, so that a missing one keeps the module from starting.
    exports = _open_exports(config, exporters or {}, environ)
    try:
        async with (
            open_worker(address, name=WORKER, environment=environment) as worker,
            open_service_nursery() as tasks,
        ):
            recorder = Recorder(config, environment.wall_clock, own_worker=WORKER, host=environment.host)
            durations = Durations()
            recorder.on_span.append(durations.add)
            for name, listeners in (
                ("traces", recorder.on_span),
                ("logs", recorder.on_log),
                ("metrics", recorder.on_point),
            ):
                if name in exports:
                    listeners.append(exports[name].put)
            functions = Functions(worker, recorder, durations, config, exports, lambda: tracing.sink is recorder)
            functions.register()
            worker.register_trigger_type(
                "log",
                LogTrigger(recorder).serve,
                description="calls a function with each line that is logged",
                config=LogTriggerConfig | None,
            )
            worker.register_trigger_type(
                "trace",
                TraceTrigger(recorder).serve,
                description="calls a function with the ids of traces that have new spans",
                config=TraceTriggerConfig | None,
            )
            await worker.wait_registered()
            numbers = Numbers(worker, recorder, exports)
            if environment.host is not None:
                environment.host.offer_metrics(numbers.of_queues)
            if "metrics" in exports:
                tasks.start_soon(numbers.keep_exporting, config.export.metrics_seconds)
            # From here on calls are recorded, so everything that shows them has to be there.
            tracing.attach(recorder, config.sampling)
            try:
                yield Observability(tracing, recorder, functions, config, environ)
            finally:
                tracing.detach(recorder)
                if environment.host is not None:
                    environment.host.offer_metrics(None)
                if "metrics" in exports:
                    await numbers.export_last(min(_LEAVE_SECONDS, config.export.goodbye_seconds))  # noqa: ASYNC102 - it has a shield and a deadline
                tasks.cancel_scope.cancel(reason="the module ends")
    finally:
        await _end(exports.values(), config.export.goodbye_seconds)  # noqa: ASYNC102 - it has a shield and a deadline


def _open_exports(
    config: ObservabilityConfig, exporters: Mapping[str, OtelExporter], environ: Mapping[str, str]
) -> dict[str, Export]:
    """Begin the exports that are wanted, by the name of their signal. Raises ConfigError."""
    wanted = [each for each in SIGNALS if each.name in exporters or wants_export(each, config, environ)]
    # All are made before the first thread runs.
    made = {each: exporters.get(each.name) or new_exporter(each, config.export) for each in wanted}
    return {each.name: Export(each, exporter, config.export, LOGGER) for each, exporter in made.items()}


async def _end(exports: Collection[Export], goodbye_seconds: float) -> None:
    """Wait for what is being exported, within bounds that hold for all exports together."""
    for export in exports:
        export.close()
    if not exports:
        return
    with trio.CancelScope(shield=True, deadline=trio.current_time() + goodbye_seconds + _LEAVE_SECONDS):
        async with trio.open_nursery() as nursery:
            for export in exports:
                nursery.start_soon(functools.partial(trio.to_thread.run_sync, export.join, abandon_on_cancel=True))


@final
class Observability(RunningModule):
    """A running recorder. Made by `open_observability`."""

    def __init__(
        self,
        tracing: Tracing,
        recorder: Recorder,
        functions: Functions,
        config: ObservabilityConfig,
        environ: Mapping[str, str],
    ) -> None:
        self.recorder = recorder
        self._tracing = tracing
        self._functions = functions
        self._config = config
        self._environ = environ

    def reconfigure(self, settings: ObservabilityConfig) -> Any:
        """Use these settings from now on. Another collector needs a restart of the module, which forgets all spans."""
        new, old = with_environment(settings, self._environ), self._config
        # A thread has its exporter for as long as it lives.
        if _of_export(new) != _of_export(old):
            return None
        self._config = self._functions.config = new
        self.recorder.reconfigure(new)
        # A new sampler would give its whole allowance at once, so it is made for a change only.
        if new.sampling != old.sampling:
            self._tracing.attach(self.recorder, new.sampling)
        return settings


def _of_export(config: ObservabilityConfig) -> Any:
    """Return the settings that the threads are made with."""
    return (
        config.export,
        config.exporter,
        config.logs_exporter,
        config.metrics_exporter,
        config.logs_enabled,
        config.metrics_enabled,
    )


__all__ = ["Observability", "open_observability"]
