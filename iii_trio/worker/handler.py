"""How a payload becomes a handler's arguments."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Final

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn

from ..errors import CallError, MisuseError
from ..structure import BadShape, first_problem, in_words, new_converter
from ..wire import ErrorCode
from .ends import ChannelReader, ChannelWriter

Handler = Callable[..., Any]

_WHOLE_OBJECT: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping, object)


def _new_converter() -> cattrs.Converter:
    converter = new_converter()
    for kind in (ChannelReader, ChannelWriter):
        converter.register_structure_hook(kind, _live_end(kind))
    converter.register_structure_hook_factory(lambda cls: attrs.has(cls) or is_dataclass(cls), _class_strictly)
    return converter


def _class_strictly(cls: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    forbid = bool(getattr(cls, "forbid_extra_keys", False))
    inner = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=forbid)

    def take(value: Any, into: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"expected an object, got {in_words(value)}")
        return inner(value, into)

    return take


def _live_end(kind: type) -> Callable[[Any, Any], Any]:
    def take(value: Any, _: Any) -> Any:
        if isinstance(value, kind):
            return value
        wanted = "read" if kind is ChannelReader else "write"
        got = type(value).__name__ if isinstance(value, ChannelReader | ChannelWriter) else in_words(value)
        raise ValueError(f"expected a channel ref with direction '{wanted}', got {got}")

    return take


_converter: Final = _new_converter()


@attrs.frozen
class _Parameter:
    name: str
    annotation: Any
    required: bool


@attrs.frozen
class Plan:
    """How to call one handler, read from its signature when it is registered."""

    function_id: str
    handler: Handler
    is_async: bool
    parameters: tuple[_Parameter, ...]
    takes_metadata: bool

    @classmethod
    def of(cls, function_id: str, handler: Handler) -> Plan:
        """Raises MisuseError for a handler whose parameters cannot be filled by name."""
        try:
            signature = inspect.signature(handler)
        except (TypeError, ValueError) as error:
            raise MisuseError(f"{handler!r} cannot handle {function_id}: {error}") from None
        hints = _hints(handler)
        parameters = []
        for name, parameter in signature.parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY, parameter.VAR_KEYWORD):
                raise MisuseError(
                    f"{handler!r} cannot handle {function_id}: its parameter '{parameter}' has no name to be filled by; "
                    "name each parameter after a key of the payload"
                )
            annotation = hints.get(name, Any)
            parameters.append(_Parameter(name, annotation, parameter.default is parameter.empty))
        takes_metadata = any(parameter.name == "metadata" for parameter in parameters)
        return cls(
            function_id=function_id,
            handler=handler,
            is_async=_is_async(handler),
            parameters=tuple(parameter for parameter in parameters if parameter.name != "metadata"),
            takes_metadata=takes_metadata,
        )

    def arguments(self, payload: Any, metadata: Any) -> dict[str, Any]:
        """The handler's arguments for a payload. Raises CallError `deserialization_error`, naming the field at fault."""
        try:
            given = self._from_payload(payload)
        except BadShape as problem:
            text = f"Failed to deserialize input for {self.function_id}: {problem}"
            raise CallError(ErrorCode.DESERIALIZATION_ERROR, text) from None
        if self.takes_metadata:
            given["metadata"] = metadata
        return given

    def _from_payload(self, payload: Any) -> dict[str, Any]:
        parameters = self.parameters
        if len(parameters) == 1:
            (only,) = parameters
            if not isinstance(payload, dict):
                if payload is None and not only.required:
                    return {}
                return {only.name: _structured(payload, only.annotation, "" if attrs.has(_bare(only)) else only.name)}
            if only.name not in payload and _takes_whole_object(only):
                return {only.name: _structured(payload, only.annotation, "")}
        elif not parameters:
            return {}
        if payload is None:
            payload = {}
        if not isinstance(payload, dict):
            raise BadShape("", f"expected an object with the keys {self._names()}, got {in_words(payload)}")
        missing = [parameter.name for parameter in parameters if parameter.required and parameter.name not in payload]
        if missing:
            raise BadShape(missing[0], "missing")
        return {
            parameter.name: _structured(payload[parameter.name], parameter.annotation, parameter.name)
            for parameter in parameters
            if parameter.name in payload
        }

    def _names(self) -> str:
        return ", ".join(parameter.name for parameter in self.parameters)


def _takes_whole_object(parameter: _Parameter) -> bool:
    bare = _bare(parameter)
    return parameter.required and (bare is Any or bare in _WHOLE_OBJECT or attrs.has(bare))


def _bare(parameter: _Parameter) -> Any:
    return typing.get_origin(parameter.annotation) or parameter.annotation


def _structured(value: Any, annotation: Any, path: str) -> Any:
    if annotation is Any:
        return value
    try:
        return _converter.structure(value, annotation)
    except Exception as error:
        raise BadShape(*first_problem(error, path)) from None


def _hints(handler: Handler) -> dict[str, Any]:
    target = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)  # noqa: B004
    try:
        return typing.get_type_hints(target)
    except Exception as error:
        raise MisuseError(f"the annotations of {handler!r} cannot be read: {error}") from None


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
