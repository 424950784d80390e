"""The states of a WebSocket connection."""

from __future__ import annotations

from enum import auto
from typing import Final

from ..state_machine import Table, TableEnum


class ConnectionState(TableEnum):
    """The state of a connection."""

    CONNECTING = auto()
    OPEN = auto()
    CLOSING = auto()  # our Close is on its way, and the peer's is awaited: further input is thrown away
    CLOSED = auto()  # both sides have sent Close
    CUT = auto()  # we end the stream, and no closing handshake will come
    LOST = auto()  # it is of no use any more


class ConnectionEvent(TableEnum):
    """A change of a connection."""

    ACCEPTED = auto()
    WE_CLOSED = auto()
    WE_CUT = auto()
    PEER_CLOSED = auto()
    LOST = auto()


CONNECTION: Final[Table[ConnectionState, ConnectionEvent]] = {
    ConnectionState.CONNECTING: {
        ConnectionEvent.ACCEPTED: ConnectionState.OPEN,
        ConnectionEvent.WE_CLOSED: ConnectionState.LOST,
        ConnectionEvent.WE_CUT: ConnectionState.LOST,
        ConnectionEvent.LOST: ConnectionState.LOST,
    },
    ConnectionState.OPEN: {
        ConnectionEvent.WE_CLOSED: ConnectionState.CLOSING,
        ConnectionEvent.WE_CUT: ConnectionState.CUT,
        ConnectionEvent.PEER_CLOSED: ConnectionState.CLOSED,
        ConnectionEvent.LOST: ConnectionState.LOST,
    },
    ConnectionState.CLOSING: {
        ConnectionEvent.PEER_CLOSED: ConnectionState.CLOSED,
        ConnectionEvent.LOST: ConnectionState.LOST,
    },
    ConnectionState.CLOSED: {},
    ConnectionState.CUT: {},
    ConnectionState.LOST: {},
}
