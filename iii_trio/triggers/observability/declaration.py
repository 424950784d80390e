"""The observability module's line in the table of modules. It loads the recorder only when one is opened."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final

from ...transport.link import Address
from ..module import Command, Module, ModuleEnvironment, RunningModule
from .settings import ObservabilityConfig


def _open(
    address: Address, settings: ObservabilityConfig, environment: ModuleEnvironment
) -> AbstractAsyncContextManager[RunningModule]:
    from .module import open_observability  # here, so that commands which call an engine elsewhere do not load it

    return open_observability(address, settings, environment=environment)


OBSERVABILITY: Final = Module(
    name="observability",
    settings=ObservabilityConfig,
    open=_open,
    worker="iii-observability",
    entries=frozenset({"iii-observability", "observability"}),
    read="iii_trio.triggers.observability.entry:read_observability",
    runs_by_default=False,
    runs_when_served=True,
    commands=(
        Command(
            "traces",
            "iii_trio.cli.traces:traces",
            "List the traces that the engine recorded, the latest first, or show one as a waterfall.",
        ),
        Command(
            "logs",
            "iii_trio.cli.log_lines:logs",
            "Show what the engine and its workers logged, the oldest line first.",
        ),
    ),
)
