"""The directory of a mesh: the offers of all nodes. Built from a snapshot, and kept up by the lines of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

import attrs

from .intake import find_odd
from .records import FUNCTION, Entry, EntryKind, Key, Node, Odd, Offer, Position, Snapshot


@attrs.define
class Difference:
    """The keys and nodes that a step has changed."""

    keys: set[Key] = attrs.field(factory=set)
    nodes: set[str] = attrs.field(factory=set)
    odd: list[Odd] = attrs.field(factory=list)
    """Rows that cannot be used. They count as not offered."""

    def __ior__(self, other: Difference) -> Difference:
        self.keys |= other.keys
        self.nodes |= other.nodes
        self.odd += other.odd
        return self


_NOWHERE: Final = Position("", 0)


@final
class Directory:
    """The offers of every node of the mesh, as far as the log has told."""

    def __init__(self) -> None:
        self.position = _NOWHERE
        self.nodes: dict[str, Node] = {}
        self._offers: dict[Key, dict[str, Offer]] = {}
        self._of_node: dict[str, set[Key]] = {}

    def __len__(self) -> int:
        return len(self._offers)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._offers)

    def of_node(self, name: str) -> set[Key]:
        """Return what one node offers."""
        return self._of_node.get(name, set())

    def count_functions(self, name: str) -> int:
        """Return how many functions the workers of one node offer."""
        return sum(
            key.kind == FUNCTION and not self._offers[key][name].is_internal for key in self._of_node.get(name, ())
        )

    def offers(self, key: Key) -> list[tuple[str, Offer]]:
        """Return the nodes that offer this, in the order in which they take over. Every node sees the same order.

        Those that have it come before those whose workers stand by for it (promise R3).
        """
        found = self._offers.get(key, {}).items()
        return sorted(found, key=lambda item: (item[1].stands_by, item[1].since, item[0]))

    def choose(self, key: Key, usable: Callable[[str], bool]) -> tuple[str, Offer] | None:
        """Return the first node that offers this and can be used."""
        return next(((name, offer) for name, offer in self.offers(key) if usable(name)), None)

    # --- changes

    def replace(self, snapshot: Snapshot) -> Difference:
        """Take a snapshot in place of all that was known."""
        changed = Difference()
        for name in {*self.nodes, *snapshot.nodes}:
            if self.nodes.get(name) != snapshot.nodes.get(name):
                changed.nodes.add(name)
        changed.odd += snapshot.odd
        before = self._offers
        self._offers, self._of_node = {}, {}
        self.nodes = dict(snapshot.nodes)
        for name, offers in snapshot.offers.items():
            for key, offer in offers.items():
                # A row that was known has passed already, and there may be many of them.
                earlier = before.get(key, {}).get(name)
                if earlier is not None and earlier.row == offer.row:
                    self._put(name, key, offer)
                else:
                    self._admit(name, key, offer, changed.odd)
        changed.keys = {key for key in {*before, *self._offers} if before.get(key) != self._offers.get(key)}
        # A node that joined anew may offer the same as before, over another link.
        for name in changed.nodes:
            changed.keys |= self.of_node(name)
        self.position = snapshot.position
        return changed

    def apply(self, entry: Entry) -> Difference | None:
        """Take the next line of the log. None, and nothing changed, if lines are missing between."""
        if entry.number <= self.position.number:
            return Difference(odd=list(entry.odd))  # the snapshot had it already, or it is not a line of a node
        # Whatever an unreadable line says is in what all is read from.
        if entry.number != self.position.number + 1 or entry.kind is EntryKind.UNREADABLE:
            return None
        self.position = attrs.evolve(self.position, number=entry.number)
        name = entry.node.name
        known = self.nodes.get(name)
        match entry.kind:
            case EntryKind.JOINED:
                changed = self._forget(name)
                self.nodes[name] = entry.node
                changed.nodes.add(name)
                return changed
            # A line of a holder that was fenced meanwhile.
            case _ if known is None or known.fence != entry.node.fence:
                return Difference()
            case EntryKind.OFFERS:
                return self._change(entry)
            case EntryKind.LEFT | EntryKind.LOST:
                changed = self._forget(name)
                del self.nodes[name]
                changed.nodes.add(name)
                return changed

    def _change(self, entry: Entry) -> Difference:
        name = entry.node.name
        changed = Difference(set(entry.changes), odd=list(entry.odd))
        for key, row in entry.changes.items():
            if row is None:
                self._take(name, key)
            else:
                # A new description keeps its place, so that no call changes its way by it.
                earlier = self._offers.get(key, {}).get(name)
                self._admit(name, key, Offer(entry.number if earlier is None else earlier.since, row), changed.odd)
        return changed

    def _admit(self, name: str, key: Key, offer: Offer, odd: list[Odd]) -> None:
        """Keep an offer of a node. One that cannot be used takes the earlier one away."""
        found = find_odd(name, key, offer.row)
        if found is None:
            self._put(name, key, offer)
        else:
            odd.append(found)
            self._take(name, key)

    def _put(self, name: str, key: Key, offer: Offer) -> None:
        self._offers.setdefault(key, {})[name] = offer
        self._of_node.setdefault(name, set()).add(key)

    def _take(self, name: str, key: Key) -> None:
        offers = self._offers.get(key, {})
        offers.pop(name, None)
        if not offers:
            self._offers.pop(key, None)
        self._of_node.get(name, set()).discard(key)

    def _forget(self, name: str) -> Difference:
        """Forget everything that a node offered."""
        keys = self._of_node.pop(name, set())
        for key in keys:
            self._take(name, key)
        return Difference(keys=set(keys))
