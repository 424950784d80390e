"""The rule that a class holds either a value or a thing, checked over the modules of a package.

A value cannot change, and equals any other of the same fields. A thing changes, and equals only itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import attrs
import msgspec


def classes_of(package: ModuleType) -> Iterator[type]:
    """Yield the attrs classes and the structs that a package defines."""
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for kind in vars(module).values():
            own = isinstance(kind, type) and kind.__module__ == info.name
            if own and (attrs.has(kind) or issubclass(kind, msgspec.Struct)):
                yield kind


def unruly_classes(package: ModuleType) -> set[str]:
    """Return the names of the classes of a package that are neither values nor things."""
    return {kind.__name__ for kind in classes_of(package) if _is_value(kind) is _is_thing(kind)}


def _is_value(kind: Any) -> bool:
    if issubclass(kind, msgspec.Struct):
        return bool(kind.__struct_config__.frozen and kind.__struct_config__.eq)
    return kind.__setattr__ is not object.__setattr__ and kind.__eq__ is not object.__eq__


def _is_thing(kind: Any) -> bool:
    if issubclass(kind, msgspec.Struct):
        return not kind.__struct_config__.frozen and not kind.__struct_config__.eq
    return kind.__setattr__ is object.__setattr__ and kind.__eq__ is object.__eq__
