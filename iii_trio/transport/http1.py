"""Heads of HTTP/1.1 requests, read with h11, and the plain answers of an engine (RFC 9112)."""

from __future__ import annotations

import base64
import re
from typing import Final, final

import h11
import msgspec
import trio

from ..errors import PeerError
from ..records import reprs_without

_READ: Final = 16 * 1024
_BAD_LINE: Final = re.compile(rb"\n(?:(?<!\r\n)|[ \t])")
"""A line that ends with LF alone, or one that begins with white space.

The pattern begins with LF itself, so that the search goes from one LF to the next. It takes a tenth of the time.
"""
_ABSOLUTE_FORM: Final = r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]+)([^#]*)"
_TLS_HANDSHAKE: Final = 0x16  # the first byte of a TLS ClientHello (RFC 8446 section 5.1)


class BadRequest(PeerError):
    """A request that is refused for its head. `status` and `headers` are those of the answer."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class Head(msgspec.Struct, frozen=True):
    """The head of a request. `rest` holds the bytes that were read behind it.

    The names in `headers` are in lower case. The lines of a repeated field are joined with a comma (RFC 9110 section 5.3).
    """

    rest: bytes
    method: str
    path: str
    query: str
    headers: dict[str, str]
    version: str = "1.1"

    __repr__, __rich_repr__ = reprs_without("rest")

    @property
    def wants_upgrade(self) -> bool:
        return "websocket" in _tokens(self.headers.get("upgrade", ""))

    @property
    def has_body(self) -> bool:
        """Whether the head announces a body (RFC 9112 section 6)."""
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0").strip("0") != ""

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for a 100 (Continue) before its body (RFC 9110 section 10.1.1)."""
        return self.version == "1.1" and "100-continue" in _tokens(self.headers.get("expect", ""))

    def check_upgrade(self) -> None:
        """Raise BadRequest unless this is a valid WebSocket upgrade (RFC 6455 section 4.2.1)."""
        if self.method != "GET":
            raise BadRequest(405, "only GET is served here", (("Allow", "GET"),))
        if not self.wants_upgrade or "upgrade" not in _tokens(self.headers.get("connection", "")):
            upgrade = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
            raise BadRequest(426, "this is a WebSocket endpoint: send Upgrade: websocket", upgrade)
        if self.version == "1.0":  # which has no upgrades: RFC 9110 section 7.8
            raise BadRequest(505, "only HTTP/1.1 is spoken by a WebSocket endpoint")
        if self.headers.get("sec-websocket-version") != "13":
            raise BadRequest(426, "only WebSocket version 13 is spoken", (("Sec-WebSocket-Version", "13"),))
        key = self.headers.get("sec-websocket-key", "")
        if "," in key:
            raise BadRequest(400, "Sec-WebSocket-Key stands in the head more than once")
        if not _is_key(key):
            raise BadRequest(400, "Sec-WebSocket-Key must be 16 bytes in base64")
        # A body would be read as frames: two readers of the same bytes must not differ about where they begin.
        if self.has_body:
            raise BadRequest(400, "an upgrade has no body: leave out Content-Length and Transfer-Encoding")

    def plain_upgrade(self) -> bytes:
        """Build a minimal upgrade request from this checked one, for libraries that stumble over odd headers."""
        return (
            b"GET / HTTP/1.1\r\nHost: engine\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
            + self.headers["sec-websocket-key"].encode()
            + b"\r\n\r\n"
        )


def _tokens(value: str) -> set[str]:
    """Return the tokens of a comma-separated field, in lower case."""
    return {token.strip().lower() for token in value.split(",")}


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        return False


@final
class HeadRules:
    """The rules of one request's head that h11 does not check. The head comes in pieces.

    Two readers of a connection must not differ about where a head or one of its lines ends.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._begun = False  # the first byte of the request line is here
        self._is_whole = False

    def check(self, data: bytes | bytearray) -> bytes:
        """Check the next bytes, and return those that h11 is to read. Bytes behind the head are not checked.

        Raises BadRequest as soon as the bytes cannot become the head of a request, or exceed the limit.
        """
        if self._is_whole:
            return bytes(data)
        known = len(self._data)
        self._data += data
        if not self._begun:
            if len(self._data) == 0 or self._data == b"\r":
                return b""
            # RFC 9112 section 2.2: ignore an empty line before the request line.
            if self._data.startswith(b"\r\n"):
                del self._data[:2]
            self._begun = True
            data, known = bytes(self._data), 0
        if data:
            self._check(known)
        return bytes(data)

    def _check(self, known: int) -> None:
        """Check all but the first `known` bytes, which have been checked before."""
        data = self._data
        if data[0] == _TLS_HANDSHAKE:
            raise BadRequest(
                400,
                "illegal request line: this is TLS, and the listener speaks none; "
                "use ws:// or http://, or configure `tls` for the listener",
            )
        end = data.find(b"\r\n\r\n", max(0, known - 3)) + 4
        self._is_whole = end >= 4
        if (end if self._is_whole else len(data)) > self._limit:
            raise BadRequest(431, f"the head of the request is longer than {self._limit} bytes")
        # h11 takes a bare LF for the end of a line, and would wait for more where other parsers see the end of the head.
        # It joins a folded line to the one before, and other parsers do not (RFC 9112 section 5.2).
        bad = _BAD_LINE.search(data, max(0, known - 1), end if self._is_whole else len(data))
        if bad is None:
            return
        if len(bad[0]) == 1:
            raise BadRequest(400, "a line of the head ends with LF alone: end each line with CR LF")
        raise BadRequest(400, "a header line begins with white space: write each header in one line")


@final
class HeadParser:
    """Parse one request's head, fed in pieces. h11 decides, and `HeadRules` where h11 is too lenient."""

    def __init__(self, limit: int) -> None:
        self._rules = HeadRules(limit)
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=limit + 1)

    def feed(self, data: bytes | bytearray) -> Head | None:
        """Take the next bytes, and return the head once it is complete.

        Raises BadRequest as soon as the bytes cannot become an HTTP/1.x head, or exceed the limit.
        """
        data = self._rules.check(data)
        if not data:
            return None
        try:
            self._parser.receive_data(data)
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            raise broken_rule(error) from None
        return None if event is h11.NEED_DATA else self._head(event)

    def _head(self, request: object) -> Head:
        if not isinstance(request, h11.Request):
            raise BadRequest(400, "no HTTP request")
        version = check_version(request)
        fields = request.headers.raw_items()
        headers = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in fields}
        # Few heads repeat a field.
        if len(headers) < len(fields):
            headers = {}
            for name, value in fields:
                key, text = name.lower().decode("latin-1"), value.decode("latin-1")
                headers[key] = f"{headers[key]}, {text}" if key in headers else text
        host, path, query = split_target(request.target.decode("latin-1"))
        if host is not None:  # RFC 9112 section 3.2.2: it replaces the field
            headers["host"] = host
        rest = self._parser.trailing_data[0]
        return Head(rest, request.method.decode("latin-1"), path, query, headers, version)


