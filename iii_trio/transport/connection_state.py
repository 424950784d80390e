"""The states of a WebSocket connection."""

from __future__ import annotations

from enum import auto
from typing import Final

from ..state_machine import Table, TableEnum


class ConnectionState(TableEnum):
    """The state of a connection."""

    CONNECTING = auto()
    OPEN = auto()
    CLOSING = auto()  # our Close is on its way: further input is thrown away
    CLOSED = auto()  # both sides have sent Close
    CUT = auto()  # no closing handshake will come


class ConnectionEvent(TableEnum):
    """A change of a connection."""

    ACCEPTED = auto()
    WE_CLOSED = auto()
    PEER_CLOSED = auto()
    LOST = auto()


CONNECTION: Final[Table[ConnectionState, ConnectionEvent]] = {
    ConnectionState.CONNECTING: {
        ConnectionEvent.ACCEPTED: ConnectionState.OPEN,
        ConnectionEvent.WE_CLOSED: ConnectionState.CUT,
        ConnectionEvent.LOST: ConnectionState.CUT,
    },
    ConnectionState.OPEN: {
        ConnectionEvent.WE_CLOSED: ConnectionState.CLOSING,
        ConnectionEvent.PEER_CLOSED: ConnectionState.CLOSED,
        ConnectionEvent.LOST: ConnectionState.CUT,
    },
    ConnectionState.CLOSING: {
        ConnectionEvent.PEER_CLOSED: ConnectionState.CLOSED,
        ConnectionEvent.LOST: ConnectionState.CUT,
    },
    ConnectionState.CLOSED: {},
    ConnectionState.CUT: {},
}
