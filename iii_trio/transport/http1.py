"""The head of a connection: an HTTP/1.1 request read with h11, and the plain answers that an engine gives.

Also the other side: the answer to a client's upgrade, where it is not 101.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

import attrs
import h11
import trio

from ..errors import PeerError

_READ: Final = 16 * 1024
_MAX_BODY: Final = 64 * 1024
_FIELD: Final = rb"[A-Za-z0-9-]++: [!-~](?:[ -~]*[!-~])?"
_PLAIN: Final = re.compile(rb"GET (/[!-~]*+) HTTP/1\.1\r\n(%b(?:\r\n%b)*+)\r\n\r\n" % (_FIELD, _FIELD))
_ABOUT_A_BODY: Final = frozenset({"content-length", "transfer-encoding", "expect"})
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of RFC 6455


class BadRequest(PeerError):
    """A request that gets no further than its head; `status` answers it."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


@attrs.frozen
class Head:
    """What a request's head says. `rest` is what was read beyond it."""

    rest: bytes = attrs.field(repr=False)
    method: str
    path: str
    query: str
    headers: dict[str, str]

    @property
    def wants_upgrade(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"

    def check_upgrade(self) -> None:
        """Raise BadRequest unless this is a valid WebSocket upgrade (RFC 6455 section 4.2.1)."""
        if self.method != "GET":
            raise BadRequest(405, "only GET is served here", (("Allow", "GET"),))
        tokens = {token.strip().lower() for token in self.headers.get("connection", "").split(",")}
        if not self.wants_upgrade or "upgrade" not in tokens:
            upgrade = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
            raise BadRequest(426, "this is a WebSocket endpoint: send Upgrade: websocket", upgrade)
        if self.headers.get("sec-websocket-version") != "13":
            raise BadRequest(426, "only WebSocket version 13 is spoken", (("Sec-WebSocket-Version", "13"),))
        try:
            key = base64.b64decode(self.headers.get("sec-websocket-key", ""), validate=True)
        except ValueError:
            key = b""
        if len(key) != 16:
            raise BadRequest(400, "Sec-WebSocket-Key must be 16 bytes in base64")

    def plain_upgrade(self) -> bytes:
        """This upgrade, once checked, without whatever else the client said: libraries stumble over odd headers."""
        return (
            b"GET / HTTP/1.1\r\nHost: engine\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
            + self.headers["sec-websocket-key"].encode()
            + b"\r\n\r\n"
        )


async def read_head(stream: trio.abc.ReceiveStream, limit: int, begun: bytes = b"") -> Head | None:
    """Read a request's head, which begins with `begun`; None if the stream ends before anything came.

    Raises BadRequest for what is no HTTP/1.1 or longer than `limit` bytes, trio.BrokenResourceError. Has no deadline.
    """
    data = bytearray(begun)
    while (head := parse_head(data, limit)) is None:
        more = await stream.receive_some(_READ)
        if not more:
            if data:
                raise BadRequest(400, "the request ended within its head")
            return None
        data += more
    return head


def parse_head(data: bytes | bytearray, limit: int) -> Head | None:
    """The head with which `data` begins, or None if it is not whole. Raises BadRequest as `read_head` does."""
    end = data.find(b"\r\n\r\n") + 4
    if len(data) > limit if end < 4 else end > limit:
        raise BadRequest(431, f"the head of the request is longer than {limit} bytes")
    if end < 4:
        return None
    raw, rest = bytes(data[:end]), bytes(data[end:])
    return _plain_head(raw, rest) or _any_head(raw, rest, limit)


def _plain_head(raw: bytes, rest: bytes) -> Head | None:
    """A head as nearly all are, in a fifth of the time; None for one in which there is anything to decide."""
    found = _PLAIN.fullmatch(raw)
    if found is None:
        return None
    lines = found[2].decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in [line.partition(": ") for line in lines]}
    if len(headers) < len(lines) or "host" not in headers or not _ABOUT_A_BODY.isdisjoint(headers):
        return None
    path, _, query = found[1].decode().partition("?")
    return Head(rest, "GET", path, query, headers)


def _any_head(raw: bytes, rest: bytes, limit: int) -> Head:
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=limit + 1)
    try:
        parser.receive_data(raw)
        request = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise BadRequest(error.error_status_hint, str(error)) from None
    if not isinstance(request, h11.Request):
        raise BadRequest(400, "no HTTP request")
    if request.http_version != b"1.1":
        raise BadRequest(505, "only HTTP/1.1 is spoken")
    path, _, query = request.target.decode("latin-1").partition("?")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
    return Head(rest, request.method.decode("latin-1"), path, query, headers)


def answer(status: int, body: bytes, headers: tuple[tuple[str, str], ...] = (), *, kind: str = "text/plain") -> bytes:
    """A whole response that ends its connection."""
    connection = h11.Connection(h11.SERVER)
    fields = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))), *headers]
    if not any(name == "Connection" for name, _ in headers):
        fields.append(("Connection", "close"))
    head = connection.send(h11.Response(status_code=status, headers=fields, reason=_REASONS.get(status, b"")))
    return (head or b"") + (connection.send(h11.Data(data=body)) or b"")


_REASONS: Final = {
    200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 409: b"Conflict", 410: b"Gone", 426: b"Upgrade Required",
    431: b"Request Header Fields Too Large", 503: b"Service Unavailable", 505: b"HTTP Version Not Supported",
}  # fmt: skip


def plain_acceptance(request: bytes, answer: bytes) -> bytes:
    """The head of a 101 that accepts this upgrade, without whatever else it says, as for `Head.plain_upgrade`.

    Raises PeerError if it does not accept it (RFC 6455 section 4.1).
    """
    asked, said = _fields(request), _fields(answer)
    accept = base64.b64encode(hashlib.sha1(asked["sec-websocket-key"].encode() + _GUID).digest())
    if said.get("upgrade", "").lower() != "websocket" or "upgrade" not in said.get("connection", "").lower():
        raise PeerError("the answer to the upgrade switches to something else than WebSocket")
    if said.get("sec-websocket-accept", "").encode() != accept:
        raise PeerError("the answer to the upgrade has a Sec-WebSocket-Accept that does not fit")
    if "sec-websocket-extensions" in said or "sec-websocket-protocol" in said:
        raise PeerError("the answer to the upgrade grants an extension or subprotocol that nobody asked for")
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )


def _fields(head: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in lines}


@attrs.frozen
class Refusal:
    """An answer to an upgrade that was not 101."""

    status: int
    body: bytes


async def read_refusal(stream: trio.abc.ReceiveStream, seen: bytes) -> Refusal:
    """Read the rest of an answer that begins with `seen` and is not 101: its status, and its body as far as it comes.

    Raises PeerError for what is no HTTP answer, trio.BrokenResourceError.
    """
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="GET", target="/", headers=[("Host", "engine")]))
    parser.send(h11.EndOfMessage())
    status, body = 0, bytearray()
    parser.receive_data(seen)
    try:
        while len(body) < _MAX_BODY:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(bytes(await stream.receive_some(_READ)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed | type(h11.PAUSED)):
                break
    except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
        if not status:
            raise PeerError(f"no HTTP answer to the upgrade: {error}") from None
    return Refusal(status, bytes(body))
