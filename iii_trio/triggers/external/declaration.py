"""The line of external functions in the table of modules. It loads the client only when the module is opened."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final

from ...errors import ConfigError
from ...transport.link import Address
from ..module import Module, ModuleEnvironment, RunningModule
from .entry import ENTRIES, read_external
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
    settings=ExternalConfig,
    open=_open,
    worker="iii-http-functions",
    entries=ENTRIES,
    read=read_external,
    runs_by_default=False,
)
