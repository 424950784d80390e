"""JSON values into Python values as annotations say, strictly, with errors that name the field.

This is the project's one use of cattrs. Plain cattrs would turn None into the text 'None' and 7 into '7'. Here a value of
the wrong type is an error.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import types
import uuid
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
import msgspec
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_structure_fn_from_attrs
from cattrs.preconf.msgspec import configure_converter

from .errors import CallError, IIIError, MisuseError

T = TypeVar("T")

_WORDS: Final = {
    str: "a string", int: "an integer", float: "a number", bool: "true or false", dict: "an object", list: "a list",
    type(None): "null",
}  # fmt: skip


class BadShape(IIIError):
    """A value does not have the expected shape. `field` is the path to the fault (such as `a.b[0]`)."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


def in_words(value: object) -> str:
    """Name the kind of a JSON value in an error text."""
    return _WORDS.get(type(value), f"a {type(value).__name__}")


_TEXTS: Final[tuple[type, ...]] = (
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
)
"""Types whose JSON is a text in the form that msgspec reads and writes: ISO 8601, RFC 4122, decimal digits."""


class WrongType(ValueError):
    """A value of another type than expected. `wanted` names the expected type."""

    def __init__(self, wanted: str, value: object) -> None:
        super().__init__(f"expected {wanted}, got {in_words(value)}")
        self.wanted = wanted


class _NoHook(TypeError):
    """No structure hook is registered for a type."""

    def __init__(self, kind: Any) -> None:
        super().__init__(f"there is no hook that structures {_name(kind)}")


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _strictly(wanted: type) -> Any:
    def structure_strictly(value: Any, _: Any) -> Any:
        if type(value) is wanted or (wanted is float and type(value) is int):
            return value
        raise WrongType(_WORDS[wanted], value)

    return structure_strictly


def _from_text(value: Any, kind: Any) -> Any:
    if type(value) is not str and not (kind is decimal.Decimal and type(value) in (int, float)):
        raise WrongType(f"a string ({kind.__name__})", value)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"expected a {kind.__name__}: {error}") from None


def _none(value: Any, _: Any) -> None:
    if value is not None:
        raise WrongType("null", value)


def _is_list(wanted: Any) -> bool:
    return wanted is list or get_origin(wanted) is list


def _list_strictly(wanted: Any, converter: cattrs.Converter) -> Any:
    inner = list_structure_factory(wanted if get_origin(wanted) is list else list[Any], converter)

    def structure_list(value: Any, into: Any) -> Any:
        if type(value) is not list:  # a text would be taken for a list of its letters
            raise WrongType("a list", value)
        return inner(value, into)

    return structure_list


def _is_dict(wanted: Any) -> bool:
    return wanted is dict or get_origin(wanted) is dict


def _dict(wanted: Any, converter: cattrs.Converter) -> Any:
    # cattrs' own factory empties the cache of hooks, so that the code of all classes would be generated again.
    return mapping_structure_factory(wanted, converter)


def _is_literal(wanted: Any) -> bool:
    return get_origin(wanted) is Literal


def _one_of(value: Any, wanted: Any) -> Any:
    for allowed in get_args(wanted):
        if type(value) is type(allowed) and value == allowed:
            return value
    *others, last = (f"`{allowed}`" for allowed in get_args(wanted))
    raise WrongType(f"{', '.join(others)} or {last}" if others else last, value)


def _is_class(wanted: Any) -> bool:
    return attrs.has(wanted) or is_dataclass(wanted)


class _ClassHook:
    """Structures objects as one class. Its code is generated with the first object, because that takes a millisecond."""

    def __init__(self, cls: Any, converter: cattrs.Converter) -> None:
        self._cls = cls
        self._converter = converter
        self._inner: Callable[[Any, Any], Any] | None = None

    def __call__(self, value: Any, into: Any) -> Any:
        if not isinstance(value, dict):
            raise WrongType("an object", value)
        inner = self._inner or self.generate()
        return inner(value, into)

    def generate(self) -> Callable[[Any, Any], Any]:
        """Generate the code, and return the function. Raises what cattrs raises for a class that it cannot structure."""
        forbid = self._converter.forbid_extra_keys or bool(getattr(self._cls, "forbid_extra_keys", False))
        self._inner = make_dict_structure_fn(self._cls, self._converter, _cattrs_forbid_extra_keys=forbid)
        return self._inner


