"""A handler's signature as the JSON Schemas that the engine shows."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NewType, NotRequired, Required, TypedDict

import attrs
import pytest

import iii_trio
from iii_trio.structure import FunctionInput
from iii_trio.wire import RegisterFunction
from iii_trio.worker import ChannelReader, ChannelWriter, open_worker
from iii_trio.worker.handler_signature import HandlerSignature
from iii_trio.worker.schemas import schema_of
from tests.helpers.fake_engine import FakeEngine, parsed


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Item:
    name: str
    count: int = 1
    tags: list[str] = attrs.field(factory=list)
    seen: bool = attrs.field(init=False, default=False)


@attrs.frozen
class Order:
    items: list[Item]


@attrs.frozen
class Closed:
    a: int
    forbid_extra_keys = True


@dataclass
class Point:
    x: float
    y: float = 0.5
    labels: list[str] = field(default_factory=list)


class Options(TypedDict):
    deep: bool
    note: NotRequired[str]


@attrs.frozen
class Tree:
    value: int
    children: list[Tree]


class Loose(TypedDict, total=False):
    deep: Required[bool]
    note: str


class Unknown:
    pass


HarbourId = NewType("HarbourId", str)
ITEM = {
    "title": "Item",
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "count": {"type": "integer", "default": 1},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name"],
}
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, TEXT),
        (bool, {"type": "boolean"}),
        (float, {"type": "number"}),
        (None, {"type": "null"}),
        (Any, None),
        (object, None),
        (Unknown, None),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[Any], {"type": "array"}),
        (set[str], {"type": "array", "uniqueItems": True, "items": TEXT}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, str], {"type": "array", "prefixItems": [{"type": "integer"}, TEXT], "minItems": 2, "maxItems": 2}),
        (dict, {"type": "object"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Mapping[str, Any], {"type": "object"}),
        (str | None, {"anyOf": [TEXT, {"type": "null"}]}),
        (str | Any, None),
        (Literal["a", 2], {"enum": ["a", 2]}),
        (Literal[Colour.RED], {"enum": ["red"]}),
        (Colour, {"enum": ["red", "blue"]}),
        (Annotated[str, "a note"], TEXT),
        (HarbourId, TEXT),
        (Item, ITEM),
        (tuple[Item, ...], {"type": "array", "items": ITEM}),
        (dict[str, Item] | Item, {"anyOf": [{"type": "object", "additionalProperties": ITEM}, ITEM]}),
        (Item | Closed, {"anyOf": [ITEM, schema_of(Closed)]}),
        (
            Closed,
            {
                "title": "Closed",
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "required": ["a"],
                "additionalProperties": False,
            },
        ),
        (
            Point,
            {
                "title": "Point",
                "type": "object",
                "properties": {
                    "x": {"type": "number"},
                    "y": {"type": "number", "default": 0.5},
                    "labels": {"type": "array", "items": TEXT},
                },
                "required": ["x"],
            },
        ),
        (
            Options,
            {
                "title": "Options",
                "type": "object",
                "properties": {"deep": {"type": "boolean"}, "note": TEXT},
                "required": ["deep"],
            },
        ),
        (Loose, {**(schema_of(Options) or {}), "title": "Loose"}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_annotations_are_json_schemas(annotation: Any, schema: Any) -> None:
    assert schema_of(annotation) == schema


@pytest.mark.parametrize(("kind", "direction"), [(ChannelReader, "read"), (ChannelWriter, "write")])
def test_a_channels_end_is_a_ref(kind: type, direction: str) -> None:
    schema = schema_of(kind)
    assert schema is not None and schema["title"] == kind.__name__
    assert schema["properties"]["direction"] == {"enum": [direction]}
    assert schema["required"] == ["channel_id", "access_key", "direction"]


def test_a_class_that_contains_itself_is_a_definition() -> None:
    tree = {
        "title": "Tree",
        "type": "object",
        "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
        "required": ["value", "children"],
    }
    assert schema_of(Tree) == {"$ref": "#/$defs/Tree", "$defs": {"Tree": tree}}
    both = schema_of(tuple[Tree, Tree])
    assert both is not None and both["$defs"] == {"Tree": tree}
    assert both["prefixItems"] == [{"$ref": "#/$defs/Tree"}] * 2


def test_an_annotation_that_cannot_be_read_is_anything_and_no_error() -> None:
    broken = attrs.make_class("Broken", {"a": attrs.field(type="Nowhere")})  # type: ignore[arg-type]
    assert schema_of(broken) == {"title": "Broken", "type": "object", "properties": {"a": {}}, "required": ["a"]}
    assert schema_of([1, 2]) is None


def shown(handler: Any) -> tuple[Any, Any]:
    plan = HandlerSignature.from_handler("f", handler)
    return plan.request_schema(), plan.response_schema()


def test_parameters_are_the_properties_of_an_object() -> None:
    async def price(items: list[Item], currency: str = "EUR", metadata: Any = None) -> dict[str, float]: ...

    request, response = shown(price)
    assert request == {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": ITEM},
            "currency": {"type": "string", "default": "EUR"},
        },
        "required": ["items"],
    }
    assert response == {"type": "object", "additionalProperties": {"type": "number"}}


def test_one_parameter_that_takes_the_payload_whole_is_the_payload() -> None:
    async def order(item: Item) -> None: ...
    async def anything(data): ...  # type: ignore[no-untyped-def]
    async def some_object(data: dict[str, int]): ...  # type: ignore[no-untyped-def]
    async def one_key(count: int) -> Any: ...
    async def nothing() -> ChannelReader: ...

    assert shown(order) == (ITEM, {"type": "null"})
    assert shown(anything) == (None, None)
    assert shown(some_object) == ({"type": "object", "additionalProperties": {"type": "integer"}}, None)
    assert shown(one_key)[0] == {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
    assert shown(nothing) == (None, schema_of(ChannelReader))


async def test_schemas_are_said_to_the_engine_and_explicit_ones_win() -> None:
    async def twice(count: int) -> int:
        return count * 2

    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_function("made", twice)
        worker.register_function("given", twice, request_format={"type": "object"}, response_format=True)
        worker.register_function("unknown", lambda data: data)
        made, given, unknown = engine.link.of(RegisterFunction)
        assert parsed(made.request_format)["required"] == ["count"]
        assert parsed(made.response_format) == {"type": "integer"}
        assert (parsed(given.request_format), parsed(given.response_format)) == ({"type": "object"}, True)
        assert not unknown.request_format and not unknown.response_format, "what is not known is left out"


async def test_unknown_keys_are_an_error_at_any_depth_where_they_are_forbidden() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:

        @worker.function("keys", forbid_extra_keys=True)
        async def keys(items: list[Item], rush: bool = False) -> int:
            return len(items)

        @worker.function("one", forbid_extra_keys=True)
        async def one(items: list[Item]) -> int:
            return len(items)

        @worker.function("whole", forbid_extra_keys=True)
        async def whole(order: Order) -> int:
            return len(order.items)

        @worker.function("none", forbid_extra_keys=True)
        async def none() -> str:
            return "ok"

        @worker.function("lenient")
        async def lenient(order: Order) -> int:
            return len(order.items)

        link = engine.link
        good = {"items": [{"name": "a"}]}
        for function_id in ("keys", "one", "whole", "lenient"):
            assert await link.call(function_id, {**good, "_caller_worker_id": "w1"}) == 1
        for function_id, data, problem in [
            ("keys", {**good, "b": 1, "a": 1}, "unknown key(s): a, b"),
            ("keys", {"items": [{"name": "a", "x": 1}]}, "items[0]: unknown key(s): x"),
            ("one", {**good, "a": 1}, "unknown key(s): a"),
            ("one", {"items": [{"name": "a", "x": 1}]}, "items[0]: unknown key(s): x"),
            ("whole", {**good, "a": 1}, "unknown key(s): a"),
            ("whole", {"items": [{"name": "a", "x": 1}]}, "items[0]: unknown key(s): x"),
            ("none", {"a": 1}, "unknown key(s): a"),
        ]:
            error = await link.call(function_id, data)
            assert error["code"] == "deserialization_error"
            assert error["message"] == f"Failed to deserialize input for {function_id}: {problem}"
        assert await link.call("none", None) == "ok"
        assert await link.call("lenient", {"items": [{"name": "a", "x": 1}], "a": 1}) == 1
        said = {one.id: parsed(one.request_format) for one in link.of(RegisterFunction)}
        assert said["keys"]["additionalProperties"] is False
        assert said["keys"]["properties"]["items"]["items"]["additionalProperties"] is False
        assert said["whole"]["additionalProperties"] is False
        assert "additionalProperties" not in said["lenient"]


async def test_the_engine_shows_them() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("orders") as worker:

        @worker.function("orders::price")
        async def price(items: list[Item]) -> float:
            return 1.0

        await worker.wait_registered()
        info = await worker.trigger("engine::functions::info", {"function_id": "orders::price"})
        assert info["request_schema"]["properties"]["items"]["items"] == ITEM
        assert info["response_schema"] == {"type": "number"}


class Bounds(FunctionInput, frozen=True):
    name: str
    limit: int | None = None
    all: bool = False


def test_a_payload_of_the_engines_functions_has_the_schema_of_its_fields() -> None:
    limit = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    fields = {"name": {"type": "string"}, "limit": limit, "all": {"type": "boolean", "default": False}}
    schema = {"title": "Bounds", "type": "object", "properties": fields, "required": ["name"]}
    # The schema is made once, and the one that refuses unknown keys is another.
    for _ in range(2):
        assert schema_of(Bounds) == schema
        assert schema_of(Bounds, forbid_extra_keys=True) == {**schema, "additionalProperties": False}
