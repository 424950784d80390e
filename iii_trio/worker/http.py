"""Handlers of HTTP requests: their parameters come from the path, the query, the headers and the body."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar, cast

import attrs
import msgspec

from ..errors import MisuseError
from ..records import frozen
from ..structure import BadShape, check_annotation, structure_as
from .context import current_call
from .ends import ChannelReader
from .function_spec import FunctionSpec
from .http_method import check_method
from .http_response import HttpError, HttpRequest, HttpResponse, is_json_only, refused, respond

HttpHandler = Callable[..., Awaitable[Any]]
HttpHandlerT = TypeVar("HttpHandlerT", bound=HttpHandler)
_SEGMENT: Final = re.compile(r"\{(?P<name>[A-Za-z_]\w*)(?P<rest>:path)?\}")
_WHOLE: Final = frozenset({"body", "headers", "query", "metadata"})


@frozen
class Route:
    """A method and a path, as the trigger `http` takes them."""

    method: str
    api_path: str
    parameters: tuple[str, ...]

    @classmethod
    def parse(cls, method: str, path: str) -> Route:
        """Read a path like `/files/{name}` or `/site/{rest:path}`. Raises MisuseError, also for an unknown method."""
        method = check_method(method)
        if not path.startswith("/"):
            raise MisuseError(f"the path {path!r} of a route begins with no slash: write {'/' + path!r}")
        names: list[str] = []
        segments = []
        for segment in path.split("/"):
            found = _SEGMENT.fullmatch(segment)
            if found is None:
                if "{" in segment or "}" in segment or segment.startswith((":", "*")):
                    raise MisuseError(f"the segment {segment!r} of {path!r} is none: write a parameter as /{{name}}/")
                segments.append(segment)
                continue
            names.append(found["name"])
            segments.append(("*" if found["rest"] else ":") + found["name"])
        if any(segment.startswith("*") for segment in segments[:-1]):
            raise MisuseError(f"a parameter with `:path` takes the rest of {path!r}, so nothing can stand behind it")
        if len(set(names)) < len(names):
            raise MisuseError(f"the path {path!r} names a parameter twice")
        return cls(method, "/".join(segments), tuple(names))

    @property
    def function_id(self) -> str:
        """The id of its function, if its owner gives none."""
        return f"http::{self.method}{self.api_path}"


def http_binding(
    route: Route,
    *,
    condition: str | None = None,
    middleware: Sequence[str] = (),
    metadata: Any = None,
    channels: bool = True,
) -> dict[str, Any]:
    """Return the options of `Worker.register_trigger` for a route.

    `condition` is a function that answers False to refuse a request. The functions of `middleware` see it before, in order.
    Without `channels` its function gets none for the body and the response.
    """
    config: dict[str, Any] = {"api_path": route.api_path, "http_method": route.method}
    if not channels:
        config["channels"] = False
    if condition is not None:
        config["condition_function_id"] = condition
    if middleware:
        config["middleware_function_ids"] = list(middleware)
    return {"config": config, "metadata": metadata}


class Registrar(Protocol):
    """The part of a worker that a route needs."""

    def _register_bound(self, spec: FunctionSpec, trigger_type: str, *, config: Any, metadata: Any = None) -> None:
        """Offer a function and bind it to a trigger type, or raise and do neither."""


def serve_route(
    worker: Registrar,
    route: Route,
    function_id: str | None,
    description: str | None,
    condition: str | None,
    middleware: Sequence[str],
    metadata: Any,
) -> Callable[[HttpHandlerT], HttpHandlerT]:
    """Return a decorator that offers its handler as a function, and binds that to a route."""

    def serve(handler: HttpHandlerT) -> HttpHandlerT:
        name = function_id or route.function_id
        spec = FunctionSpec.from_handler(name, http_function(route, handler), description=description)
        binding = http_binding(
            route, condition=condition, middleware=middleware, metadata=metadata, channels=needs_channels(handler)
        )
        worker._register_bound(spec, "http", **binding)
        return handler

    return serve


@frozen
class _Parameter:
    name: str
    annotation: Any
    default: Any
    take: Callable[[_Parameter, HttpRequest, dict[str, Any]], Any]

    def fill(self, request: HttpRequest, payload: dict[str, Any]) -> Any:
        return self.take(self, request, payload)


def http_function(route: Route, handler: HttpHandler) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    """Return the function that calls a handler with the parameters of each request. Raises MisuseError."""
    parameters = _parameters(route, handler)

    async def serve(request: dict[str, Any]) -> Any:
        # A route that needs no channels has none, unless the engine is another one.
        writer, reader = request.get("response"), request.get("request_body")
        response = None if writer is None else HttpResponse(writer)
        got = HttpRequest(
            request["method"],
            request["path_params"],
            request["query_params"],
            request["headers"],
            request["body"],
            cast(ChannelReader, reader),  # a handler that takes the request whole has one
        )
        try:
            arguments = {}
            for parameter in parameters:
                value = response if parameter.annotation is HttpResponse else parameter.fill(got, request)
                # A parameter without a value keeps the default of the handler.
                if value is not attrs.NOTHING:
                    arguments[parameter.name] = value
            value = await handler(**arguments)
        except HttpError as error:
            # The status has left already, so the error can only cut the stream.
            if response is not None and response.started:
                raise
            value = refused(error)
        finally:
            # Closing an end that was never attached would attach it, at the cost of a handshake. The engine ends both.
            for end in (writer, reader):
                if end is not None and not end._used:
                    end.detach()
        return await respond(value, response)

    serve.__doc__ = handler.__doc__
    return serve


def needs_channels(handler: HttpHandler) -> bool:
    """Return whether a handler takes an end of a channel, or may return bytes, which are sent through one."""
    hints = typing.get_type_hints(handler)
    taken = {hints.get(name, Any) for name in inspect.signature(handler).parameters}
    names = inspect.signature(handler).parameters.keys() & {"request", "response", "request_body"}
    if names or taken & {HttpResponse, HttpRequest, ChannelReader}:
        return True
    return "return" not in hints or not is_json_only(hints["return"])


def _parameters(route: Route, handler: HttpHandler) -> list[_Parameter]:
    # Bodies and responses are streams, which a function in a thread could not await.
    if not inspect.iscoroutinefunction(handler):
        raise MisuseError(f"{handler!r} cannot handle HTTP requests: it is not an async function")
    try:
        hints = typing.get_type_hints(handler)
    except Exception as error:
        raise MisuseError(f"the annotations of {handler!r} cannot be read: {error}") from None
    found = []
    for name, parameter in inspect.signature(handler).parameters.items():
        # Values of a request are found by name.
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY, parameter.VAR_KEYWORD):
            raise MisuseError(f"{handler!r} cannot handle HTTP requests: '{parameter}' has no name to be filled by")
        default = attrs.NOTHING if parameter.default is parameter.empty else parameter.default
        annotation = hints.get(name, Any)
        if name == "response":
            annotation = HttpResponse
        # Without an annotation, the name tells the kind, and a text is the only type that always fits.
        if annotation is Any and name not in _WHOLE:
            annotation = ChannelReader if name == "request_body" else HttpRequest if name == "request" else str
        if annotation not in (HttpResponse, HttpRequest, ChannelReader):
            check_annotation(annotation, f"the parameter '{name}' of {handler!r}")
        found.append(_Parameter(name, annotation, default, _source(route, name, annotation)))
    taken = {parameter.name for parameter in found} | set(
        route.parameters if any(one.annotation is HttpRequest for one in found) else ()
    )
    # A parameter that the path names but the handler ignores is most likely a spelling mistake.
    if missing := [name for name in route.parameters if name not in taken]:
        raise MisuseError(f"{handler!r} takes no '{missing[0]}', which is a parameter of its path")
    return found


def _source(route: Route, name: str, annotation: Any) -> Callable[[_Parameter, HttpRequest, dict[str, Any]], Any]:
    if annotation is HttpRequest:
        return lambda _one, request, _payload: request
    if annotation is ChannelReader:
        return lambda _one, request, _payload: request.reader
    # The path comes before reserved names, so that a route may call a parameter `query`.
    if name in route.parameters:
        return lambda one, request, _payload: _text(one, request.path[name], "the path's")
    return {"body": _body, "headers": _headers, "query": _query, "metadata": _metadata}.get(name, _field)


def _field(one: _Parameter, request: HttpRequest, _payload: dict[str, Any]) -> Any:
    if one.name not in request.query:
        # Only the handler's author knows which fields may be left out.
        if one.default is attrs.NOTHING:
            raise _bad(f"the query's `{one.name}` is missing")
        return attrs.NOTHING
    value = request.query[one.name]
    # A field that is given once arrives as a text, and a list of one would otherwise be refused.
    if typing.get_origin(one.annotation) is list and not isinstance(value, list):
        value = [value]
    return _text(one, value, "the query's")


def _query(one: _Parameter, request: HttpRequest, _payload: dict[str, Any]) -> Any:
    return _fields(one, dict(request.query))


def _headers(one: _Parameter, request: HttpRequest, _payload: dict[str, Any]) -> Any:
    # Names of headers have hyphens, which names of attributes cannot have.
    if not attrs.has(one.annotation):
        return _fields(one, dict(request.headers))
    return _fields(one, {name.replace("-", "_"): value for name, value in request.headers.items()})


def _fields(one: _Parameter, values: dict[str, Any]) -> Any:
    if one.annotation is Any:
        return values
    return _text(one, values, "the")


def _metadata(_one: _Parameter, _request: HttpRequest, _payload: dict[str, Any]) -> Any:
    return current_call().metadata


def _body(one: _Parameter, request: HttpRequest, payload: dict[str, Any]) -> Any:
    # The engine could not parse the body, and only a handler that wants it has to fail.
    if "body_error" in payload:
        raise _bad(str(payload["body_error"]))
    # A request without a body is fine for a handler that has a default for it.
    if request.body is None and one.default is not attrs.NOTHING:
        return attrs.NOTHING
    try:
        return structure_as(request.body, one.annotation, "body")
    except BadShape as problem:
        raise _bad(str(problem) if request.body is not None else _nothing(request.headers)) from None


def _nothing(headers: Mapping[str, str]) -> str:
    """Say why a request gives no value for its body."""
    # A body that comes in chunks tells no length.
    if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
        return "the body is empty: send JSON, with content-type: application/json"
    # The engine parses what says that it is JSON.
    if "json" not in headers.get("content-type", "").lower():
        return "the body does not say that it is JSON: send it with content-type: application/json"
    return "the body is empty or null: send JSON that has a value"


def _text(one: _Parameter, value: Any, where: str) -> Any:
    """Read texts as numbers, booleans, dates, and what else a parameter's annotation asks for."""
    try:
        return msgspec.convert(value, one.annotation, strict=False)
    except msgspec.ValidationError as error:
        raise _bad(f"{where} `{one.name}`: {error}") from None


def _bad(message: str) -> HttpError:
    return HttpError(400, "BAD_PARAMETER", message)
