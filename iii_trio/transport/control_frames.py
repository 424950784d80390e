"""The control frames of a connection, spoken by wsproto (RFC 6455 sections 5.5 and 7).

Each function makes a protocol object of its own, in the state after the opening handshake. So a connection keeps none while
it is at rest. Whether a side has sent Close is known to the connection (`connection_state.py`).
"""

from __future__ import annotations

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping


def answer(control: bytes, *, is_client: bool) -> bytes:
    """Return the answer to one whole control frame of the peer. It is empty for a pong."""
    protocol = _protocol(is_client)
    protocol.receive_data(control)
    frames = [protocol.send(e.response()) for e in protocol.events() if isinstance(e, Ping | CloseConnection)]
    return b"".join(frames)


def close_frame(code: int, reason: str, *, is_client: bool) -> bytes:
    """Return a Close. A reason that is too long is cut between two characters."""
    return _protocol(is_client).send(CloseConnection(code=code, reason=reason))


def ping_frame(*, is_client: bool) -> bytes:
    """Return a ping without a payload."""
    return _protocol(is_client).send(Ping())


def _protocol(is_client: bool) -> Connection:
    return Connection(ConnectionType.CLIENT if is_client else ConnectionType.SERVER)
