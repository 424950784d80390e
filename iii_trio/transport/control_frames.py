"""The control frames of a connection, spoken by wsproto (RFC 6455 sections 5.5 and 7).

Each function makes a protocol object of its own, in the state after the opening handshake. So a connection keeps none while
it is at rest. Whether a side has sent Close is known to the connection (`connection_state.py`).

What a server says about a Close without a reason is the same each time, so the bytes of the usual ones are kept. A client
masks each of its frames anew.
"""

from __future__ import annotations

import functools
from typing import Final

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping

from .frames import CLOSE, apply_mask, frame

_HEAD: Final = 6  # bytes of a client's frame before its payload; the last four are the mask
_CODE: Final = 2  # bytes
_NO_MASK: Final = bytes(4)


def answer(control: bytes, *, is_client: bool) -> bytes:
    """Return the answer to one whole control frame of the peer. It is empty for a pong."""
    # Nearly every Close has no reason.
    if not is_client and control[0] & 15 == CLOSE and len(control) <= _HEAD + _CODE:
        return _answer_to_code(apply_mask(control[_HEAD:], control[2:_HEAD]))
    return _answer(control, is_client)


def close_frame(code: int, reason: str, *, is_client: bool) -> bytes:
    """Return a Close. A reason that is too long is cut between two characters."""
    return _close_frame(code, reason, is_client) if is_client or reason else _close_with_code(code)


def ping_frame(*, is_client: bool) -> bytes:
    """Return a ping without a payload."""
    return _protocol(is_client).send(Ping())


@functools.lru_cache(maxsize=64)
def _answer_to_code(payload: bytes) -> bytes:
    """Return a server's answer to a Close whose payload is a code or nothing."""
    return _answer(frame(CLOSE, payload, mask=_NO_MASK), is_client=False)


@functools.lru_cache(maxsize=64)
def _close_with_code(code: int) -> bytes:
    """Return a server's Close without a reason."""
    return _close_frame(code, "", is_client=False)


def _answer(control: bytes, is_client: bool) -> bytes:
    protocol = _protocol(is_client)
    protocol.receive_data(control)
    frames = [protocol.send(e.response()) for e in protocol.events() if isinstance(e, Ping | CloseConnection)]
    return b"".join(frames)


def _close_frame(code: int, reason: str, is_client: bool) -> bytes:
    return _protocol(is_client).send(CloseConnection(code=code, reason=reason))


def _protocol(is_client: bool) -> Connection:
    return Connection(ConnectionType.CLIENT if is_client else ConnectionType.SERVER)
