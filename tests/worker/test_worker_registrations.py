"""Registrations that cannot be sent are refused at once, with or without a connection, and nothing of them is kept."""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from iii_trio import lowlevel
from iii_trio.errors import CallError, ConnectionFailed, IIIError, MisuseError, Rejected
from iii_trio.http import ExternalCall, HmacAuth
from iii_trio.wire import (
    MAX_MESSAGE_BYTES,
    RegisterFunction,
    RegisterTrigger,
    RegisterTriggerType,
    RegistrationRejected,
)
from iii_trio.worker import BoundTrigger, Worker, open_worker
from iii_trio.worker.inline import InlineCall
from tests.helpers.fake_engine import FakeEngine, parsed, registered

HALF = "\ud800"
"""Half a character, as file names that are not UTF-8 hold it."""
NO_JSON = "cannot be sent as JSON"
Register = Callable[[Worker], object]


async def nothing() -> None:
    pass


def inline(call: InlineCall) -> None:
    call.answer(None)


def with_default(name: str = HALF) -> None:
    pass


def half_documented() -> None:
    pass


half_documented.__doc__ = HALF


class Odd(enum.Enum):
    ONE = object()


def with_enum(odd: Odd) -> None:
    pass


async def provide(bound: BoundTrigger, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()


def of(value: object) -> Any:
    """Return a value that a type checker would refuse."""
    return value


def a_circle() -> dict[str, Any]:
    circle: dict[str, Any] = {}
    circle["itself"] = circle
    return circle


BAD: dict[str, tuple[Register, type[IIIError], str]] = {
    "description": (
        lambda worker: worker.register_function("a::b", nothing, description=HALF),
        MisuseError,
        r"the description of a::b is '\ud800' and cannot be sent: '\ud800' is half a character; leave it out",
    ),
    "description of another type": (
        lambda worker: worker.register_function("a::b", nothing, description=of(5)),
        MisuseError,
        "the description of a::b is of type int; give a text",
    ),
    "docstring": (
        lambda worker: worker.register_function("a::b", half_documented),
        MisuseError,
        "the description of a::b is",
    ),
    "default": (
        lambda worker: worker.register_function("a::b", with_default),
        MisuseError,
        "the schema of the parameters of a::b cannot be sent as JSON",
    ),
    "enum": (
        lambda worker: worker.register_function("a::b", with_enum),
        MisuseError,
        "the schema of the parameters of a::b cannot be sent as JSON",
    ),
    "metadata": (
        lambda worker: worker.register_function("a::b", nothing, metadata={"x": [HALF]}),
        MisuseError,
        "`metadata` of a::b cannot be sent as JSON: x[0]: ",
    ),
    "metadata of an object": (
        lambda worker: worker.register_function("a::b", nothing, metadata={"x": object()}),
        MisuseError,
        "`metadata` of a::b cannot be sent as JSON: x: a value of type object is not JSON; "
        "give what JSON can hold: texts, numbers, lists, and dicts whose keys are texts",
    ),
    "metadata of many digits": (
        lambda worker: worker.register_function("a::b", nothing, metadata={"x": 10**5000}),
        MisuseError,
        NO_JSON,
    ),
    "metadata in a circle": (
        lambda worker: worker.register_function("a::b", nothing, metadata=a_circle()),
        MisuseError,
        "contains itself",
    ),
    "metadata that is not a number": (
        lambda worker: worker.register_function("a::b", nothing, metadata={"x": math.nan}),
        MisuseError,
        "`metadata` of a::b cannot be sent as JSON: x: nan is not JSON",
    ),
    "request_format": (
        lambda worker: worker.register_function("a::b", nothing, request_format={"x": HALF}),
        MisuseError,
        "`request_format` of a::b cannot be sent as JSON: x: ",
    ),
    "response_format": (
        lambda worker: worker.function("a::b", response_format={1: object()})(nothing),
        MisuseError,
        "`response_format` of a::b cannot be sent as JSON",
    ),
    "id": (
        lambda worker: worker.register_function(f"a::{HALF}", nothing),
        MisuseError,
        r"'a::\ud800' is not a function id",
    ),
    "too large": (
        lambda worker: worker.register_function("a::b", nothing, metadata={"x": "x" * MAX_MESSAGE_BYTES}),
        MisuseError,
        "the registration of a::b is",
    ),
    "inline": (
        lambda worker: lowlevel.register_inline_handler(worker, "a::b", inline, description=HALF),
        MisuseError,
        "the description of a::b",
    ),
    "relayed": (
        lambda worker: lowlevel.relay_function(worker, "a::b", inline, metadata={"x": object()}),
        MisuseError,
        "`metadata` of a::b",
    ),
    "external description": (
        lambda worker: worker.register_external_function("a::b", ExternalCall("http://x"), description=HALF),
        MisuseError,
        "the description of a::b",
    ),
    "external URL": (
        lambda worker: worker.register_external_function("a::b", ExternalCall(f"http://{HALF}")),
        MisuseError,
        "the call of a::b cannot be sent as JSON: url: ",
    ),
    "external secret": (
        lambda worker: worker.register_external_function("a::b", ExternalCall("http://x", auth=HmacAuth(HALF))),
        MisuseError,
        "the call of a::b cannot be sent as JSON: auth.secret_key: ",
    ),
    "external time": (
        lambda worker: worker.register_external_function("a::b", ExternalCall("http://x", timeout_seconds=math.inf)),
        MisuseError,
        "`timeout_seconds` of a::b is inf; give a number of seconds, or leave it out",
    ),
    "type": (
        lambda worker: worker.register_trigger_type(HALF, provide),
        MisuseError,
        "the id of a trigger type is",
    ),
    "type description": (
        lambda worker: worker.register_trigger_type("tide", provide, description=HALF),
        MisuseError,
        "the description of the trigger type tide",
    ),
    "type config": (
        lambda worker: worker.register_trigger_type("tide", provide, trigger_request_format={"x": object()}),
        MisuseError,
        "`trigger_request_format` of the trigger type tide cannot be sent as JSON: x: ",
    ),
    "type payload": (
        lambda worker: worker.register_trigger_type("tide", provide, payload=Odd),
        MisuseError,
        "the schema of the trigger type tide cannot be sent as JSON",
    ),
    "trigger": (lambda worker: worker.register_trigger(HALF, "a::b"), MisuseError, "the trigger type is"),
    "trigger function": (
        lambda worker: worker.register_trigger("tide", HALF),
        MisuseError,
        "the id of the function is",
    ),
    "trigger namespace": (
        lambda worker: worker.register_trigger("tide", "a::b", namespace=HALF),
        MisuseError,
        "`namespace` is",
    ),
    "trigger type's namespace": (
        lambda worker: worker.register_trigger("tide", "a::b", trigger_namespace=HALF),
        MisuseError,
        "`trigger_namespace` is",
    ),
    "trigger config": (
        lambda worker: worker.register_trigger("tide", "a::b", config={"x": HALF}),
        CallError,
        "the config cannot be sent as JSON: x: ",
    ),
    "topic": (
        lambda worker: worker.subscribe(HALF, "a::b")(nothing),
        CallError,
        "the config cannot be sent as JSON: topic: ",
    ),
    "route": (
        lambda worker: worker.http("GET", f"/{HALF}", function_id="a::b")(nothing),
        CallError,
        "the config cannot be sent as JSON: api_path: ",
    ),
}


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("what", BAD)
async def test_what_cannot_be_sent_is_refused_and_the_worker_comes_back_without_it(
    what: str, online: bool, autojump_clock: trio.testing.MockClock
) -> None:
    register, kind, problem = BAD[what]
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_function("a::one", nothing)
        if not online:
            engine.link.drop()
        with pytest.raises(kind) as caught:
            register(worker)
        assert problem in str(caught.value)
        if online:
            engine.link.drop()
        second = await engine.linked(2)
        await worker.wait_connected()
        worker.register_function("a::two", nothing)
        await trio.testing.wait_all_tasks_blocked()
        assert registered(second) == ["a::one", "a::two"]
        assert not second.of(RegisterTrigger) and not second.of(RegisterTriggerType)
        assert registered(engine.links[0]) == ["a::one"]


async def test_what_was_registered_is_sent_again_as_it_was(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    metadata: dict[str, Any] = {"lane": 3}
    async with open_worker(engine) as worker:
        worker.register_function("a::one", nothing, metadata=metadata)
        lowlevel.relay_function(worker, "a::two", inline, metadata=metadata)
        metadata["lane"] = object()
        with pytest.raises(MisuseError):
            lowlevel.relay_function(worker, "a::two", inline, metadata=metadata)
        engine.link.drop()
        second = await engine.linked(2)
        await worker.wait_connected()
        assert [parsed(message.metadata) for message in second.of(RegisterFunction)] == [{"lane": 3}, {"lane": 3}]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": HALF}, "the name of the worker is"),
        ({"namespace": HALF}, "the namespace of the worker is"),
        ({"description": HALF}, "the description of the worker is"),
        ({"name": 5}, "the name of the worker is of type int; give a text"),
    ],
)
async def test_a_worker_introduces_itself_by_texts_that_can_be_sent(options: dict[str, Any], problem: str) -> None:
    engine = FakeEngine()
    with pytest.raises(MisuseError, match=problem):
        async with open_worker(engine, **options):
            pytest.fail("it was opened")
    assert not engine.links


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda worker: worker.trigger(HALF), "the function's id is '\\ud800' and cannot be sent"),
        (lambda worker: worker.trigger_void(HALF), "the function's id is"),
        (lambda worker: worker.trigger("a::b", namespace=HALF), "`namespace` is"),
        (lambda worker: worker.trigger("a::b", traceparent=HALF), "`traceparent` is"),
        (lambda worker: worker.trigger("a::b", baggage=HALF), "`baggage` is"),
        (lambda worker: lowlevel.begin_call(worker, HALF, None), "the function's id is"),
    ],
)
async def test_a_call_that_cannot_be_sent_is_refused(call: Callable[[Worker], Awaitable[object]], problem: str) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        with pytest.raises(MisuseError) as caught:
            await call(worker)
        assert str(caught.value).startswith(problem) and worker.connected


