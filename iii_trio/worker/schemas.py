"""Annotations as JSON Schemas, as `engine::functions::info` shows them.

msgspec could write them, but has other tasks. These must never raise, because a handler with an unknown annotation may be a
handler all the same. They must describe our own structuring (unknown keys, channel ends), and know unions of classes.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import functools
import types
import typing
import uuid
from typing import Any, Final, Literal

import attrs

from ..structure import FunctionInput, input_fields, is_input, registered_schema
from ..wire import Direction
from .ends import ChannelReader, ChannelWriter

Schema = dict[str, Any]

_SIMPLE: Final[dict[Any, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    None: {"type": "null"},
    type(None): {"type": "null"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.time: {"type": "string", "format": "time"},
    datetime.timedelta: {"type": "string", "format": "duration"},
    decimal.Decimal: {"type": "string", "format": "decimal"},
    uuid.UUID: {"type": "string", "format": "uuid"},
}
_LISTS: Final = (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Iterable)
_SETS: Final = (set, frozenset, collections.abc.Set)
_NEEDS: Final = (typing.Required, typing.NotRequired)
_OBJECTS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def schema_of(annotation: Any, *, forbid_extra_keys: bool = False) -> Schema | None:
    """Return the JSON Schema of an annotation, or None if it allows everything."""
    # A dozen functions of the queue take the same payload.
    if is_input(annotation):
        return _schema_of_input(annotation, forbid_extra_keys)
    schemas = _Schemas(forbid_extra_keys)
    return schemas.whole(schemas.of(annotation)) or None


@functools.cache
def _schema_of_input(kind: type[FunctionInput], forbid_extra_keys: bool) -> Schema:
    schemas = _Schemas(forbid_extra_keys)
    return schemas.whole(schemas.of(kind))


def schema_of_parameters(parameters: typing.Iterable[tuple[str, Any, Any]], *, forbid_extra_keys: bool) -> Schema:
    """Return the JSON Schema of an object with these (name, annotation, default). attrs.NOTHING marks a required key."""
    schemas = _Schemas(forbid_extra_keys)
    return schemas.whole(schemas.object(parameters, forbid_extra_keys))


class _Schemas:
    def __init__(self, forbid_extra_keys: bool) -> None:
        self._forbid = forbid_extra_keys
        self._within: list[Any] = []
        self._names: dict[Any, str] = {}  # of the classes that contain themselves
        self._definitions: dict[str, Schema] = {}

    def whole(self, schema: Schema) -> Schema:
        return {**schema, "$defs": self._definitions} if self._definitions else schema

    def of(self, annotation: Any) -> Schema:
        try:
            if annotation in _SIMPLE:
                return dict(_SIMPLE[annotation])
        except TypeError:  # not hashable: not one that we know
            return {}
        registered = registered_schema(annotation)
        if registered is not None:
            return dict(registered)
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin in (typing.Annotated, typing.NotRequired, typing.Required):
            return self.of(arguments[0])
        if origin is typing.Union or origin is types.UnionType:
            return _any_of([self.of(one) for one in arguments])
        if origin is Literal:
            return {"enum": [one.value if isinstance(one, enum.Enum) else one for one in arguments]}
        kind = origin or annotation
        if kind in _LISTS or kind in _SETS:
            return _with(_array(kind in _SETS), "items", self.of(arguments[0]) if arguments else {})
        if kind is tuple:
            return self._tuple(arguments)
        if kind in _OBJECTS:
            values = self.of(arguments[1]) if len(arguments) == 2 else {}
            return _with({"type": "object"}, "additionalProperties", values)
        if kind is ChannelReader or kind is ChannelWriter:
            return _ref(Direction.READ if kind is ChannelReader else Direction.WRITE)
        # A new type exists for type checkers only.
        if isinstance(annotation, typing.NewType):
            return self.of(annotation.__supertype__)
        if isinstance(kind, type):
            return self._class(kind)
        return {}

    def object(self, members: typing.Iterable[tuple[str, Any, Any]], closed: bool) -> Schema:
        properties: Schema = {}
        required = []
        for name, annotation, default in members:
            schema = self.of(annotation)
            # Only a member without a default has to be sent.
            if default is attrs.NOTHING:
                required.append(name)
            elif isinstance(default, str | int | float) and not isinstance(default, enum.Enum):
                schema["default"] = default
            properties[name] = schema
        schema = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        if closed:
            schema["additionalProperties"] = False
        return schema

    def _class(self, kind: type) -> Schema:
        if issubclass(kind, enum.Enum):
            return {"enum": [one.value for one in kind]}
        members = _members(kind)
        # A class without known fields could take any value.
        if members is None:
            return {}
        if kind in self._within:  # it contains itself: a definition, and references to it
            name = self._names.get(kind)
            if name is None:
                taken = set(self._names.values())
                name = kind.__name__ if kind.__name__ not in taken else f"{kind.__module__}.{kind.__qualname__}"
                self._names[kind] = name
            return {"$ref": f"#/$defs/{name}"}
        self._within.append(kind)
        closed = self._forbid or bool(getattr(kind, "forbid_extra_keys", False))
        schema = {"title": kind.__name__, **self.object(members, closed)}
        self._within.pop()
        # A class that does not contain itself is easier to read in place.
        if kind not in self._names:
            return schema
        self._definitions[self._names[kind]] = schema
        return {"$ref": f"#/$defs/{self._names[kind]}"}

    def _tuple(self, arguments: tuple[Any, ...]) -> Schema:
        if not arguments:
            return {"type": "array"}
        # A tuple with an ellipsis has any length, as a list has.
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return _with({"type": "array"}, "items", self.of(arguments[0]))
        items = [self.of(one) for one in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def _members(kind: type) -> list[tuple[str, Any, Any]] | None:
    """Return name, annotation and default of a class's fields, or None for a class without fields."""
    if is_input(kind):
        return input_fields(kind)
    hints = _hints(kind)
    if attrs.has(kind):
        fields = [(one.name, one.default) for one in attrs.fields(kind) if one.init]
    elif dataclasses.is_dataclass(kind):
        fields = [(one.name, _default(one)) for one in dataclasses.fields(kind) if one.init]
    elif typing.is_typeddict(kind):
        needed = typing.Required if kind.__total__ else typing.NotRequired  # type: ignore[attr-defined]
        said = {name: typing.get_origin(hints.get(name)) for name in kind.__annotations__}
        is_needed = {name: (origin if origin in _NEEDS else needed) is typing.Required for name, origin in said.items()}
        fields = [(name, attrs.NOTHING if is_needed[name] else None) for name in kind.__annotations__]
    else:
        return None
    return [(name, hints.get(name, Any), default) for name, default in fields]


def _hints(kind: type) -> dict[str, Any]:
    try:
        # attrs keeps the types that it has resolved, and the check of the annotation has asked for them.
        if attrs.has(kind):
            return {one.name: one.type for one in attrs.fields(attrs.resolve_types(kind)) if one.type is not None}
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # an annotation that cannot be resolved is unknown, not an error here
        return {}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is not dataclasses.MISSING else attrs.NOTHING


def _any_of(schemas: list[Schema]) -> Schema:
    return {"anyOf": schemas} if all(schemas) else {}  # what may be anything is anything


def _array(unique: bool) -> Schema:
    return {"type": "array", "uniqueItems": True} if unique else {"type": "array"}


def _with(schema: Schema, key: str, inner: Schema) -> Schema:
    return {**schema, key: inner} if inner else schema


def _ref(direction: Direction) -> Schema:
    return {
        "title": "ChannelReader" if direction is Direction.READ else "ChannelWriter",
        "type": "object",
        "properties": {
            "channel_id": {"type": "string"},
            "access_key": {"type": "string"},
            "direction": {"enum": [str(direction)]},
        },
        "required": ["channel_id", "access_key", "direction"],
    }
