"""Records behave as classes of attrs do, with methods that all of them share."""

from __future__ import annotations

import math
from typing import Any

import attrs
import msgspec
import pytest
from msgspec import Raw

from iii_trio.core.admission import Credentials
from iii_trio.core.channel import Channel
from iii_trio.core.channels import ChannelResult
from iii_trio.core.registry import Function
from iii_trio.core.session import WorkerSession
from iii_trio.records import define, frozen, reprs_without
from iii_trio.wire import Outcome


def _made_by(decorate: Any, **options: Any) -> Any:
    """Return a class with each kind of field that a method treats in a way of its own."""

    @decorate(**options)
    class Order:
        name: str
        count: int = 1
        secret: str = attrs.field(default="", repr=False)
        shown: str = attrs.field(default="", repr=len)
        uncompared: Any = attrs.field(default=None, eq=False)
        _hidden: float = 0.5
        late: str = attrs.field(init=False)

    return Order


@pytest.mark.parametrize(("ours", "theirs"), [(define, attrs.define), (frozen, attrs.frozen)])
def test_a_record_reads_as_a_class_of_attrs(ours: Any, theirs: Any) -> None:
    a, b = (_made_by(decorate)("ada", 2, secret="s", shown="xyz", hidden=1.5) for decorate in (ours, theirs))
    assert repr(a) == repr(b) == "Order(name='ada', count=2, shown=3, uncompared=None, _hidden=1.5, late=NOTHING)"


def test_a_record_within_itself_ends() -> None:
    @define
    class Box:
        inside: Any = None

    box = Box()
    box.inside = [box]
    assert repr(box) == "Box(inside=[...])"


@pytest.mark.parametrize("decorate", [define, frozen])
def test_records_are_equal_by_the_fields_that_count(decorate: Any) -> None:
    @decorate
    class Order:
        name: str
        uncompared: Any = attrs.field(default=None, eq=False)

    @decorate
    class Other:
        name: str

    @decorate
    class More(Order):
        count: int = 0

    assert Order("ada") == Order("ada", 7)
    assert Order("ada") != Order("bob")
    assert Order("ada") != Other("ada")
    assert Order("ada") != More("ada")
    assert More("ada", count=1) != More("ada", count=2)


def test_a_record_without_fields_equals_another_one() -> None:
    @frozen
    class Empty: ...

    assert Empty() == Empty()
    assert hash(Empty()) == hash(Empty())


def test_a_frozen_record_is_a_key_and_one_that_changes_is_not() -> None:
    @define
    class Changing:
        name: str

    @frozen
    class Point:
        x: int
        y: int

    assert len({Point(1, 2), Point(1, 2), Point(2, 1)}) == 2
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Point(1, 2).x = 3  # type: ignore[misc]
    with pytest.raises(TypeError, match="unhashable"):
        hash(Changing("ada"))


def test_own_methods_stay() -> None:
    @frozen
    class Own:
        name: str

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    assert repr(Own("ada")) == "own"
    assert Own("ada") == Own("bob")
    assert hash(Own("ada")) == 7


def test_a_record_that_is_compared_by_identity_is_so() -> None:
    kind = _made_by(define, eq=False)
    one = kind("ada")
    assert one == one
    assert one != kind("ada")
    assert {one: 1}[one] == 1


def test_options_reach_attrs() -> None:
    kind = _made_by(frozen, repr=False, kw_only=True)
    assert repr(kind(name="ada")).startswith("<")
    with pytest.raises(TypeError):
        kind("ada")
    assert attrs.evolve(kind(name="ada"), hidden=math.pi)._hidden == math.pi


class Key(msgspec.Struct):
    name: str
    secret: str
    next: Key | None = None

    __repr__, __rich_repr__ = reprs_without("secret")


def test_a_struct_does_not_show_its_hidden_fields() -> None:
    key = Key("ada", "hush", Key("bob", "hush"))
    assert repr(key) == "Key(name='ada', next=Key(name='bob', next=None))"
    key.next = key
    assert repr(key) == "Key(name='ada', next=...)"


def test_no_secret_of_the_core_is_shown() -> None:
    session = WorkerSession("w", "hush", "hush", 0.0, 0, None, False)
    channel = Channel("c", "hush", "hush", None, 1, 1, None, 0.0, 0.0)
    result = ChannelResult("c", Outcome.COMPLETED, "", None, None, 0.0, 0.0, "hush", "hush")
    function = Function("default", "f", None, invocation=Raw(b"hush"))
    for one in (session, channel, result, function, Credentials({"a": "hush"}, {"b": ["hush"]}, "::1")):
        assert repr(one).startswith(f"{type(one).__name__}(") and "hush" not in repr(one)
        assert "hush" not in repr(one.__rich_repr__())
