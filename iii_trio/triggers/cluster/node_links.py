"""The links of this node to all others. They are opened and closed as nodes come and go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Final, final

import trio

from ...errors import CallError, MisuseError
from ...lowlevel import InlineCall
from ...transport.link import Address
from ...wire import ChannelEnded, Outcome
from ...worker import Worker
from ..module import Host
from .directory import Directory
from .lease import Lease
from .node_link import LOGGER, NodeLink, unreachable
from .passing import PassedCall
from .records import LEFT, Key, Node
from .silent_nodes import SilentNodes
from .together import BothWays
from .versions import links_refused

_GONE_REMEMBERED: Final = 1_000


@final
class NodeLinks(Mapping[str, NodeLink]):
    """The links by the names of their nodes. `on_change` is given the name of a node whose link has changed."""

    def __init__(
        self,
        here: str,
        directory: Directory,
        lease: Lease,
        host: Host,
        nursery: trio.Nursery,
        rng: Random,
        address_of: Callable[[Node], Address],
        on_change: Callable[[str], object],
        on_not_run: Callable[[NodeLink, PassedCall, CallError], object],
        ways: BothWays,
    ) -> None:
        self._ways = ways
        self.gone: OrderedDict[str, str] = OrderedDict()
        """Why nodes that were here are gone, the last ones. Their channels are lost."""
        self.unusable: dict[str, str] = {}
        """Why a node has no link, by its name."""
        self.address_of = address_of
        self._here = here
        self._directory = directory
        self._lease = lease
        self._host = host
        self._nursery = nursery
        self._rng = rng
        self._on_change = on_change
        self._on_not_run = on_not_run
        self._links: dict[str, NodeLink] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._watch = SilentNodes(host, nursery, lease.seconds, self.worker_at)

    def __getitem__(self, name: str) -> NodeLink:
        return self._links[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def usable(self, name: str) -> bool:
        """Return whether calls can go to a node."""
        # Where this node is the next one, its own worker has to take over.
        link = self._links.get(name)
        return name == self._here or (link is not None and link.up)

    def expected(self, name: str) -> bool:
        """Return whether a node is dialled for the first time, so that calls may wait for it."""
        link = self._links.get(name)
        return link is not None and link.expected

    def worker_at(self, name: str) -> Worker | None:
        """Return the worker at a node, while the link to it is up."""
        link = self._links.get(name)
        return link.worker if link is not None else None

    def pass_on(self, name: str, call: InlineCall, key: Key) -> None:
        """Have a call answered by a node. Raises CallError, with no call made."""
        link = self._links.get(name)
        if link is None:
            raise unreachable(name or "of the mesh", key)
        link.pass_on(PassedCall(call, key))

    # --- nodes come and go

    def update(self, names: set[str], why: str) -> None:
        """Open and close links to these nodes, as the directory says. `why` is the reason for those that are gone."""
        for name in names - {self._here}:
            node, link = self._directory.nodes.get(name), self._links.get(name)
            self.unusable.pop(name, None)
            self.gone.pop(name, None)
            if node is None:
                self.gone[name] = why
                while len(self.gone) > _GONE_REMEMBERED:
                    self.gone.popitem(last=False)
            if link is not None and node is None:
                self._watch.ask(link)
                # A node that leaves closes the link, and says by that which calls it has not run.
                if why == LEFT and link.calls:
                    self._nursery.start_soon(self._close_once_lost, link, why)
                else:
                    self._close(name, why)
            # The calls that the old holder of the name was given are lost with it.
            elif link is not None and link.node != node:
                self._close(name, "it has joined anew")
            if node is not None and name not in self._links:
                self._open(node)

    def stop_waiting(self) -> None:
        """Have no call wait for a node that has not been reached yet, because this node drains."""
        for link in list(self._links.values()):
            link.stop_waiting()

    def close(self) -> None:
        """Close all links, because this node leaves."""
        for link in self._links.values():
            link.close("this node leaves")

    def _open(self, node: Node) -> None:
        if not node.speaks_with_this:
            self.unusable[node.name] = why = links_refused(node)
            LOGGER.warning("node %s is not linked: %s", node.name, why)
            return
        try:
            address = self.address_of(node)
        # What another node says of itself must not end this one.
        except MisuseError as error:
            self.unusable[node.name] = str(error)
            LOGGER.warning("node %s cannot be reached: %s", node.name, error)
            return
        link = self._links[node.name] = NodeLink(
            node,
            address,
            self._here,
            self._lease,
            self._rng,
            self._link_changed,
            self._channel_ended,
            self._on_not_run,
            self._watch.ask,
            self._ways,
        )
        self._nursery.start_soon(self._run, link)

    async def _run(self, link: NodeLink) -> None:
        with trio.CancelScope() as self._scopes[link.node.name]:
            # Another link to a node of this name may have taken its place before this task began.
            if self._links.get(link.node.name) is link:
                await link.run()

    async def _close_once_lost(self, link: NodeLink, why: str) -> None:
        await link.wait_lost(why)
        if self._links.get(link.node.name) is link:
            self._close(link.node.name, why)

    def _close(self, name: str, why: str) -> None:
        link = self._links.pop(name)
        link.close(why)
        scope = self._scopes.pop(name, None)
        if scope is not None:
            scope.cancel(reason=why)
        self._on_change(name)

    # --- what the links tell

    def _link_changed(self, link: NodeLink) -> None:
        # The other node has ended them, because it has lost the link too, or is gone itself.
        if link.worker is None:
            self._host.engine_lost(link.node.name, f"node {link.node.name} is gone: {link.problem}")
        if self._links.get(link.node.name) is link:
            self._on_change(link.node.name)

    def _channel_ended(self, message: ChannelEnded) -> None:
        """Tell this engine's workers of a channel of another node, of which they hold ends."""
        try:
            outcome = Outcome(message.outcome)
        except ValueError:
            return  # an outcome of a newer engine: the end's own connection will tell
        self._host.channel_ended_elsewhere(message.channel_id, outcome, message.reason, message.code)
