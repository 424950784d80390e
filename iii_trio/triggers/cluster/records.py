"""The records of a mesh in its store: nodes, their offers, and the log of changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from itertools import islice
from typing import Final, TypeAlias

import attrs
import msgspec

FUNCTION: Final = "function"
TRIGGER_TYPE: Final = "trigger_type"
BINDING: Final = "binding"
WORKER: Final = "worker"
NAME: Final = "name"
LEFT: Final = "it has left the mesh"
"""Why a node is gone that has said so itself."""
LINKS: Final = (1, 1)
"""The oldest and the newest version of links between nodes that this engine understands. A release that changes what nodes
say to each other raises the newest, and the oldest once it drops the earlier one."""
_INTERNAL: Final = b'"metadata":{"internal":true}}'
"""The end of the row of a module's function (`core/exports.py`)."""
_STANDS_BY: Final = b',"standby":true}'
"""The end of the row of a worker that stands by (`core/exports.py`)."""
_ROWS: Final = 500
"""The rows that one write changes."""


@attrs.frozen(order=True)
class Key:
    """The name of something that a node offers."""

    kind: str
    """`function`, `trigger_type`, `binding`, `worker` or `name`."""
    namespace: str
    id: str

    @property
    def text(self) -> str:
        """The key as the store keeps it."""
        return msgspec.json.encode([self.kind, self.namespace, self.id]).decode()

    @classmethod
    def parse(cls, text: str | bytes) -> Key:
        """Read the text of a key. Raises ValueError."""
        try:
            return cls(*msgspec.json.decode(text, type=tuple[str, str, str]))
        except RecursionError:
            raise ValueError("nested too deeply") from None


@attrs.frozen
class Node:
    """A node that has joined. A node that joins again has a higher fencing number."""

    name: str
    address: str
    fence: int
    version: str = ""
    links: tuple[int, int] = LINKS
    """The oldest and the newest version of links that it understands."""

    @property
    def speaks_with_this(self) -> bool:
        """Whether a link between that node and one of this version is of any use."""
        return self.links[0] <= LINKS[1] and LINKS[0] <= self.links[1]


Changes: TypeAlias = Mapping[Key, bytes | None]
"""Rows (JSON) by their keys. None: the node offers it no longer."""


def pieces(changes: Changes) -> Iterator[Changes]:
    """Cut changes so that no write holds the store up for long."""
    rows = iter(changes.items())
    while piece := dict(islice(rows, _ROWS)):
        yield piece


class EntryKind(Enum):
    """The kinds of lines in the log."""

    JOINED = "joined"  # also again: what the node offered before is gone
    OFFERS = "offers"
    LEFT = "left"
    LOST = "lost"  # its lease ran out
    UNREADABLE = "unreadable"  # never written: a line that this node cannot read


@attrs.frozen
class Odd:
    """Something in the store that cannot be used, and is left out."""

    node: str
    """The name of the node whose it is. Empty: that is not known."""
    key: str
    why: str


@attrs.frozen
class Entry:
    """A line of the log. The numbers of the lines have no gaps."""

    number: int
    kind: EntryKind
    node: Node
    changes: Changes = attrs.field(factory=dict)
    odd: Sequence[Odd] = ()
    """The parts that are left out."""


@attrs.frozen
class Offer:
    """Something that a node offers, with the number of the line that told of it first."""

    since: int
    row: bytes
    stands_by: bool = attrs.field(init=False)
    """Whether a worker there stands by for another node's."""

    @property
    def is_internal(self) -> bool:
        """Whether it is a function of a module, which no list shows."""
        return self.row.endswith(_INTERNAL)

    @stands_by.default
    def _stands_by(self) -> bool:
        return self.row.endswith(_STANDS_BY)


@attrs.frozen
class Position:
    """How far a store has come. Another epoch means that it lost everything meanwhile."""

    epoch: str
    number: int


@attrs.frozen
class Snapshot:
    """All that a store keeps, at one moment."""

    position: Position
    cursor: str
    """Where the log goes on, as the store names it."""
    nodes: Mapping[str, Node]
    offers: Mapping[str, Mapping[Key, Offer]]
    """By the node's name."""
    odd: Sequence[Odd] = ()
    """The parts that are left out."""
