"""Classes in annotations are checked when they are met, and their code is generated with the first object."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from iii_trio import structure
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
    with pytest.raises(structure.BadShape, match=r"children\[0\]\.name: expected a text, got an integer"):
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
