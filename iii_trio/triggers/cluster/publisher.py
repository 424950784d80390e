"""The task that publishes what this engine's own workers offer, under the lease."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import trio

from .events import wait_and_cancel
from .lease import Lease
from .lease_keeper import RETRY_SECONDS, LeaseKeeper
from .local_offers import LocalOffers
from .node_link import LOGGER
from .records import Changes, Key, pieces
from .store import Fenced, MeshStore, StoreUnavailable


@final
class Publisher:
    """Keeps the rows of one node in the store equal to what its workers offer."""

    def __init__(
        self, store: MeshStore, local: LocalOffers, lease: Lease, keeper: LeaseKeeper, on_change: Callable[[], object]
    ) -> None:
        self._store = store
        self._local = local
        self._lease = lease
        self._keeper = keeper
        self._on_change = on_change
        self._published: dict[Key, bytes] = {}
        self._writes = 0
        """The number of writes so far. It rises over all leases."""

    @property
    def published(self) -> Mapping[Key, bytes]:
        """The rows that the store has."""
        return self._published

    def forget(self) -> None:
        """Count nothing as published, because the lease was lost."""
        self._published = {}

    async def run(self) -> None:
        """Publish whenever something changes and there is a lease. If cancelled: a write may have happened."""
        while True:
            changed, granted = self._local.changed, self._keeper.granted
            if not await self._publish():
                await trio.sleep(RETRY_SECONDS)
                continue
            async with trio.open_nursery() as nursery:
                for event in (changed, granted):
                    nursery.start_soon(wait_and_cancel, event, nursery.cancel_scope)

    async def _publish(self) -> bool:
        """Publish the difference. Return whether there is nothing left to do until something changes."""
        node = self._lease.node
        if node is None or not self._lease.held:
            return True
        rows, published = dict(self._local.rows), self._published
        changes: dict[Key, bytes | None] = {key: row for key, row in rows.items() if published.get(key) != row}
        changes |= dict.fromkeys(published.keys() - rows.keys(), None)
        if not changes:
            return True
        try:
            for some in pieces(changes):
                self._writes += 1
                with trio.fail_after(self._lease.seconds):
                    await self._store.publish(node, self._writes, some)
        # The lease may only have run out unnoticed, and the next renewal extends it. If it is lost, that says so.
        except Fenced:
            self._distrust(changes)
            return False
        # What has reached the store is not known, so all that changed is sent again.
        except (StoreUnavailable, trio.TooSlowError) as error:
            LOGGER.warning("what this node offers could not be published: %s", error or "no answer in time")
            self._distrust(changes)
            return False
        # A node that was fenced meanwhile has published nothing under its new lease.
        if self._published is published:
            self._published = rows
            self._on_change()
        return True

    def _distrust(self, changes: Changes) -> None:
        """Count these rows as published in no known form."""
        for key in changes:
            self._published[key] = b""
