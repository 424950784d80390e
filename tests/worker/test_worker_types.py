"""Types that handlers are annotated with: the common ones work both ways, the others are refused at once."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Literal, NewType, TypedDict

import attrs
import msgspec
import pytest

import iii_trio
from iii_trio import lowlevel, structure
from iii_trio.errors import CallError, MisuseError
from iii_trio.worker import open_worker
from iii_trio.worker.payload import encode_payload
from tests.helpers.fake_engine import FakeEngine

WHEN = datetime.datetime(2026, 11, 28, 12, 30, tzinfo=datetime.UTC)
ID = uuid.UUID("12345678-1234-4234-8234-123456789abc")


class Colour(enum.Enum):
    RED = "red"


class Named(TypedDict):
    name: str


@attrs.frozen
class Event:
    when: datetime.datetime
    amount: decimal.Decimal | None = None


@pytest.mark.parametrize(
    ("annotation", "sent", "value"),
    [
        (datetime.datetime, "2026-11-28T12:30:00Z", WHEN),
        (datetime.date, "2026-11-28", datetime.date(2026, 11, 28)),
        (datetime.time, "12:30:00", datetime.time(12, 30)),
        (datetime.timedelta, "PT90S", datetime.timedelta(seconds=90)),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (uuid.UUID, str(ID), ID),
        (list[uuid.UUID], [str(ID)], [ID]),
        (dict[str, decimal.Decimal], {"a": "0.1"}, {"a": decimal.Decimal("0.1")}),
        (int | str, 7, 7),
        (int | str, "7", "7"),
        (float | None, 1.5, 1.5),
        (str | None, None, None),
        (object, {"any": 1}, {"any": 1}),
        (Colour, "red", Colour.RED),
        (Literal["a", "b"], "b", "b"),
        (Named, {"name": "n"}, {"name": "n"}),
        (Event, {"when": "2026-11-28T12:30:00Z", "amount": "3"}, Event(WHEN, decimal.Decimal(3))),
    ],
)
async def test_a_common_type_works_both_ways(annotation: Any, sent: Any, value: Any) -> None:
    seen: list[Any] = []

    async def handler(value, other=None):  # type: ignore[no-untyped-def]
        seen.append(value)
        return value

    handler.__annotations__["value"] = annotation
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_function("f", handler)
        answer = await engine.link.call("f", {"value": sent})
    assert seen == [value] and type(seen[0]) is type(value)
    assert answer == (sent if annotation is not Event else {"when": sent["when"], "amount": "3"})


@pytest.mark.parametrize(
    ("annotation", "sent", "problem"),
    [
        (datetime.datetime, "yesterday", "value: expected a datetime: Invalid RFC3339"),
        (datetime.datetime, 7, r"value: expected a string \(datetime\), got an integer"),
        (decimal.Decimal, "x", "value: expected a Decimal"),
        (uuid.UUID, "x", "value: expected a UUID"),
        (int | str, 1.5, "value: "),
        (Event, {"when": "x"}, "value.when: expected a datetime"),
    ],
)
async def test_what_does_not_fit_is_refused_naming_the_field(annotation: Any, sent: Any, problem: str) -> None:
    async def handler(value, other=None):  # type: ignore[no-untyped-def]
        return value

    handler.__annotations__["value"] = annotation
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_function("f", handler)
        error = await engine.link.call("f", {"value": sent})
    assert error["code"] == "deserialization_error"
    with pytest.raises(ValueError, match=problem):
        raise ValueError(error["message"])


class Unknown:
    pass


@attrs.frozen
class Holder:
    inner: list[Unknown]


async def generates() -> AsyncIterator[int]:
    yield 1


def generates_plainly() -> Iterator[int]:
    yield 1


async def complex_number(a: complex) -> None: ...


async def unknown(a: Unknown) -> None: ...


async def nested(a: dict[str, Unknown]) -> None: ...


async def in_a_class(a: Holder) -> None: ...


async def callback(a: Callable[[], None]) -> None: ...


async def union(a: Unknown | int) -> None: ...


async def in_a_mapping(a: Mapping[str, Holder]) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [
        generates,
        generates_plainly,
        complex_number,
        unknown,
        nested,
        in_a_class,
        callback,
        union,
        in_a_mapping,
    ],
)
async def test_a_handler_that_no_call_could_reach_is_refused_when_it_is_registered(handler: Any) -> None:
    async with open_worker(FakeEngine()) as worker:
        with pytest.raises(MisuseError, match=handler.__name__):
            worker.register_function("f", handler)
        with pytest.raises(MisuseError, match="Unknown"):
            worker.register_trigger_type("t", (print, None), config=Unknown)


async def test_a_default_may_bind_an_object_of_any_type() -> None:
    thing = Unknown()

    async def bound(a: int, thing: Unknown = thing) -> bool:
        return isinstance(thing, Unknown)

    async def optional(a: int, b: Unknown | None = None) -> None: ...

    bound.__annotations__["thing"] = Unknown
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_function("f", bound)
        assert await engine.link.call("f", {"a": 1}) is True
        with pytest.raises(MisuseError, match="'b'"):
            worker.register_function("g", optional)


@pytest.mark.parametrize("function_id", ["", "bad id", "bad\n", "\udcff", " ", 7])
async def test_an_id_that_is_none_is_refused(function_id: Any) -> None:
    async with open_worker(FakeEngine()) as worker:
        with pytest.raises(MisuseError, match="id"):
            worker.register_function(function_id, nothing)
        with pytest.raises(MisuseError, match="id"):
            lowlevel.register_inline_handler(worker, function_id, lambda call: None)


async def nothing() -> None: ...


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    @classmethod
    def from_text(cls, text: str) -> Point:
        x, y = text.split(",")
        return cls(int(x), int(y))


async def test_a_type_can_be_taught() -> None:
    iii_trio.register_type(
        Point, Point.from_text, unstructure=lambda point: f"{point.x},{point.y}", schema={"type": "string"}
    )

    async def mirror(points: list[Point]) -> list[Point]:
        return [Point(point.y, point.x) for point in points]

    engine = FakeEngine()
    async with open_worker(engine) as worker:
        mirror.__annotations__["points"] = list[Point]
        worker.register_function("f", mirror, forbid_extra_keys=True)
        assert await engine.link.call("f", {"points": ["1,2", "3,4"]}) == ["2,1", "4,3"]
        error = await engine.link.call("f", {"points": ["1,2", "3"]})
    assert "points[1]: " in error["message"]


@attrs.frozen
class Metres:
    number: int


@attrs.frozen
class Far(Metres):
    """A subclass keeps its own form."""


NewText: Any = NewType("NewText", str)


@dataclasses.dataclass
class Seconds:
    number: int


class Hue(enum.Enum):
    RED = 1


@attrs.frozen
class Run:
    """A class with taught ones within. The encoder leaves `_secret` out."""

    far: Metres
    long: list[Seconds]
    _secret: int = 1


async def test_a_taught_form_is_sent_also_of_what_has_a_form_of_its_own() -> None:
    """Of attrs classes, dataclasses, enumerations and times, wherever they are in a payload or a result."""
    iii_trio.register_type(Metres, lambda text: Metres(int(text[:-1])), unstructure=lambda value: f"{value.number}m")
    iii_trio.register_type(Seconds, lambda text: Seconds(int(text[:-1])), unstructure=lambda value: f"{value.number}s")
    iii_trio.register_type(Hue, lambda text: Hue[text], unstructure=lambda value: value.name)
    try:

        async def mirror(run: Run) -> dict[str, Any]:
            return {"run": run, "colours": (Hue.RED,), "plain": [1, None, "x", True, 1.5]}

        engine = FakeEngine()
        async with open_worker(engine) as worker:
            mirror.__annotations__["run"] = Run
            worker.register_function("f", mirror)
            got = await engine.link.call("f", {"run": {"far": "3m", "long": ["4s"]}})
        assert got == {"run": {"far": "3m", "long": ["4s"]}, "colours": ["RED"], "plain": [1, None, "x", True, 1.5]}
        assert encode_payload([{"at": Metres(7)}], "it") == b'[{"at":"7m"}]'
    finally:
        _forget_taught_types()


async def test_a_taught_form_that_fails_is_named_with_its_place() -> None:
    iii_trio.register_type(Metres, Metres, unstructure=lambda value: int(f"of {value.number}"))
    try:
        with pytest.raises(CallError, match=r"a\[0\]\.far: .*of 0"):
            encode_payload({"a": [{"far": Metres(0)}]}, "it")
        circle: list[Any] = []
        circle.append(circle)
        with pytest.raises(CallError, match="contains itself"):
            encode_payload(circle, "it")
    finally:
        _forget_taught_types()


@dataclasses.dataclass
class Odd:
    """What the encoder sends in its own way."""

    data: bytes = b"\1"
    unset: Any = dataclasses.field(init=False)
    absent: Any = msgspec.UNSET


async def test_a_payload_without_a_taught_type_is_sent_as_ever() -> None:
    deep: list[Any] = []
    for _ in range(480):
        deep = [deep]
    values = [{"odd": Odd()}, deep, (1, 2.5, None), {"when": WHEN}, Far(7)]
    before = [encode_payload(value, "it") for value in values]
    iii_trio.register_type(Metres, Metres, unstructure=lambda value: value.number)
    iii_trio.register_type(NewText, str, unstructure=str)  # type: ignore[type-abstract]
    try:
        assert [encode_payload(value, "it") for value in values] == before
    finally:
        _forget_taught_types()


def _forget_taught_types() -> None:
    for kind in (Metres, Seconds, Hue, NewText):
        structure._unstructure.pop(kind, None)
        structure._taught_anew.discard(kind)