def _class_strictly(cls: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    hook = _ClassHook(cls, converter)
    plain = isinstance(cls, type) and attrs.has(cls) and not getattr(cls, "__parameters__", ())
    # Dataclasses and generic classes have fields of other kinds. Their code tells what cannot be structured.
    if not plain:
        hook.generate()
    # A class may contain itself.
    elif cls not in _being_checked:
        _being_checked.add(cls)
        try:
            _check_fields(cls, converter)
        finally:
            _being_checked.discard(cls)
    return hook


_being_checked: Final[set[type]] = set()


def _check_fields(cls: Any, converter: cattrs.Converter) -> None:
    """Raise for a class with a field that no value can be structured as, as the generation of its code would."""
    for field in attrs.fields(attrs.resolve_types(cls)):
        if field.init and field.type not in (None, Final):
            converter.get_structure_hook(field.type)


class FunctionInput(msgspec.Struct, frozen=True):
    """The payload of one of the engine's own functions. It is structured as an object of an attrs class is.

    An engine starts with thirty such classes, and attrs would compile code for each. Here the code is generated with the
    first object.
    """


def is_input(kind: object) -> bool:
    """Return whether this is a class of such payloads."""
    return isinstance(kind, type) and issubclass(kind, FunctionInput)


def has_fields(kind: Any) -> bool:
    """Return whether a class is structured field by field: one of attrs, or a payload of the engine's own functions."""
    return attrs.has(kind) or is_input(kind)


def needs_nothing(kind: Any) -> bool:
    """Return whether all fields of such a class have a default."""
    if is_input(kind):
        return _needs_nothing(kind)
    return all(field.default is not attrs.NOTHING for field in attrs.fields(kind) if field.init)


@cache
def _needs_nothing(kind: type[FunctionInput]) -> bool:
    return all(default is not attrs.NOTHING for _, _, default in input_fields(kind))


def input_fields(kind: type[FunctionInput]) -> list[tuple[str, Any, Any]]:
    """Return name, annotation and default of the fields. The default is attrs.NOTHING for a field that must be given."""
    return [
        (field.name, field.type, attrs.NOTHING if field.required else field.default)
        for field in msgspec.structs.fields(kind)
    ]


def refuse_negative(**numbers: float | None) -> None:
    """Raise ValueError, naming the first of these fields of a payload that is negative."""
    for name, number in numbers.items():
        # Written so that NaN is refused too.
        if number is not None and not number >= 0:
            raise ValueError(f"'{name}' must be >= 0: {number}")


def _input_hook(converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    made: dict[type[FunctionInput], Callable[[Any, Any], Any]] = {}

    def structure_input(value: Any, into: Any) -> Any:
        if not isinstance(value, dict):
            raise WrongType("an object", value)
        if into not in made:
            made[into] = _generate(into, converter)
        return made[into](value, into)

    return structure_input


def _generate(kind: type[FunctionInput], converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    # cattrs knows the fields of attrs, so it is given those of a class that has the same ones.
    described = {name: attrs.field(default=default, type=wanted) for name, wanted, default in input_fields(kind)}
    same: Any = attrs.make_class(kind.__name__, described, kw_only=True, eq=False, repr=False)
    return make_dict_structure_fn_from_attrs(
        attrs.fields(same), kind, converter, _cattrs_forbid_extra_keys=converter.forbid_extra_keys
    )


def _no_hook(kind: Any) -> Any:
    raise _NoHook(kind)


def _new_converter(*, forbid_extra_keys: bool) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=forbid_extra_keys, structure_fallback_factory=_no_hook)
    configure_converter(converter)  # unions of JSON's simple types, base64 for bytes, …
    for wanted in (str, int, float, bool):
        converter.register_structure_hook(wanted, _strictly(wanted))
    for kind in _TEXTS:
        converter.register_structure_hook(kind, _from_text)
    converter.register_structure_hook(type(None), _none)
    converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)
    converter.register_structure_hook_factory(_is_list, _list_strictly)
    converter.register_structure_hook_factory(_is_dict, _dict)
    converter.register_structure_hook_func(_is_literal, _one_of)
    converter.register_structure_hook_factory(_is_class, _class_strictly)
    converter.register_structure_hook(FunctionInput, _input_hook(converter))
    return converter


_converter: Final = _new_converter(forbid_extra_keys=False)
_plain: Final[set[type]] = {str, int, float, bool}
"""The types whose values are taken as they are."""
_unstructure: Final[dict[type, Callable[[Any], Any]]] = {}
_ENCODED: Final = (
    str, int, float, dict, list, tuple, set, frozenset, bytes, bytearray, memoryview, enum.Enum, msgspec.Struct, *_TEXTS,
)  # fmt: skip
"""What the encoder of JSON writes by itself, besides attrs classes and dataclasses. It asks for no other form of them."""
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_taught_anew: Final[set[type]] = set()
"""The registered types that the encoder would write by itself. Their subclasses are not among them."""
_schemas: Final[dict[type, Mapping[str, Any]]] = {}
_registered: Final[dict[type, Callable[[Any, Any], Any]]] = {}


@cache
def _forbidding() -> cattrs.Converter:
    """Return the converter that refuses unknown keys. It is made at its first use, because few engines need it."""
    converter = _new_converter(forbid_extra_keys=True)
    for kind, hook in _registered.items():
        converter.register_structure_hook(kind, hook)
    return converter


def register_type(
    kind: type[T],
    structure: Callable[[Any], T],
    *,
    unstructure: Callable[[T], Any] | None = None,
    schema: Mapping[str, Any] | None = None,
) -> None:
    """Teach iii_trio a type for the annotations of handlers, configurations and results.

    `structure` makes a value of the type from a JSON value, and raises ValueError for one that does not fit. `unstructure`
    makes the JSON value that is sent. `schema` is the JSON Schema that is shown. Call this before the functions that use
    the type are registered. It holds for the whole process.
    """
    _plain.discard(kind)
    _registered[kind] = hook = lambda value, _: structure(value)
    _converter.register_structure_hook(kind, hook)
    _forbidding.cache_clear()
    if unstructure is not None:
        _unstructure[kind] = unstructure
        if isinstance(kind, type) and kind not in _WORDS and (_is_class(kind) or issubclass(kind, _ENCODED)):
            _taught_anew.add(kind)
    if schema is not None:
        _schemas[kind] = schema


def registered_schema(kind: object) -> Mapping[str, Any] | None:
    """Return the JSON Schema that was registered with a type, if there is one."""
    return _schemas.get(kind) if isinstance(kind, type) else None


def to_builtin(value: Any) -> Any:
    """Return the JSON value of an instance of a registered type. Raises NotImplementedError for any other."""
    for kind in type(value).__mro__:
        if kind in _unstructure:
            return _unstructure[kind](value)
    raise NotImplementedError(f"a value of type {type(value).__name__} is not JSON")


def with_taught_forms(value: Any) -> Any:
    """Return `value` for the encoder, with the JSON values of types that it would write in another form.

    Raises what the functions given to `register_type` raise.
    """
    return _taught_form(value) if _taught_anew else value


def _taught_form(value: Any) -> Any:
    """Return the taught form of a value. One without taught types in it is returned as it is."""
    kind = type(value)
    if kind in _taught_anew:
        form = _unstructure[kind](value)
        return form if type(form) is kind else _taught_form(form)
    if kind in _SCALARS:
        return value
    is_list = isinstance(value, list | tuple | set | frozenset)
    items = dict(enumerate(value)) if is_list else value if isinstance(value, dict) else _sent_fields(value)
    forms: dict[Any, Any] = {}
    differs = False
    # In one function, without a comprehension: each further frame of a level would take from the depth that can be sent.
    for key, inner in items.items():
        forms[key] = form = _taught_form(inner)
        differs = differs or form is not inner
    return value if not differs else list(forms.values()) if is_list else forms


def _sent_fields(value: Any) -> dict[str, Any]:
    """Return the fields that the encoder sends of an object: of attrs those that are not private, and no empty ones."""
    kind = type(value)
    if attrs.has(kind):
        names = [field.name for field in attrs.fields(kind) if not field.name.startswith("_")]
    else:
        names = [field.name for field in fields(kind)] if is_dataclass(kind) else []
    found = {name: getattr(value, name, msgspec.UNSET) for name in names}
    return {name: inner for name, inner in found.items() if inner is not msgspec.UNSET}


def structure(value: object, into: type[T]) -> T:
    """Structure a JSON object as the class `into`. Raises BadShape, naming the first field at fault."""
    result: T = structure_as(value, into)
    return result


def convert(value: Any, annotation: Any) -> Any:
    """Structure a JSON value as an annotation says. Raises what cattrs raises, for `first_error`."""
    return _converter.structure(value, annotation)


def structure_as(value: Any, annotation: Any, path: str = "", *, forbid_extra_keys: bool = False) -> Any:
    """Structure a JSON value as an annotation says. `path` is its place, for the error.

    Raises BadShape, naming the first field at fault.
    """
    # A look at the type is much faster than the converter, and most parameters are of these types.
    if annotation is Any or (type(value) is annotation and annotation in _plain):
        return value
    try:
        return (_forbidding() if forbid_extra_keys else _converter).structure(value, annotation)
    except Exception as error:
        raise BadShape(*first_problem(error, path)) from None


def structure_result(value: Any, annotation: Any, function_id: str) -> Any:
    """Structure the value of a call as an annotation says. Raises CallError `deserialization_error`, naming the field."""
    try:
        return structure_as(value, annotation)
    except BadShape as problem:
        text = f"the value of {function_id} does not fit {_name(annotation)}: {problem}"
        raise CallError("deserialization_error", text, function_id=function_id) from None


def check_annotation(annotation: Any, where: str) -> None:
    """Raise MisuseError for an annotation that no value can be structured as."""
    if annotation is Any:
        return
    if get_origin(annotation) in (Union, types.UnionType):  # cattrs looks for the hooks of its members at the call
        for member in get_args(annotation):
            check_annotation(member, where)
    try:
        _converter.get_structure_hook(annotation)
    except Exception as error:
        raise MisuseError(
            f"{where} is annotated {_name(annotation)}, but JSON cannot be structured as that: {error}. "
            "Teach iii_trio the type with iii_trio.register_type(), or annotate it Any"
        ) from None


def first_error(error: BaseException) -> tuple[tuple[str | int, ...], BaseException]:
    """Return the first error inside what cattrs raised, and the path of fields, keys and indices that leads to it."""
    path: list[str | int] = []
    while isinstance(error, BaseValidationError):
        inner = error.exceptions[0]
        for note in getattr(inner, "__notes__", ()):
            name, index = getattr(note, "name", None), getattr(note, "index", None)
            if name is not None:
                path.append(str(name))
            elif index is not None:
                path.append(index)
        error = inner
    return tuple(path), error


def first_problem(error: BaseException, path: str = "") -> tuple[str, str]:
    """Return the path (below `path`) and the text of the first fault in an exception that cattrs raised."""
    steps, cause = first_error(error)
    for step in steps:
        path = f"{path}[{step!r}]" if isinstance(step, int) else f"{path}.{step}" if path else str(step)
    if isinstance(cause, KeyError):
        return path or str(cause.args[0]), "missing"  # the path names the missing field already
    if isinstance(cause, ForbiddenExtraKeysError):
        return path, f"unknown key(s): {', '.join(sorted(cause.extra_fields))}"
    return path, str(cause) or type(cause).__name__
