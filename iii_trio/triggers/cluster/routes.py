"""The ways to the channels of other nodes. A channel's id ends with the name of its node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, final

import attrs
import trio

from ...errors import ChannelBroken, ConnectionFailed
from ...lowlevel import identity_of
from ...transport.dial import SocketAddress
from ...transport.link import Identity, ReadingEnd, WritingEnd
from ...transport.routes import Passage
from ...wire import Outcome, Ref
from .node_link import NodeLink

_WAIT_SECONDS: Final = 5.0
"""How long an end waits for the link to its node. A call may arrive from a node before this one knows it."""


class Mesh(Protocol):
    """The parts of the module that a route uses."""

    name: str

    @property
    def links(self) -> Mapping[str, NodeLink]:
        """The links to the other nodes, by their names."""

    @property
    def gone(self) -> Mapping[str, str]:
        """Why nodes that were here are gone."""

    async def wait_changed(self) -> None:
        """Wait until a link has changed."""


@final
class Routes:
    """The `ChannelRoutes` of a node."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.home = mesh.name

    def find(self, channel_id: str) -> Passage | None:
        """As `ChannelRoutes.find`."""
        name = channel_id.rpartition(".")[2]
        return None if name in (channel_id, self.home) else NodePassage(self._mesh, name)


@final
@attrs.frozen
class NodePassage:
    """The `Passage` to one node."""

    _mesh: Mesh
    _node: str

    async def open(self, ref: Ref, headers: Sequence[tuple[bytes, bytes]]) -> trio.abc.Stream:
        """As `Passage.open`."""
        address, identity = await self._way()
        return await address.open_end(ref, identity, headers)

    async def attach_writer(self, ref: Ref, *, task_status: trio.TaskStatus[WritingEnd]) -> None:
        """As `Passage.attach_writer`."""
        address, identity = await self._way()
        await address.attach_writer(ref, identity, task_status=task_status)

    async def attach_reader(self, ref: Ref, *, task_status: trio.TaskStatus[ReadingEnd]) -> None:
        """As `Passage.attach_reader`."""
        address, identity = await self._way()
        await address.attach_reader(ref, identity, task_status=task_status)

    async def _way(self) -> tuple[SocketAddress, Identity | None]:
        """Return the node's address, and the session there that is to hold the end."""
        with trio.move_on_after(_WAIT_SECONDS):
            while True:
                # A node that comes back has other channels, so waiting for it is of no use.
                if self._node in self._mesh.gone:
                    why = f"node {self._node} is gone: {self._mesh.gone[self._node]}"
                    raise ChannelBroken(Outcome.OWNER_LOST, why)
                # The link's session there holds the end, so that a lost link ends it.
                link = self._mesh.links.get(self._node)
                if link is not None and link.worker is not None and isinstance(link.address, SocketAddress):
                    await trio.lowlevel.checkpoint()
                    return link.address, identity_of(link.worker)
                await self._mesh.wait_changed()
        raise ConnectionFailed(f"node {self._node}, which has the channel, cannot be reached from {self._mesh.name}")
