"""What nodes that have vanished without a word have left at this engine.

A node's own link to this engine is a session here, with ends of channels and calls. A network that lets everything vanish
tells of its end no sooner than the engine's heartbeat does, which is made for workers that may be slow. So a node that is
silent, or has left the mesh, is dialled. If it does not answer within a lease, its sessions are ended (promise N13).

Another engine may have joined by the name of a dead one meanwhile, so only sessions of the node that was asked are ended: a
link's name tells the fencing number with which it was opened. A session that was opened before its node had joined is left
to the heartbeat, because nobody can tell whose it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import trio

from ...errors import ConnectionFailed
from ...wire import RELAY
from ...worker import Worker, open_worker
from ..module import Host
from .node_link import LOGGER, NodeLink, fence_of_link
from .records import Node


@final
class SilentNodes:
    """The nodes that are being asked for a sign of life."""

    def __init__(
        self, host: Host, nursery: trio.Nursery, lease_seconds: float, worker_at: Callable[[str], Worker | None]
    ) -> None:
        self._host = host
        self._nursery = nursery
        self._lease_seconds = lease_seconds
        self._worker_at = worker_at
        """The worker at a node to which the link is up."""
        self._asked: set[Node] = set()

    def ask(self, link: NodeLink) -> None:
        """Ask a node, and end its sessions here if it does not answer."""
        if link.node not in self._asked:
            self._asked.add(link.node)
            self._nursery.start_soon(self._ask, link)

    async def _ask(self, link: NodeLink) -> None:
        name = link.node.name
        try:
            with trio.move_on_after(self._lease_seconds) as scope:
                try:
                    # A node that has lost the store only, or was started again, answers, and keeps its sessions.
                    async with open_worker(link.address, name="iii-cluster-question", features=(RELAY,)):
                        return
                except ConnectionFailed as error:
                    why = str(error)
            if scope.cancelled_caught:
                why = f"no answer within {self._lease_seconds:g} s"
        finally:
            self._asked.discard(link.node)
        sessions = self._sessions_of(link.node)
        if sessions:
            LOGGER.info("the sessions of node %s are ended: %s", name, why)
            self._host.close_relays(sessions, f"node {name} is gone: {why}")

    def _sessions_of(self, node: Node) -> list[str]:
        """Return the names of the sessions that this node, or an earlier one of its name, has at this engine."""
        fences = {each: fence for each in self._host.relays() if (fence := fence_of_link(node.name, each))}
        newest = max(fences.values(), default=0)
        # A node that joined again in the same process has kept its session, and the link to it is up again.
        last = min(node.fence, newest - 1) if self._worker_at(node.name) is not None else node.fence
        return [each for each, fence in fences.items() if fence <= last]