# --- a worker that has left

REGISTER: list[Register] = [
    lambda worker: worker.register_function("late::f", nothing),
    lambda worker: worker.function("late::f")(nothing),
    lambda worker: worker.register_external_function("late::f", ExternalCall("http://x")),
    lambda worker: worker.register_trigger("tide", "late::f"),
    lambda worker: worker.register_trigger_type("tide", provide),
    lambda worker: worker.subscribe("orders")(nothing),
    lambda worker: worker.http("GET", "/late")(nothing),
    lambda worker: lowlevel.register_inline_handler(worker, "late::f", inline),
]


@pytest.mark.parametrize("register", REGISTER)
async def test_a_worker_that_has_left_registers_nothing(register: Register) -> None:
    async with open_worker(FakeEngine(), name="files") as worker:
        early = worker.register_function("early::f", nothing)
    with pytest.raises(ConnectionFailed, match="the worker 'files' has left"):
        register(worker)
    early.unregister()  # it is gone already


async def test_a_worker_that_was_refused_registers_nothing() -> None:
    engine = FakeEngine()
    with pytest.raises(Rejected):
        async with open_worker(engine) as worker:
            engine.link.say(RegistrationRejected("WORKER_NAMESPACE_CONFLICT", "default", "w9", worker_name="files"))
            await trio.sleep_forever()
    with pytest.raises(Rejected, match="this worker was refused"):
        worker.register_function("late::f", nothing)


# --- decorators without parentheses


@pytest.mark.parametrize(
    ("decorate", "problem"),
    [
        (
            lambda worker: worker.function,
            'the decorator of nothing has no parentheses: write @worker.function("some::id")',
        ),
        (lambda worker: worker.subscribe, 'write @worker.subscribe("some-topic")'),
        (lambda worker: worker.trigger_type, 'write @worker.trigger_type("some-type")'),
    ],
)
async def test_a_decorator_without_parentheses_says_what_to_write(
    decorate: Callable[[Worker], Any], problem: str
) -> None:
    async with open_worker(FakeEngine()) as worker:
        with pytest.raises(MisuseError) as caught:
            decorate(worker)(nothing)
        assert problem in str(caught.value)
