"""Classes in annotations are checked when they are met, and their code is generated with the first object."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

import iii_trio
from iii_trio import structure
from iii_trio.core.paging import Paged
from iii_trio.errors import MisuseError


class Unknown:
    """A class of which nothing is known."""


@attrs.frozen
class Holder:
    held: Unknown


@attrs.frozen
class Outer:
    holders: list[Holder]


@attrs.frozen
class Tree:
    name: str
    children: list[Tree] = attrs.field(factory=list)


@attrs.frozen
class Made:
    name: str
    made: Unknown = attrs.field(init=False)


@pytest.mark.parametrize("annotation", [Holder, Outer, list[Outer], dict[str, Outer], tuple[Holder, int], Outer | None])
def test_a_class_with_a_field_that_cannot_be_structured_is_refused_before_any_object(annotation: Any) -> None:
    with pytest.raises(MisuseError, match="there is no hook that structures Unknown"):
        structure.check_annotation(annotation, "the parameter 'x'")
    # A second look must not find a hook that the first one left behind.
    with pytest.raises(MisuseError, match="there is no hook that structures Unknown"):
        structure.check_annotation(annotation, "the parameter 'x'")


@pytest.mark.parametrize("annotation", [Tree, list[Tree], Made])
def test_a_class_that_contains_itself_or_makes_a_field_itself_is_taken(annotation: Any) -> None:
    structure.check_annotation(annotation, "the parameter 'x'")


def test_a_class_that_contains_itself_is_structured() -> None:
    tree = structure.structure({"name": "a", "children": [{"name": "b"}]}, Tree)
    assert tree == Tree("a", [Tree("b")])
    with pytest.raises(structure.BadShape, match=r"children\[0\]\.name: expected a string, got an integer"):
        structure.structure({"name": "a", "children": [{"name": 1}]}, Tree)


def test_code_is_generated_with_the_first_object(monkeypatch: pytest.MonkeyPatch) -> None:
    @attrs.frozen
    class Point:
        x: int

    generate, generated = structure.make_dict_structure_fn, []
    monkeypatch.setattr(
        structure, "make_dict_structure_fn", lambda cls, *a, **k: generated.append(cls) or generate(cls, *a, **k)
    )
    structure.check_annotation(Point, "the parameter 'x'")
    assert generated == []
    assert [structure.structure({"x": x}, Point).x for x in (1, 2)] == [1, 2]
    structure.check_annotation(dict[str, Point], "the parameter 'y'")  # cattrs would forget all code for a new mapping
    assert structure.structure({"x": 3}, Point).x == 3
    assert generated == [Point]


class Bounds(structure.FunctionInput, frozen=True):
    name: str
    limit: int | None = None
    words: list[str] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        structure.refuse_negative(limit=self.limit)


@attrs.frozen
class SameBounds:
    name: str
    limit: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(0)))
    words: list[str] = attrs.field(factory=list)


@pytest.mark.parametrize("forbid", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        {"name": "a"},
        {"name": "a", "limit": 0, "words": ["b"]},
        {},
        None,
        [],
        {"name": 1, "limit": "2"},
        {"name": "a", "limit": -1},
        {"name": "a", "words": "bc"},
        {"name": "a", "words": ["b", 1]},
        {"name": "a", "other": 1},
    ],
)
def test_a_payload_of_the_engines_functions_is_structured_as_a_class_of_attrs_is(value: Any, forbid: bool) -> None:
    def outcome(kind: Any) -> Any:
        try:
            made = structure.structure_as(value, kind, forbid_extra_keys=forbid)
        except structure.BadShape as problem:
            return problem.field, problem.problem
        return made.name, made.limit, made.words

    assert outcome(Bounds) == outcome(SameBounds)


def test_a_payload_that_need_not_be_given_has_a_default_for_each_field() -> None:
    assert structure.needs_nothing(Paged)
    assert not structure.needs_nothing(Bounds)


def all_inputs() -> list[type[structure.FunctionInput]]:
    for module in pkgutil.walk_packages([str(Path(iii_trio.__file__).parent)], "iii_trio."):
        if module.name.startswith(("iii_trio.core", "iii_trio.triggers.queue", "iii_trio.triggers.observability")):
            importlib.import_module(module.name)
    found: list[type[structure.FunctionInput]] = [structure.FunctionInput]
    for kind in found:
        found += [one for one in kind.__subclasses__() if one.__module__.startswith("iii_trio.")]
    return found


def test_each_field_of_the_engines_payloads_can_be_structured() -> None:
    """Their annotations are not checked when their functions are registered."""
    inputs = all_inputs()
    assert len(inputs) > 30
    for kind in inputs:
        for name, wanted, _ in structure.input_fields(kind):
            structure.check_annotation(wanted, f"the field '{name}' of {kind.__name__}")


def test_a_registered_type_is_known_where_unknown_keys_are_refused_too() -> None:
    class Early(str): ...

    class Late(str): ...

    structure.register_type(Early, Early)
    for _ in range(2):
        assert type(structure.structure_as("a", Early, forbid_extra_keys=True)) is Early
        # The converter that refuses them exists by now.
        structure.register_type(Late, Late)
        assert type(structure.structure_as("a", Late, forbid_extra_keys=True)) is Late
