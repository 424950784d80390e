"""Names of workers, of which the mesh has one worker each, as an engine has (promise N30).

Each node publishes the names that its workers hold. A node whose worker holds a name that another node published before
asks whether that one is alive. It asks as any second worker would: it registers there with the name, and the engine pings
the holder (promises R5 to R7). It does so as a relay, which takes no name. If the holder is alive, the own worker is
refused. Otherwise the other engine has disconnected the holder, and its node withdraws the name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, final

import trio

from ...environment import Environment
from ...errors import ConnectionFailed, Rejected
from ...wire import RELAY, Rejection
from ...worker import open_worker
from ..module import Host
from .directory import Directory
from .intake import read_name
from .node_link import NodeLink
from .records import NAME, Key, Offer

_PAUSE_SECONDS: Final = 1.0
"""Between two questions for one name, while its holder seems to be gone and its node has not said so yet."""


@final
class Names:
    """The names that workers of this node and of others hold at a time."""

    def __init__(
        self,
        here: str,
        directory: Directory,
        links: Mapping[str, NodeLink],
        host: Host,
        nursery: trio.Nursery,
        environment: Environment,
        lasts: Callable[[], bool],
    ) -> None:
        self._here = here
        self._directory = directory
        self._links = links
        self._host = host
        self._nursery = nursery
        self._environment = environment
        self._lasts = lasts
        """Whether this node has its lease. Its rows are nobody's otherwise."""
        self._asking: set[Key] = set()

    def update(self, keys: Iterable[Key]) -> None:
        """Look at these names again, because a row, the link to a node or the lease has changed."""
        for key in keys:
            if key.kind == NAME and key not in self._asking and self._earlier(key) is not None:
                self._asking.add(key)
                self._nursery.start_soon(self._settle, key)

    def _earlier(self, key: Key) -> tuple[NodeLink, Offer] | None:
        """Return the node that has published a name of this node before, if it can be asked."""
        offers = self._directory.offers(key)
        first, offer = offers[0] if offers else (self._here, None)
        if offer is None or first == self._here or all(name != self._here for name, _ in offers):
            return None
        link = self._links.get(first)
        return (link, offer) if link is not None and link.up and self._lasts() else None

    async def _settle(self, key: Key) -> None:
        """Ask until only one of two workers has the name. A link that is lost leaves that to the next one."""
        try:
            while (earlier := self._earlier(key)) is not None:
                link, offer = earlier
                # The order may have changed while the holder was asked.
                if await self._is_alive(link, key) and self._earlier(key) == earlier:
                    self._host.refuse_name(key.namespace, key.id, read_name(offer.row).worker, link.node.name)
                    return
                await trio.sleep(_PAUSE_SECONDS)
        finally:
            self._asking.discard(key)

    async def _is_alive(self, link: NodeLink, key: Key) -> bool:
        try:
            async with open_worker(
                link.address,
                name=key.id,
                namespace=key.namespace,
                features=(RELAY,),
                environment=self._environment,
            ):
                return False
        except Rejected as rejected:
            return rejected.code == Rejection.WORKER
        except ConnectionFailed:
            return False
