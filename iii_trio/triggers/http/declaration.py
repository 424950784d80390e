"""The HTTP module's line in the table of modules. It loads the server only when one is opened."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final

from ...transport.link import Address
from ..module import Command, Module, ModuleEnvironment, RunningModule
from .entry import ENTRIES, read_http
from .settings import HttpConfig


def _open(
    address: Address, settings: HttpConfig, environment: ModuleEnvironment
) -> AbstractAsyncContextManager[RunningModule]:
    from .module import open_http  # here, so that commands which call an engine elsewhere do not load h11's server

    return open_http(address, settings, environment=environment)


HTTP: Final = Module(
    name="http",
    settings=HttpConfig,
    open=_open,
    worker="iii-http",
    entries=ENTRIES,
    read=read_http,
    runs_by_default=False,
    commands=(
        Command(
            "http",
            "iii_trio.cli.http:http",
            "List the HTTP routes: what they call, and how many requests they served.",
        ),
    ),
)
