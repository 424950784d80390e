"""The page's line in the table of modules. It loads the page only when one is opened."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final

from ...transport.link import Address
from ..module import Module, ModuleEnvironment, RunningModule
from .settings import PageConfig


def _open(
    address: Address, settings: PageConfig, environment: ModuleEnvironment
) -> AbstractAsyncContextManager[RunningModule]:
    from .module import open_page  # here, so that commands which call an engine elsewhere do not load it

    return open_page(address, settings, environment)


PAGE: Final = Module(
    name="page",
    settings=PageConfig,
    open=_open,
    worker="iii-page",
    entries=frozenset({"iii-page"}),
)
