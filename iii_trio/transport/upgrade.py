"""The client's side of a WebSocket upgrade, with the answer read by h11 (RFC 6455 section 4.1)."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

import h11
import msgspec
import trio

from ..errors import PeerError
from .http1 import HeadParser

_READ: Final = 64 * 1024
_MAX_HEAD: Final = 64 * 1024
_MAX_BODY: Final = 64 * 1024
_BODY_SECONDS: Final = 2.0
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of RFC 6455
_TLS_RECORDS: Final = frozenset({0x15, 0x16})  # alert, handshake: RFC 8446 section 5.1


class Acceptance(msgspec.Struct, frozen=True):
    """A 101 that accepts the upgrade. `head` is a minimal form of it, `rest` the bytes that were read behind it."""

    head: bytes
    rest: bytes


class Refusal(msgspec.Struct, frozen=True):
    """A final answer to an upgrade other than 101."""

    status: int
    body: bytes


async def read_answer(stream: trio.abc.ReceiveStream, request: bytes) -> Acceptance | Refusal:
    """Read the answer to the upgrade `request`, skipping interim answers such as 100 and 103 (RFC 9110 section 15.2).

    A refusal's body is read up to 64 KiB, or as far as it comes within 2 seconds. Raises PeerError for bytes that are no
    HTTP answer or a 101 that does not fit the request, and trio.BrokenResourceError. Has no deadline for the head.
    """
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    fields = [("Host", "engine"), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
    parser.send(h11.Request(method="GET", target="/", headers=fields))
    parser.send(h11.EndOfMessage())
    status, body, first = 0, bytearray(), True
    scope = trio.CancelScope()
    try:
        with scope:
            while len(body) < _MAX_BODY:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    data = bytes(await stream.receive_some(_READ))
                    if not data and not status:
                        raise PeerError("the connection ended before an answer to the upgrade")
                    if first and data[0] in _TLS_RECORDS:
                        raise PeerError("the answer to the upgrade is TLS: write wss:// instead of ws://")
                    first = False
                    parser.receive_data(data)
                elif isinstance(event, h11.InformationalResponse):
                    if event.status_code == 101:
                        return Acceptance(_plain_acceptance(request, event), parser.trailing_data[0])
                elif isinstance(event, h11.Response):
                    # The status says enough, so a body that stalls does not turn the refusal into a timeout.
                    status, scope.deadline = event.status_code, trio.current_time() + _BODY_SECONDS
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    break
    except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
        # A refusal that was cut short is still one.
        if not status:
            # Some streams, like trio.SSLStream, give no text.
            cause = (str(error) or str(error.__cause__ or ""))[:200] or "the connection broke"
            raise PeerError(f"no HTTP answer to the upgrade: {cause}") from None
    return Refusal(status, bytes(body))


def _plain_acceptance(request: bytes, response: h11.InformationalResponse) -> bytes:
    """Check a 101 against the request, and build a minimal one for the library. Raises PeerError."""
    asked = HeadParser(len(request) + 1).feed(request)
    assert asked is not None, "the library sent no whole request"
    accept = base64.b64encode(hashlib.sha1(asked.headers["sec-websocket-key"].encode() + _GUID).digest())
    fields: dict[bytes, list[bytes]] = {}
    for name, value in response.headers:
        fields.setdefault(name, []).append(value)
    if not _has_token(fields, b"upgrade", b"websocket") or not _has_token(fields, b"connection", b"upgrade"):
        raise PeerError("the answer to the upgrade switches to something else than WebSocket")
    if fields.get(b"sec-websocket-accept") != [accept]:
        raise PeerError("the answer to the upgrade has a Sec-WebSocket-Accept that does not fit")
    if b"sec-websocket-extensions" in fields or b"sec-websocket-protocol" in fields:
        raise PeerError("the answer to the upgrade grants an extension or subprotocol that was not asked for")
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )


def _has_token(fields: dict[bytes, list[bytes]], name: bytes, token: bytes) -> bool:
    """Return whether a token stands in a field after its lines are joined with commas (RFC 9110 section 5.3)."""
    return token in {each.strip().lower() for each in b",".join(fields.get(name, [])).split(b",")}
