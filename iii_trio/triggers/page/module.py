"""The page module: it serves plain requests of the engine's listeners."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...nursery import open_service_nursery
from ...transport.link import Address
from ..module import ModuleEnvironment, RunningModule
from .requests import PageRequests
from .settings import PageConfig
from .watch import Watch


@asynccontextmanager
async def open_page(
    address: Address, config: PageConfig, environment: ModuleEnvironment
) -> AsyncIterator[RunningModule]:
    """Serve the page at the engine's listeners, for the length of the block. If cancelled: as leaving the block."""
    watch = Watch(address, config, environment)
    async with open_service_nursery() as nursery:
        nursery.start_soon(watch.keep)
        host = environment.host
        try:
            # An engine elsewhere has its own page.
            if host is not None:
                host.serve_plain_requests(PageRequests(watch, config))
            yield RunningModule()
        finally:
            if host is not None:
                host.serve_plain_requests(None)
            watch.close()
            nursery.cancel_scope.cancel(reason="the page closes")
