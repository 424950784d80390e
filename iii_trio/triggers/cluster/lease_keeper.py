"""The task that keeps this node's lease: it joins, renews, and joins again when it was fenced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio

from ...version import installed_version
from .lease import Lease
from .node_link import LOGGER
from .records import Position
from .settings import ClusterConfig
from .store import Fenced, MeshStore, NodeTaken, OtherLayout, StoreUnavailable
from .versions import layout_refused

RETRY_SECONDS: Final = 0.5
"""The pause after something that the store did not do."""
LEAVE_SECONDS: Final = 1.0
"""How long a node that leaves waits for the store."""


@final
class LeaseKeeper:
    """Keeps one lease.

    `on_grant` is called when `granted` is set, and `on_position` is given how far the store is at each renewal.
    """

    def __init__(
        self,
        name: str,
        settings: ClusterConfig,
        store: MeshStore,
        lease: Lease,
        on_change: Callable[[], object],
        on_grant: Callable[[], object],
        on_fenced: Callable[[], object],
        on_position: Callable[[Position], object],
    ) -> None:
        self.problem = ""
        """Why the store cannot be used now. Empty: it can."""
        self.joined = trio.Event()
        """Set once this node has had a lease."""
        self.granted = trio.Event()
        """Set, and replaced, when a lease was granted, or renewed after it had run out."""
        self._name = name
        self._settings = settings
        self._store = store
        self._lease = lease
        self._on_change = on_change
        self._on_grant = on_grant
        self._on_fenced = on_fenced
        self._on_position = on_position

    async def run(self) -> None:
        """Keep the lease. If cancelled: it is not given up here."""
        lease = self._lease
        pause = lease.seconds / 3
        last_problem = ""
        while True:
            asked_at = trio.current_time()
            problem = ""
            try:
                with trio.move_on_after(pause) as scope:
                    await self._ask(asked_at)
                if scope.cancelled_caught:
                    raise StoreUnavailable(f"no answer within {pause:g} s")
            # Another node may have taken over what this one offered, so all of it is published anew.
            except Fenced:
                LOGGER.warning("node %s has lost its lease, and joins again", self._name)
                lease.fenced()
                self._on_fenced()
                self._on_change()
                continue
            # The other engine may be a dead one, whose lease will run out.
            except NodeTaken as taken:
                problem = f"another engine, at {taken}, is node {self._name}: name this one otherwise"
            # A node that joined all the same would take the others' data for damaged, or be invisible to them.
            except OtherLayout as other:
                problem = layout_refused(other)
            except StoreUnavailable as error:
                problem = f"the store {self._store} cannot be used: {error}"
                lease.store_lost()
            if lease.check(trio.current_time()):
                LOGGER.warning("node %s holds no lease any more: %s", self._name, problem)
                self._on_change()
            if problem != last_problem:
                if problem:
                    LOGGER.warning("%s; own workers are served on, and it is tried again", problem)
                else:
                    LOGGER.info("the store %s answers again", self._store)
                last_problem = self.problem = problem
                self._on_change()
            retry = min(RETRY_SECONDS, pause) if problem else pause
            await trio.sleep_until(max(asked_at + retry, trio.current_time()))

    async def _ask(self, asked_at: float) -> None:
        lease, settings = self._lease, self._settings
        if lease.node is None or not (lease.held or lease.lapsed):
            node = await self._store.join(self._name, settings.advertise, installed_version() or "", lease.seconds)
            lease.granted(node, asked_at)
            LOGGER.info("node %s has joined %s (fencing number %d)", self._name, self._store, node.fence)
            self._note_grant()
            return
        position = await self._store.renew(lease.node, lease.seconds, sweep=lease.sweeps)
        lapsed = lease.lapsed
        lease.renewed(asked_at)
        if lapsed:
            self._note_grant()
        self._on_position(position)

    def _note_grant(self) -> None:
        self.joined.set()
        self.granted.set()
        self.granted = trio.Event()
        self._on_grant()
        self._on_change()

    async def leave(self) -> None:
        """Give the lease up, so that the others need not wait for its end. If cancelled: it is tried all the same."""
        node = self._lease.node
        # A store that does not answer must not keep this engine from its end.
        if self._lease.held and node is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_SECONDS):
                try:
                    await self._store.leave(node)
                except (StoreUnavailable, Fenced) as error:
                    LOGGER.info("node %s left without giving its lease back: %s", self._name, error)
        self._lease.released()
