"""JSON values ⇄ attrs classes, strictly, with errors that name the field.

cattrs alone would turn None into the text 'None' and 7 into '7'; here a value of the wrong type is an error.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar, get_origin

import cattrs
from cattrs.cols import list_structure_factory
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError

from .errors import IIIError

T = TypeVar("T")

_WORDS: Final = {
    str: "a text", int: "an integer", float: "a number", bool: "true or false", dict: "an object", list: "a list",
    type(None): "null",
}  # fmt: skip


class BadShape(IIIError):
    """A value does not have the shape that was asked for: `field` (a path such as `a.b[0]`) and `problem` say where."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


def in_words(value: object) -> str:
    """What kind of JSON value this is, for people."""
    return _WORDS.get(type(value), f"a {type(value).__name__}")


class _WrongType(ValueError):
    pass


def _strictly(wanted: type) -> Any:
    def structure_strictly(value: Any, _: Any) -> Any:
        if type(value) is wanted or (wanted is float and type(value) is int):
            return value
        raise _WrongType(f"expected {_WORDS[wanted]}, got {in_words(value)}")

    return structure_strictly


def _is_list(wanted: Any) -> bool:
    return get_origin(wanted) is list


def _list_strictly(wanted: Any, converter: cattrs.Converter) -> Any:
    inner = list_structure_factory(wanted, converter)

    def structure_list(value: Any, into: Any) -> Any:
        if type(value) is not list:  # a text would be taken for a list of its letters
            raise _WrongType(f"expected a list, got {in_words(value)}")
        return inner(value, into)

    return structure_list


def new_converter(**options: Any) -> cattrs.Converter:
    """A converter that takes JSON values strictly. Options are those of cattrs.Converter."""
    converter = cattrs.Converter(**options)
    for wanted in (str, int, float, bool):
        converter.register_structure_hook(wanted, _strictly(wanted))
    converter.register_structure_hook_factory(_is_list)(_list_strictly)
    return converter


_converter: Final = new_converter()


def structure(value: object, into: type[T], converter: cattrs.Converter = _converter) -> T:
    """Structure a JSON value as `into`. Raises BadShape, naming the first field at fault."""
    if not isinstance(value, dict):
        raise BadShape("", f"expected an object, got {in_words(value)}")
    try:
        return converter.structure(value, into)
    except Exception as error:
        field, problem = first_problem(error)
        raise BadShape(field, problem) from None


def first_problem(error: BaseException, path: str = "") -> tuple[str, str]:
    """The first thing at fault in what cattrs raised: its path, and what was wrong."""
    while isinstance(error, BaseValidationError):
        inner = error.exceptions[0]
        for note in getattr(inner, "__notes__", ()):
            name, index = getattr(note, "name", None), getattr(note, "index", None)
            if name is not None:
                path = f"{path}.{name}" if path else str(name)
            elif index is not None:
                path = f"{path}[{index!r}]" if isinstance(index, int) else f"{path}.{index}" if path else str(index)
        error = inner
    if isinstance(error, KeyError):
        return path or str(error.args[0]), "missing"  # the path names the missing field already
    if isinstance(error, ForbiddenExtraKeysError):
        return path, f"unknown key(s): {', '.join(sorted(error.extra_fields))}"
    return path, str(error) or type(error).__name__
