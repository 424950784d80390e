"""The line of external functions in the table of modules. It loads the client only when the module is opened."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

from ...errors import ConfigError
from ...transport.link import Address
from ..module import Module, ModuleEnvironment, RunningModule

if TYPE_CHECKING:
    from .settings import ExternalConfig


def _open(
    address: Address, settings: ExternalConfig, environment: ModuleEnvironment
) -> AbstractAsyncContextManager[RunningModule]:
    try:
        from .module import open_external  # here, because it loads a client for HTTP
    except ModuleNotFoundError as error:
        text = f"external functions need the package {error.name}: pip install 'iii-trio[external]'"
        raise ConfigError(text) from error
    return open_external(address, settings, environment=environment)


EXTERNAL: Final = Module(
    name="external",
    settings="iii_trio.triggers.external.settings:ExternalConfig",
    open=_open,
    worker="iii-http-functions",
    entries=frozenset({"iii-http-functions", "http-functions"}),
    read="iii_trio.triggers.external.entry:read_external",
    runs_by_default=False,
)
