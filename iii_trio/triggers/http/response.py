"""The decisions of a response. The handler's result or messages become a status, headers and a body.

                       FIRST_BYTES               CHANNEL_CLOSED
    WAITING ─────────────────────────► STREAMING ─────────────────► COMPLETE
       │  RETURNED_NULL                     │ CHANNEL_BROKEN
       ▼                                    ▼
    CHANNEL_ONLY ── as WAITING ──►      TRUNCATED: the connection is ended without the last chunk

A handler answers in one of two ways, and the first one wins: by its result, or by what it sends into the `response`
channel. Text items of the channel are control messages until the first bytes. A result of null means that the channel
is the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import auto
from typing import Any, Final, final

import msgspec

from ...records import frozen
from ...state_machine import StateMachine, Table, TableEnum


class ResponseState(TableEnum):
    """The state of one response."""

    WAITING = auto()  # for the handler's result, or for the channel
    CHANNEL_ONLY = auto()  # the handler returned null, so only the channel can answer
    RESULT_ONLY = auto()  # the channel broke before its first bytes, so only the result can answer
    UNUSED = auto()  # there is no channel, or it was closed without an item, as our worker closes an unused end
    STREAMING = auto()  # the head is sent
    COMPLETE = auto()
    FAILED = auto()  # before the head: the client gets an error
    TRUNCATED = auto()  # behind the head: the client must see that the body is not whole


class ResponseEvent(TableEnum):
    """What happened to a response."""

    RETURNED_VALUE = auto()
    RETURNED_NULL = auto()
    HANDLER_FAILED = auto()
    FIRST_BYTES = auto()
    CHANNEL_CLOSED = auto()
    CHANNEL_CLOSED_UNUSED = auto()
    CHANNEL_BROKEN = auto()
    BODY_BROKEN = auto()  # the request's body cannot be read to its end


RESPONSE: Final[Table[ResponseState, ResponseEvent]] = {
    ResponseState.WAITING: {
        ResponseEvent.RETURNED_VALUE: ResponseState.COMPLETE,
        ResponseEvent.RETURNED_NULL: ResponseState.CHANNEL_ONLY,
        ResponseEvent.HANDLER_FAILED: ResponseState.FAILED,
        ResponseEvent.FIRST_BYTES: ResponseState.STREAMING,
        ResponseEvent.CHANNEL_CLOSED: ResponseState.COMPLETE,
        ResponseEvent.CHANNEL_CLOSED_UNUSED: ResponseState.UNUSED,
        ResponseEvent.CHANNEL_BROKEN: ResponseState.RESULT_ONLY,
        ResponseEvent.BODY_BROKEN: ResponseState.FAILED,
    },
    ResponseState.CHANNEL_ONLY: {
        ResponseEvent.FIRST_BYTES: ResponseState.STREAMING,
        ResponseEvent.CHANNEL_CLOSED: ResponseState.COMPLETE,
        ResponseEvent.CHANNEL_CLOSED_UNUSED: ResponseState.COMPLETE,
        ResponseEvent.CHANNEL_BROKEN: ResponseState.FAILED,
        ResponseEvent.BODY_BROKEN: ResponseState.FAILED,
    },
    ResponseState.UNUSED: {
        ResponseEvent.RETURNED_VALUE: ResponseState.COMPLETE,
        ResponseEvent.RETURNED_NULL: ResponseState.COMPLETE,
        ResponseEvent.HANDLER_FAILED: ResponseState.FAILED,
        ResponseEvent.BODY_BROKEN: ResponseState.FAILED,
    },
    ResponseState.RESULT_ONLY: {
        ResponseEvent.RETURNED_VALUE: ResponseState.COMPLETE,
        ResponseEvent.RETURNED_NULL: ResponseState.FAILED,
        ResponseEvent.HANDLER_FAILED: ResponseState.FAILED,
        ResponseEvent.BODY_BROKEN: ResponseState.FAILED,
    },
    ResponseState.STREAMING: {
        # The result of a handler that streams is ignored, its error too: the writer's end says whether all was sent.
        ResponseEvent.RETURNED_VALUE: ResponseState.STREAMING,
        ResponseEvent.RETURNED_NULL: ResponseState.STREAMING,
        ResponseEvent.HANDLER_FAILED: ResponseState.STREAMING,
        ResponseEvent.CHANNEL_CLOSED: ResponseState.COMPLETE,
        ResponseEvent.CHANNEL_BROKEN: ResponseState.TRUNCATED,
        ResponseEvent.BODY_BROKEN: ResponseState.TRUNCATED,
    },
    ResponseState.COMPLETE: {},
    ResponseState.FAILED: {},
    ResponseState.TRUNCATED: {},
}

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,16384}")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
"""A length that all parsers read alike. Another one would leave the client without a response."""
_OF_THE_CONNECTION: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that are the server's own (RFC 9110 section 7.6.1). Handlers that set them are not disturbed, and not heard."""
_BODILESS: Final = frozenset({204, 205, 304})


