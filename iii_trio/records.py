"""Classes of named fields: `define` and `frozen` of attrs, at half of what they cost at an import.

attrs compiles `__repr__`, `__eq__` and `__hash__` for each class anew, and an engine starts with more than a hundred
classes. Here all classes have the same three functions, which look at their fields. They are slower to run. A class that
is compared or hashed for each message stays with attrs' own decorators.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from operator import attrgetter, is_
from reprlib import recursive_repr
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    # Type checkers know attrs' decorators by their names, and need not know that methods are shared.
    from attrs import define, frozen
    from attrs import frozen as settings
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

    def settings(cls: Any) -> Any:
        """Make a class as `frozen` does whose fields refuse values of other types than their annotations say."""
        cls.__attrs_pre_init__ = _check_types
        made = frozen(cls)
        _annotations[made] = dict(vars(cls).get("__annotations__", {}))
        return made


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


_WORDS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "True or False"),
    "str": ((str,), "a string"),
    "None": ((NoneType,), "None"),
    "tuple": ((Iterable,), "a list"),
    "Mapping": ((Mapping,), "a dict"),
}
"""The classes that a word of an annotation allows, and how an error names them."""


_annotations: Final[dict[type, dict[str, Any]]] = {}
"""The annotations of each class of settings, as written."""


def _check_types(self: Any, *args: Any, **kwargs: Any) -> None:
    """Raise TypeError for the first argument of a class of settings that is not of its field's type."""
    cls: Any = type(self)
    defaults = cls.__init__.__defaults__ or ()
    # An engine starts with a dozen classes, most of them without an argument.
    if not kwargs and len(args) == len(defaults) and all(map(is_, args, defaults)):
        return
    fields = _typed_fields(cls)
    # attrs passes the arguments on as `__init__` takes them: those without a name first, in the order of the fields.
    for name, value in (*zip(fields, args, strict=False), *kwargs.items()):
        allowed, wanted, is_secret = fields[name]
        # A path is taken for a text, as the functions that open files do.
        if value is attrs.NOTHING or not allowed or (str in allowed and hasattr(value, "__fspath__")):
            continue
        # True would count as 1, and is more often a mistake than a wish.
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            shown = f"of type {type(value).__name__}"
            # An object in the place of another one may hold a secret.
            if isinstance(value, bool | int | float | str) and not is_secret:
                shown = f"{reprlib.repr(value)}, {shown}"
            raise TypeError(f"`{cls.__name__}.{name}` is {shown}; give {wanted}")


@cache
def _typed_fields(cls: Any) -> dict[str, tuple[tuple[type, ...], str, bool]]:
    """Return the classes, the words for an error and the secrecy of each argument.

    There are no classes for an annotation that says more than a type, nor for a field of a subclass of a user.
    """
    fields = {}
    for field in sorted(attrs.fields(cls), key=attrgetter("kw_only")):
        # As written: `attrs.resolve_types` puts types in the places of the words.
        owner = next((each for each in cls.__mro__ if field.name in vars(each).get("__annotations__", {})), cls)
        annotation = _annotations.get(owner, {}).get(field.name, "")
        classes: list[type] = []
        words: list[str] = []
        is_secret = field.repr is not True or bool(field.metadata.get("secret"))
        for part in str(annotation).split(" | "):
            word = part.partition("[")[0]
            allowed, give = _WORDS.get(word, ((), ""))
            other = vars(sys.modules[owner.__module__]).get(word) if owner in _annotations else None
            # Other names are classes of ours, or aliases, which only a type checker understands.
            if isinstance(other, type) and word not in _WORDS:
                allowed, give, is_secret = (other,), f"{word}(…)", True
            classes += allowed
            words.append(give)
        known = all(words)
        fields[field.alias or field.name] = (tuple(classes) if known else (), ", or ".join(words), is_secret)
    return fields


__all__ = ["define", "frozen", "reprs_without", "settings"]
