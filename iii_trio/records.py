"""Classes of named fields: `define` and `frozen` of attrs, at half of what they cost at an import.

attrs compiles `__repr__`, `__eq__` and `__hash__` for each class anew, and an engine starts with more than a hundred
classes. Here all classes have the same three functions, which look at their fields. They are slower to run. A class that
is compared or hashed for each message stays with attrs' own decorators.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    # Type checkers know attrs' decorators by their names, and need not know that methods are shared.
    from attrs import define, frozen
else:

    def define(cls: type | None = None, /, **options: Any) -> Any:
        """Make a class of named fields, as `attrs.define` does."""
        if cls is None:
            return partial(define, **options)
        return attrs.define(_with_shared_methods(cls, None, **options), **options)

    def frozen(cls: type | None = None, /, **options: Any) -> Any:
        """Make a class of named fields that do not change, as `attrs.frozen` does."""
        if cls is None:
            return partial(frozen, **options)
        return attrs.frozen(_with_shared_methods(cls, _hash, **options), **options)


def _with_shared_methods(cls: Any, hash_: Any, *, repr: bool = True, eq: bool = True, **_: Any) -> Any:
    """Give a class those of the shared methods that it does not have itself. attrs then leaves them as they are."""
    own = vars(cls)
    if repr and "__repr__" not in own:
        cls.__repr__ = _repr
    if eq and "__eq__" not in own:
        cls.__eq__ = _eq
        cls.__hash__ = own.get("__hash__", hash_)
    return cls


def reprs_without(*hidden: str) -> tuple[Callable[[Any], str], Callable[[Any], list[tuple[str, Any]]]]:
    """Return the `__repr__` and `__rich_repr__` of a struct that do not show these fields, because they are secret or large.

    The latter is what the library rich shows, as in a traceback with local variables.
    """

    def fields(self: Any) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in hidden]

    @recursive_repr("...")
    def show(self: Any) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in fields(self))})"

    return show, fields


@recursive_repr("...")
def _repr(self: Any) -> str:
    cls = type(self)
    values = (f"{each.name}={_shown(self, each)}" for each in attrs.fields(cls) if each.repr)
    return f"{cls.__qualname__.rsplit('>.', 1)[-1]}({', '.join(values)})"


def _shown(record: Any, field: attrs.Attribute[Any]) -> str:
    # A field that `__init__` does not set may be without a value.
    value = getattr(record, field.name, attrs.NOTHING)
    show: Any = field.repr
    return repr(value) if show is True else show(value)


def _eq(self: Any, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    cls: Any = type(self)
    values = _values(cls)
    return values(self) == values(other)


def _hash(self: Any) -> int:
    cls: Any = type(self)
    return hash((cls, _values(cls)(self)))


@cache
def _values(cls: Any) -> Any:
    """Return the function that gets the values of a record by which records are compared."""
    names = [each.name for each in attrs.fields(cls) if each.eq]
    return attrgetter(*names) if names else type


__all__ = ["define", "frozen", "reprs_without"]
