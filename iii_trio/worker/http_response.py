"""What a handler of HTTP requests gets and gives: the request, the response, and results."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, final

import attrs
import msgspec

from ..errors import IIIError, MisuseError
from ..records import frozen
from ..text import sendable
from .ends import ChannelReader, ChannelWriter

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
TEXT: Final = "text/plain; charset=utf-8"


def check_status(status: object) -> None:
    """Raise MisuseError for what no response can end with. An engine would put 200 in its place, without a word."""
    # Python counts booleans as numbers.
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise MisuseError(f"the status is {status!r}; give a number from 200 to 599")


def pairs(headers: Headers) -> list[tuple[str, str]]:
    """Return headers as a list of names and values."""
    return list(headers.items() if isinstance(headers, Mapping) else headers)


class HttpError(IIIError):
    """Answer the request with an error. Raise it before the response has begun.

    The constructor raises TypeError for a code or message that is not text, and MisuseError for a status
    that no response can end with.
    """

    def __init__(self, status: int, code: str, message: str, headers: Headers = ()) -> None:
        # The mistake is told here, with its line. An engine would answer with 200 instead.
        check_status(status)
        for name, value in (("code", code), ("message", message)):
            if not isinstance(value, str):
                raise TypeError(
                    f"HttpError takes two strings behind the status: {name} is of type {type(value).__name__}"
                )
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


@final
@frozen
class HttpResult:
    """A whole response, as a handler returns it. A `body` of bytes or text is sent as it is, any other as JSON.

    Raises MisuseError for a status that no response can end with.
    """

    status: int = attrs.field(default=200, validator=lambda _self, _field, value: check_status(value))
    headers: Headers = ()
    body: Any = None


@final
@frozen
class HttpRequest:
    """One request, for handlers that take it whole."""

    method: str
    path: Mapping[str, str]
    """The parameters of the path, decoded."""
    query: Mapping[str, str | list[str]]
    headers: Mapping[str, str]
    """By lower-case name. Repeated headers are joined."""
    body: Any
    """The value of a JSON body, or None."""
    reader: ChannelReader
    """The bytes of the body."""


@final
class HttpResponse:
    """The response of one request, sent as a stream."""

    def __init__(self, writer: ChannelWriter) -> None:
        self._writer = writer
        self.started = False

    async def start(self, status: int = 200, headers: Headers = ()) -> None:
        """Set the status and the headers. They leave with the first bytes, or by `flush`.

        Raises MisuseError for a second start, for a status outside of 200 to 599, and for a header that is given twice: a
        stream cannot have it.
        Raises ChannelBroken if the client has left. If cancelled: the response is cut.
        """
        if self.started:
            raise MisuseError("this response has been started already")
        check_status(status)
        given = pairs(headers)
        names = [name.lower() for name, _ in given]
        # The head of a stream travels as an object, whose keys exist once.
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise MisuseError(f"a streamed response cannot have the header {twice[0]!r} twice; return an HttpResult")
        self.started = True
        # The engine begins with 200, so only another status needs a message.
        if status != 200:
            await self._writer.send(_json({"type": "set_status", "status_code": status}))
        if given:
            await self._writer.send(_json({"type": "set_headers", "headers": dict(given)}))

    async def send(self, data: bytes | str) -> None:
        """Send a piece of the body, and wait while the client is slow. Text is sent as UTF-8. Starts the response with 200.

        Raises ChannelBroken if the client has left. If cancelled: the response is cut.
        """
        self.started = True
        await self._writer.send(data.encode() if isinstance(data, str) else data)

    async def flush(self) -> None:
        """Send the head now. Raises ChannelBroken if the client has left. If cancelled: the response is cut."""
        await self.send(b"")

    async def aclose(self) -> None:
        """End the response: it is whole. Returning from the handler does so too.

        Raises ChannelBroken if the client has left. If cancelled: the response is cut.
        """
        self.started = True
        await self._writer.aclose()


def is_json_only(annotation: Any) -> bool:
    """Return whether a handler that returns this type returns no bytes, so that its result needs no channel."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return all(is_json_only(part) for part in typing.get_args(annotation))
    kind = annotation if origin is None else origin
    if kind in (None, types.NoneType, str, int, float, bool, dict, list, tuple):
        return True
    # The body of an HttpResult may be bytes.
    is_class = isinstance(kind, type) and kind is not HttpResult
    return is_class and (attrs.has(kind) or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind))


async def respond(value: Any, response: HttpResponse | None) -> Any:
    """Return what the engine gets for a handler's value. Bytes are sent as a stream, because JSON cannot hold them.

    `response` is None where the handler's annotation says that it returns no bytes.
    """
    # The head of a streamed response has left, and a second one would contradict it.
    if response is not None and response.started:
        if value is not None:
            raise MisuseError("the handler has sent a response, and returned a value too: do one of both")
        return None
    # A handler that returns nothing has no body to describe.
    if value is None:
        value = HttpResult(204)
    elif not isinstance(value, HttpResult):
        value = HttpResult(body=value)
    headers, body = pairs(value.headers), value.body
    has_type = any(name.lower() == "content-type" for name, _ in headers)
    # JSON has no bytes, and an encoding would change the body.
    if isinstance(body, bytes | bytearray | memoryview):
        if response is None:
            raise MisuseError("the handler returned bytes, which its annotation does not say: annotate what it returns")
        data = bytes(body)
        if not has_type:
            headers.append(("content-type", "application/octet-stream"))
        await response.start(value.status, [*headers, ("content-length", str(len(data)))])
        await response.send(data)
        return None
    # Without a type the engine would announce JSON.
    if (isinstance(body, str) or body is None) and not has_type:
        headers.append(("content-type", TEXT))
    return {"status_code": value.status, "headers": [f"{name}: {text}" for name, text in headers], "body": body}


def refused(error: HttpError) -> HttpResult:
    """Return the response for an error."""
    # Names of files and texts of other errors may have lone surrogates, which would end the answer with a 500.
    texts = {"code": sendable(error.code), "message": sendable(error.message)}
    return HttpResult(error.status, [(n, sendable(v)) for n, v in pairs(error.headers)], {"error": texts})


def _json(message: dict[str, Any]) -> str:
    return msgspec.json.encode(message).decode()