def check_version(request: h11.Request) -> str:
    """Return the version of a request, `1.1` or `1.0`. Raises BadRequest for another major version."""
    version = request.http_version.decode()
    if not version.startswith("1."):
        raise BadRequest(505, "only HTTP/1.1 is spoken")
    return version


def split_target(target: str) -> tuple[str | None, str, str]:
    """Return the host (None unless the target is absolute), the path and the query of a request's target."""
    host = None
    absolute = re.fullmatch(_ABSOLUTE_FORM, target) if not target.startswith("/") else None
    if absolute is not None:
        host, target = absolute[1], absolute[2]
        target = target if target.startswith("/") else "/" + target
    path, _, query = target.partition("?")
    return host, path, query


_RULES: Final = (
    ("illegal request line", "illegal request line: it is a method, a target and HTTP/1.1, with single spaces between"),
    ("no request line", "illegal request line: it is empty"),
    ("illegal header line", "a header line is not `name: value`, or has a character that no header may have"),
    ("Missing mandatory Host", "the Host header is missing"),
    ("Found multiple Host", "there is more than one Host header"),
    ("bad Content-Length", "Content-Length is not a number"),
    ("conflicting Content-Length", "there are different Content-Length headers"),
    ("multiple Transfer-Encoding", "there is more than one Transfer-Encoding header"),
    ("Only Transfer-Encoding", "only Transfer-Encoding: chunked is understood"),
)


def broken_rule(error: h11.RemoteProtocolError) -> BadRequest:
    """Name the rule that a head breaks. The offending line is left out, because it may hold a token."""
    message = str(error)
    known = [text for beginning, text in _RULES if message.startswith(beginning)]
    return BadRequest(error.error_status_hint, known[0] if known else "the head breaks a rule of HTTP/1.1 (RFC 9112)")


async def read_head(stream: trio.abc.ReceiveStream, limit: int, begun: bytes = b"") -> Head | None:
    """Read a request's head that begins with `begun`. Return None if the stream ends before the first byte.

    Raises BadRequest for bytes that are not an HTTP/1.x request, or a head longer than `limit` bytes, and
    trio.BrokenResourceError. Has no deadline of its own. If cancelled: the bytes read so far are lost.
    """
    parser = HeadParser(limit)
    any_data = bool(begun)
    head = parser.feed(begun)
    while head is None:
        more = await stream.receive_some(_READ)
        if not more:
            if any_data:
                raise BadRequest(400, "the request ended within its head")
            return None
        any_data = True
        head = parser.feed(more)
    return head


def answer(status: int, body: bytes, headers: tuple[tuple[str, str], ...] = (), *, kind: str = "text/plain") -> bytes:
    """Build a whole response after which the connection ends."""
    connection = h11.Connection(h11.SERVER)
    fields = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))), *headers]
    if not any(name == "Connection" for name, _ in headers):
        fields.append(("Connection", "close"))
    head = connection.send(h11.Response(status_code=status, headers=fields, reason=_REASONS.get(status, b"")))
    return (head or b"") + (connection.send(h11.Data(data=body)) or b"")


_REASONS: Final = {
    200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 409: b"Conflict", 410: b"Gone", 411: b"Length Required",
    413: b"Content Too Large", 415: b"Unsupported Media Type", 426: b"Upgrade Required",
    431: b"Request Header Fields Too Large", 501: b"Not Implemented", 503: b"Service Unavailable",
    505: b"HTTP Version Not Supported",
}  # fmt: skip
