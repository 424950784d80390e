"""How a payload becomes a handler's arguments."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable
from typing import Any, Final

import attrs
import msgspec

from ..errors import MisuseError
from ..structure import BadShape, check_annotation, has_fields, in_words, needs_nothing, register_type, structure_as
from ..wire import bad_input
from .ends import ChannelReader, ChannelWriter
from .schemas import Schema, schema_of, schema_of_parameters

Handler = Callable[..., Any]

_JSON: Final = (str, int, float, list, tuple, dict, type(None))
_WHOLE_OBJECT: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping, object)


def _live_end(kind: type[ChannelReader] | type[ChannelWriter]) -> None:
    wanted = "read" if kind is ChannelReader else "write"

    def take(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        got = type(value).__name__ if isinstance(value, ChannelReader | ChannelWriter) else in_words(value)
        raise ValueError(f"expected a channel ref with direction '{wanted}', got {got}")

    register_type(kind, take)


_live_end(ChannelReader)
_live_end(ChannelWriter)


class _Parameter(msgspec.Struct, frozen=True):
    name: str
    annotation: Any
    default: Any
    """The default value, or attrs.NOTHING."""

    @property
    def required(self) -> bool:
        return self.default is attrs.NOTHING


class HandlerSignature(msgspec.Struct, frozen=True):
    """The way to call one handler, read from its signature at registration."""

    function_id: str
    handler: Handler
    is_async: bool
    parameters: tuple[_Parameter, ...]
    takes_metadata: bool
    takes_raw: str | None
    """The name of the parameter that takes the payload's JSON as it came."""
    returns: Any
    forbid_extra_keys: bool

    @classmethod
    def from_handler(cls, function_id: str, handler: Handler, *, forbid_extra_keys: bool = False) -> HandlerSignature:
        """Read the signature of a handler. Raises MisuseError for one that no call could reach."""
        if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
            raise MisuseError(
                f"{handler!r} cannot handle {function_id}: it is a generator, and a call has one value; return a list, or "
                "send the items through a ChannelWriter"
            )
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
            default = attrs.NOTHING if parameter.default is parameter.empty else parameter.default
            # A default that JSON cannot hold binds an object to the handler (`event: trio.Event = event`). No call fills it.
            bound = default is not attrs.NOTHING and not isinstance(default, _JSON)
            if name != "metadata" and annotation is not msgspec.Raw and not bound:
                check_annotation(annotation, f"the parameter '{name}' of {handler!r}")
            parameters.append(_Parameter(name, annotation, default))
        takes_metadata = any(parameter.name == "metadata" for parameter in parameters)
        raw = [parameter.name for parameter in parameters if parameter.annotation is msgspec.Raw]
        if raw and len(parameters) - takes_metadata > 1:
            raise MisuseError(
                f"{handler!r} cannot handle {function_id}: '{raw[0]}' takes the payload's JSON whole, so nothing is left "
                "for its other parameters"
            )
        return cls(
            function_id=function_id,
            handler=handler,
            is_async=_is_async(handler),
            parameters=tuple(parameter for parameter in parameters if parameter.name != "metadata"),
            takes_metadata=takes_metadata,
            takes_raw=raw[0] if raw else None,
            returns=hints.get("return", Any),
            forbid_extra_keys=forbid_extra_keys,
        )

    def request_schema(self) -> Schema | None:
        """Return the JSON Schema of the payloads, or None if all are taken."""
        parameters = self.parameters
        if not parameters or self.takes_raw is not None:
            return None
        if len(parameters) == 1 and _takes_whole_object(parameters[0]):
            return schema_of(parameters[0].annotation, forbid_extra_keys=self.forbid_extra_keys)
        return schema_of_parameters(
            [(one.name, one.annotation, one.default) for one in parameters], forbid_extra_keys=self.forbid_extra_keys
        )

    def response_schema(self) -> Schema | None:
        """Return the JSON Schema of the values, or None without an annotation."""
        return schema_of(self.returns)

    def arguments(self, payload: Any, metadata: Any) -> dict[str, Any]:
        """Return the handler's arguments for a payload.

        Raises CallError `deserialization_error`, naming the field at fault.
        """
        try:
            given = self._from_payload(payload)
        except BadShape as problem:
            raise bad_input(self.function_id, str(problem)) from None
        if self.takes_metadata:
            given["metadata"] = metadata
        return given

    def untaken(self, payload: Any) -> dict[str, Any]:
        """Return the keys and values of a payload that no parameter takes."""
        if not isinstance(payload, dict):
            return {}
        names = {parameter.name for parameter in self.parameters}
        if len(names) == 1 and not names & payload.keys() and _takes_whole_object(self.parameters[0]):
            return {}
        return {key: value for key, value in payload.items() if key not in names}

    def _from_payload(self, payload: Any) -> dict[str, Any]:
        parameters = self.parameters
        if len(parameters) == 1:
            (only,) = parameters
            # SDKs send null where a caller gives no payload.
            if payload is None and _needs_nothing(only):
                payload = {}
            if not isinstance(payload, dict):
                if payload is None and not only.required:
                    return {}
                path = "" if has_fields(_bare(only)) else only.name
                return {only.name: self._structured(payload, only.annotation, path)}
            if only.name in payload:
                if not self.forbid_extra_keys:
                    return {only.name: structure_as(payload[only.name], only.annotation, only.name)}
            elif _takes_whole_object(only):
                return {only.name: self._structured(payload, only.annotation, "")}
        elif not parameters and not self.forbid_extra_keys:
            return {}
        if payload is None:
            payload = {}
        if not isinstance(payload, dict):
            raise BadShape("", f"expected an object with the keys {self._names()}, got {in_words(payload)}")
        for parameter in parameters:
            if parameter.name not in payload and parameter.required:
                raise BadShape(parameter.name, "missing")
        if self.forbid_extra_keys and (unknown := sorted(payload.keys() - {one.name for one in parameters})):
            raise BadShape("", f"unknown key(s): {', '.join(unknown)}")
        return {
            parameter.name: self._structured(payload[parameter.name], parameter.annotation, parameter.name)
            for parameter in parameters
            if parameter.name in payload
        }

    def _structured(self, value: Any, annotation: Any, path: str) -> Any:
        return structure_as(value, annotation, path, forbid_extra_keys=self.forbid_extra_keys)

    def _names(self) -> str:
        return ", ".join(parameter.name for parameter in self.parameters)


def _takes_whole_object(parameter: _Parameter) -> bool:
    bare = _bare(parameter)
    return parameter.required and (bare is Any or bare in _WHOLE_OBJECT or has_fields(bare))


def _needs_nothing(parameter: _Parameter) -> bool:
    """Return whether the parameter takes the whole payload as a class whose fields all have a default."""
    kind = _bare(parameter)
    return parameter.required and has_fields(kind) and needs_nothing(kind)


def _bare(parameter: _Parameter) -> Any:
    return typing.get_origin(parameter.annotation) or parameter.annotation


def _hints(handler: Handler) -> dict[str, Any]:
    target = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)  # noqa: B004
    try:
        return typing.get_type_hints(target)
    except Exception as error:
        raise MisuseError(f"the annotations of {handler!r} cannot be read: {error}") from None


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
