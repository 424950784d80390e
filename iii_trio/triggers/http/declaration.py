"""The HTTP module's line in the table of modules. It loads the server only when one is opened."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

import attrs

from ...transport.link import Address
from ...transport.memory_budget import UNLIMITED_SHARE
from ..module import Command, Module, ModuleEnvironment, RunningModule

if TYPE_CHECKING:
    from .settings import HttpConfig


def _open(
    address: Address, settings: HttpConfig, environment: ModuleEnvironment
) -> AbstractAsyncContextManager[RunningModule]:
    from .module import open_http  # here, so that commands which call an engine elsewhere do not load h11's server

    host = environment.host
    memory = UNLIMITED_SHARE if host is None else host.open_memory_share("http")
    return open_http(address, settings, environment=environment, tracing=environment.tracing, memory=memory)


def _with_sockets(settings: HttpConfig, descriptors: tuple[int, ...]) -> HttpConfig:
    return attrs.evolve(settings, descriptors=descriptors)


HTTP: Final = Module(
    name="http",
    settings="iii_trio.triggers.http.settings:HttpConfig",
    open=_open,
    worker="iii-http",
    entries=frozenset({"iii-http", "http"}),
    read="iii_trio.triggers.http.entry:read_http",
    runs_by_default=False,
    with_sockets=_with_sockets,
    commands=(
        Command(
            "http",
            "iii_trio.cli.http:http",
            "List the HTTP routes: what they call, and how many requests they served.",
        ),
    ),
)