@frozen
class Head:
    """The status and the headers of a response."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()

    def value(self, name: str) -> str | None:
        """Return the first value of a header."""
        return next((value for found, value in self.headers if found.lower() == name), None)

    def plus(self, *headers: tuple[str, str]) -> Head:
        """Return this head with more headers behind its own."""
        return Head(self.status, (*self.headers, *headers))

    @property
    def has_body(self) -> bool:
        """Whether a response with this status may have a body (RFC 9110 sections 6.4.1 and 15.3.6)."""
        return self.status >= 200 and self.status not in _BODILESS


@frozen
class Whole:
    """A response that is complete."""

    head: Head
    body: bytes

    def plus(self, *headers: tuple[str, str]) -> Whole:
        """Return this response with more headers behind its own."""
        return Whole(self.head.plus(*headers), self.body)


@final
class Response:
    """The answer to one request, as the handler builds it."""

    def __init__(self, *, has_channel: bool = True) -> None:
        begin = ResponseState.WAITING if has_channel else ResponseState.UNUSED
        self.state: StateMachine[ResponseState, ResponseEvent] = StateMachine(RESPONSE, begin)
        self._status = 200
        self._headers: dict[str, tuple[str, str]] = {}

    @property
    def head(self) -> Head:
        """Return the head that the control messages made so far."""
        return Head(self._status, tuple(self._headers.values()))

    def control(self, text: str) -> str | None:
        """Take a control message. Returns the error if it is ignored.

        Behind the first bytes control messages mean nothing.
        """
        # The head has left already, so nothing of it can change.
        if self.state.current is ResponseState.STREAMING:
            return "a control message behind the first bytes of the body"
        try:
            message = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return "a text item that is not JSON"
        match message:
            case {"type": "set_status", "status_code": int(status)} if (
                not isinstance(status, bool) and 200 <= status <= 599
            ):
                self._status = status
            case {"type": "set_status"}:
                return "set_status whose status_code is not a number from 200 to 599"
            case {"type": "set_headers", "headers": dict(headers)}:
                for name, value in usable_headers(headers.items()):
                    self._headers[name.lower()] = (name, value)
            case _:
                return "a text item that is neither set_status nor set_headers"
        return None


def usable_headers(headers: Iterable[tuple[Any, Any]]) -> list[tuple[str, str]]:
    """Return the headers that can be sent; the others are skipped."""
    return [
        (name, value.strip())
        for name, value in headers
        if isinstance(name, str)
        and isinstance(value, str)
        and _NAME.fullmatch(name)
        and _VALUE.fullmatch(value)
        and (lower := name.lower()) not in _OF_THE_CONNECTION
        and (lower != "content-length" or _LENGTH.fullmatch(value.strip()))
    ]


def returned(result: Any) -> Whole:
    """Build the response that a handler's result stands for: `{status_code, headers, body}`, each of them optional."""
    if not isinstance(result, dict):
        result = {}
    status = _status(result.get("status_code", result.get("statusCode")))
    given = result.get("headers")
    # A list of lines can hold a name twice, as two cookies need it.
    if isinstance(given, list):
        lines = [line.partition(":") for line in given if isinstance(line, str) and ":" in line]
        headers = usable_headers((name.strip(), value) for name, _, value in lines)
    else:
        headers = usable_headers(given.items()) if isinstance(given, dict) else []
    headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
    body = result.get("body", {})
    content_type = next((value for name, value in headers if name.lower() == "content-type"), None)
    if content_type is None:
        headers.append(("content-type", "application/json"))
        data = msgspec.json.encode(body)
    elif isinstance(body, str):
        data = body.encode()
    elif body is None:
        data = b""
    else:
        data = msgspec.json.encode(body)
    head = Head(status, tuple(headers))
    return Whole(head, data if head.has_body else b"")


def responded(response: Any) -> Whole:
    """Build the response of a middleware function that answers itself. Its body is always JSON."""
    response = response if isinstance(response, dict) else {}
    given = response.get("headers")
    headers: list[tuple[str, str]] = []
    if isinstance(given, dict) and all(isinstance(value, str) for value in given.values()):
        headers = [pair for pair in usable_headers(given.items()) if pair[0].lower() != "content-length"]
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/json"))
    head = Head(_status(response.get("status_code")), tuple(headers))
    return Whole(head, msgspec.json.encode(response.get("body")) if head.has_body else b"")


def failure(
    status: int, code: str, message: str, *, error_id: str | None = None, extra: Mapping[str, Any] | None = None
) -> Whole:
    """Build the envelope of an error of the engine's own. `error_id` leads from a 5xx to its line in the log."""
    error = {"code": code, "message": message}
    if error_id is not None:
        error["error_id"] = error_id
    body = msgspec.json.encode({"error": error, **(extra or {})})
    return Whole(Head(status, (("content-type", "application/json"),)), body)


def _status(value: Any) -> int:
    """Return a status that can be the last of a response; 200 stands for all others."""
    # Python counts booleans as numbers.
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 999:
        return 200
    return value
