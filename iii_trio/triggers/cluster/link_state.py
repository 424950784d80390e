"""The states of the link to another node.

           REACHED           LOST
DIALLING ──────────► UP ──────────────► WAITING ── WAITED ──► DIALLING
    └───────────────── NOT_REACHED ────────▲
"""

from __future__ import annotations

from enum import auto
from typing import Final

from ...state_machine import Table, TableEnum


class LinkState(TableEnum):
    """The states of a link."""

    DIALLING = auto()
    UP = auto()
    WAITING = auto()  # to dial again
    CLOSED = auto()  # the node has left the mesh


class LinkEvent(TableEnum):
    """The events in the life of a link."""

    REACHED = auto()
    NOT_REACHED = auto()
    LOST = auto()
    WAITED = auto()
    CLOSED = auto()


LINK: Final[Table[LinkState, LinkEvent]] = {
    LinkState.DIALLING: {
        LinkEvent.REACHED: LinkState.UP,
        LinkEvent.NOT_REACHED: LinkState.WAITING,
        LinkEvent.CLOSED: LinkState.CLOSED,
    },
    LinkState.UP: {LinkEvent.LOST: LinkState.WAITING, LinkEvent.CLOSED: LinkState.CLOSED},
    LinkState.WAITING: {LinkEvent.WAITED: LinkState.DIALLING, LinkEvent.CLOSED: LinkState.CLOSED},
    LinkState.CLOSED: {},
}
