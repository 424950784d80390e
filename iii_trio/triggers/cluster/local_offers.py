"""The offers of this engine's own workers to the mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

import msgspec
import trio

from ..module import Host
from .records import BINDING, Key

EVERYWHERE: Final = frozenset({"http"})
"""The trigger types of modules whose bindings every node repeats, so that each one fires them."""
_SETTLING_SECONDS: Final = 0.02
"""From the first change to the reading, so that a hundred registrations are read once."""


@final
class LocalOffers:
    """Follows what this engine's own workers have registered. `rows` is what the node has to publish."""

    def __init__(self, host: Host, on_change: Callable[[], object]) -> None:
        self.rows: Mapping[Key, bytes] = {}
        self.changed = trio.Event()
        """Set, and replaced, when `rows` has changed."""
        self._host = host
        self._on_change = on_change
        self._told = trio.Event()
        self._withdrawn = False

    async def run(self) -> None:
        """Follow the changes. If cancelled: it stops."""
        self._host.watch_registrations(self._tell)
        try:
            self.read()
            while True:
                await self._told.wait()
                await trio.sleep(_SETTLING_SECONDS)
                self._told = trio.Event()
                self.read()
        finally:
            self._host.watch_registrations(None)

    def _tell(self) -> None:
        self._told.set()

    def read(self) -> None:
        """Read everything anew."""
        # A node that drains must not offer anything again when its workers change.
        if not self._withdrawn:
            registered = ((Key(kind, namespace, id_), row) for kind, namespace, id_, row in self._host.registrations())
            self._put({key: row for key, row in registered if key.kind != BINDING or _is_for_all(row)})

    def withdraw(self) -> None:
        """Offer nothing from now on."""
        self._withdrawn = True
        self._put({})

    def _put(self, rows: Mapping[Key, bytes]) -> None:
        # Most changes of an engine concern nothing that is offered, such as what relays register.
        if rows != self.rows:
            self.rows = rows
            self.changed.set()
            self.changed = trio.Event()
            self._on_change()


def _is_for_all(row: bytes) -> bool:
    return msgspec.json.decode(row)["trigger_type"] in EVERYWHERE
