"""Calls that a worker makes."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from iii_trio import open_engine
from iii_trio.environment import Environment
from iii_trio.errors import CallError, IIIError, MisuseError
from iii_trio.wire import FEATURE, Action, CancelInvocation, InvocationResult, InvokeFunction
from iii_trio.worker import Worker, current_call, open_worker
from iii_trio.worker.context import within_trace
from iii_trio.worker.jobs import Receipt, enqueue
from tests.helpers.fake_engine import CREATE, FakeEngine, parsed, raw


async def called(engine: FakeEngine, worker: Worker, *arguments: Any, **options: Any) -> InvokeFunction:
    """The message that a call becomes."""
    before = len(engine.link.of(InvokeFunction))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: worker.trigger(*arguments, **options))
        message = await engine.link.hear(InvokeFunction, before + 1)
        engine.link.answer(message)
    return message


async def answered(engine: FakeEngine, worker: Worker, **answer: Any) -> Any:
    """What a call gives for an answer of the engine."""
    before = len(engine.link.of(InvokeFunction))
    got: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            try:
                got.append(await worker.trigger("f"))
            except CallError as error:
                got.append(error)

        nursery.start_soon(call)
        message = await engine.link.hear(InvokeFunction, before + 1)
        assert message.invocation_id is not None
        engine.link.say(InvocationResult(message.invocation_id, "f", **answer))
    return got[0]


async def test_a_call_becomes_a_message_and_its_answer_a_value() -> None:
    engine = FakeEngine()
    async with open_worker(engine, environment=Environment(engine.new_id)) as worker:
        message = await called(engine, worker, "f", {"a": [1, None, "ü"]}, metadata={"m": 1})
        assert parsed(message.data) == {"a": [1, None, "ü"]} and parsed(message.metadata) == {"m": 1}
        assert message.namespace is None and message.action is None and message.traceparent is None
        assert message.invocation_id is not None and len(message.invocation_id) == 36
        assert await answered(engine, worker, result=raw({"b": 2})) == {"b": 2}
        assert await answered(engine, worker, result=raw(None)) is None
        assert await answered(engine, worker) is None


@pytest.mark.parametrize("nothing", ["", " \n"])
async def test_a_call_without_a_function_is_refused_before_it_is_sent(nothing: str) -> None:
    """Its job would wait for ever."""
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        for call in (
            worker.trigger(nothing, {}, action=enqueue("default")),
            worker.trigger(nothing),
            worker.trigger_void(nothing),
        ):
            with pytest.raises(CallError, match="the function's id is empty") as refused:
                await call
            assert refused.value.code == "function_not_found"
        await called(engine, worker, "f")
        assert [message.function_id for message in engine.link.of(InvokeFunction) if message.data] == ["f"]


async def test_without_a_payload_null_is_sent() -> None:
    """The reference engine drops a call without `data`."""
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        assert bytes((await called(engine, worker, "f")).data) == b"null"


async def test_namespaces_are_inherited_as_the_sdks_do() -> None:
    engine = FakeEngine()
    async with open_worker(engine, namespace="fleet") as worker:
        assert (await called(engine, worker, "f")).namespace == "fleet"
        assert (await called(engine, worker, "engine::x")).namespace == "default"
        assert (await called(engine, worker, "f", namespace="other")).namespace == "other"
        assert (await called(engine, worker, "engine::x", namespace="other")).namespace == "other"


async def test_an_error_is_raised_with_all_that_travelled() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        error = await answered(
            engine, worker, error=raw({"code": "sold_out", "message": "none left", "stacktrace": "s"})
        )
        assert isinstance(error, CallError)
        assert (error.code, error.message, error.stacktrace, error.function_id) == ("sold_out", "none left", "s", "f")
        assert error.invocation_id is not None


@pytest.mark.parametrize("body", [{"code": 7, "message": "m"}, {"message": "m"}, "oops", {"code": "x"}, [1], 5])
async def test_an_error_without_two_texts_is_unknown(body: Any) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        error = await answered(engine, worker, error=raw(body))
        assert isinstance(error, CallError) and error.code == "UNKNOWN"


async def test_a_result_that_cannot_be_read_fails_its_call() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(CallError) as caught:
                await worker.trigger("f")
            assert caught.value.code in ("serialization_error", "deserialization_error")

        nursery.start_soon(call)
        message = await engine.link.hear(InvokeFunction)
        head = f'"type":"invocationresult","invocation_id":"{message.invocation_id}","function_id":"f"'
        engine.link.say_text(("{" + head + ',"result":NaN}').encode())


async def test_a_void_call_wants_no_answer() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        await worker.trigger_void("f", {"a": 1}, metadata=3)
        message = engine.link.of(InvokeFunction)[0]
        assert message.invocation_id is None and message.action == Action("void")
        assert parsed(message.data) == {"a": 1} and parsed(message.metadata) == 3


async def test_an_enqueued_call_names_its_queue() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        message = await called(engine, worker, "f", action=Action("enqueue", "jobs"))
        assert message.action == Action("enqueue", "jobs") and message.invocation_id is not None


@pytest.mark.parametrize("options", [{}, {"delay_seconds": 5}])
@pytest.mark.parametrize("features", [(), (FEATURE,)])
async def test_the_options_of_a_job_are_refused_if_the_engine_would_drop_them(
    features: tuple[str, ...], options: dict[str, int]
) -> None:
    engine = FakeEngine(features=features)
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:
        outcome: list[object] = []

        async def call() -> None:
            try:
                outcome.append(await worker.trigger("f", 1, action=enqueue("jobs", **options)))
            except CallError as error:
                outcome.append(error.code)

        nursery.start_soon(call)
        if options and not features:
            await trio.testing.wait_all_tasks_blocked()
            assert outcome == ["enqueue_error"] and not engine.link.of(InvokeFunction)
            return
        message = await engine.link.hear(InvokeFunction)
        assert message.action is not None and message.action.queue == "jobs"
        assert bool(message.action.options) is bool(options)
        engine.link.answer(message, {"messageReceiptId": "r"})
    assert isinstance(outcome[0], Receipt)


@pytest.mark.parametrize("way", ["trigger", "trigger_void"])
async def test_a_call_waits_for_room_on_the_link(way: str) -> None:
    engine = FakeEngine(full=True)
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:
        nursery.start_soon(getattr(worker, way), "f")
        await trio.testing.wait_all_tasks_blocked()
        assert not engine.link.of(InvokeFunction)
        engine.full = False
        engine.news.unpark_all()
        call = await engine.link.hear(InvokeFunction)
        if way == "trigger":
            engine.link.answer(call)


@pytest.mark.parametrize("way", ["trigger", "trigger_void"])
async def test_the_trace_headers_of_a_block_travel_with_its_calls_and_with_no_others(way: str) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:

        async def call() -> tuple[str | None, str | None]:
            number = len(engine.link.of(InvokeFunction)) + 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(getattr(worker, way), "f")
                message = await engine.link.hear(InvokeFunction, number)
                if way == "trigger":
                    engine.link.answer(message)
            return message.traceparent, message.baggage

        with within_trace("00-a", "b=1"):
            assert await call() == ("00-a", "b=1")
            with within_trace("00-c", None):
                assert await call() == ("00-c", None)
            assert await call() == ("00-a", "b=1")
        assert await call() == (None, None)


async def test_a_cancelled_call_cancels_its_handler_and_its_late_answer_is_ignored() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.trigger, "f")
                message = await engine.link.hear(InvokeFunction)
                scope.cancel()
        assert [m.invocation_id for m in engine.link.of(CancelInvocation)] == [message.invocation_id]
        engine.link.answer(message, "late")
        await called(engine, worker, "g")


async def test_a_deadline_cancels_the_handler_with_a_reason(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(5):
                await worker.trigger("f")
        (message,) = engine.link.of(CancelInvocation)
        assert message.reason


async def test_nothing_new_is_said_to_an_engine_that_does_not_understand() -> None:
    engine = FakeEngine(features=())
    async with open_worker(engine) as worker:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.trigger, "f")
                await engine.link.hear(InvokeFunction)
                scope.cancel()
        assert not engine.link.of(CancelInvocation)


async def test_a_call_that_was_cancelled_before_it_was_sent_is_not_made() -> None:
    engine = FakeEngine(full=True)
    async with open_worker(engine) as worker:
        with trio.CancelScope() as scope:
            scope.cancel()
            await worker.trigger("f")
        assert scope.cancelled_caught
        assert not engine.link.of(InvokeFunction) and not engine.link.of(CancelInvocation)


async def test_a_call_whose_link_is_lost_says_so(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(CallError, match="thunder") as caught:
                await worker.trigger("f")
            assert caught.value.code == "invocation_stopped" and caught.value.function_id == "f"

        nursery.start_soon(call)
        await engine.link.hear(InvokeFunction)
        engine.link.drop("thunder")


async def test_a_call_made_without_a_link_waits_for_one(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        engine.unreachable = True
        engine.link.drop()
        await worker.wait_state("backoff")
        with trio.move_on_after(3) as scope:
            await worker.trigger("f")
        assert scope.cancelled_caught
        engine.unreachable = False
        await called_on_next_link(engine, worker)


async def called_on_next_link(engine: FakeEngine, worker: Worker) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.trigger, "f")
        link = await engine.linked(2)
        link.answer(await link.hear(InvokeFunction))


@attrs.frozen
class Point:
    x: int
    y: int


async def test_attrs_classes_become_objects() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        message = await called(engine, worker, "f", {"at": [Point(1, 2)]})
        assert parsed(message.data) == {"at": [{"x": 1, "y": 2}]}


@pytest.mark.parametrize(
    ("payload", "where"),
    [
        ({"a": [0, object()]}, "a[1]"),
        ({"a": {"b": b"bytes"}}, "a.b"),
        ({"a": float("nan")}, "a"),
        ({"a": [float("inf")]}, "a[0]"),
        ({"a": {"b": "\ud800"}}, "a.b"),
    ],
    ids=["object", "bytes", "nan", "inf", "surrogate"],
)
async def test_what_json_cannot_hold_is_refused_with_its_place(payload: Any, where: str) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        with pytest.raises(IIIError) as caught, trio.fail_after(5):
            await worker.trigger("f", payload)
        assert isinstance(caught.value, MisuseError | CallError)
        assert where in str(caught.value)
        assert not engine.link.of(InvokeFunction)


async def test_a_payload_that_contains_itself_is_refused() -> None:
    engine = FakeEngine()
    knot: list[Any] = []
    knot.append(knot)
    async with open_worker(engine) as worker:
        with pytest.raises(IIIError):
            await worker.trigger("f", {"knot": knot})
        assert not engine.link.of(InvokeFunction)


async def test_what_is_too_large_is_not_sent() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        with pytest.raises(CallError, match="channel") as caught:
            await worker.trigger("f", "x" * (64 * 1024 * 1024))
        assert caught.value.code == "payload_too_large"
        assert not engine.link.of(InvokeFunction)


@pytest.mark.parametrize("value", [b"bytes", 1 + 2j, object(), math.nan])
async def test_a_text_is_not_made_up_for_what_json_has_not(value: object) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        with pytest.raises(IIIError, match="when"), trio.fail_after(5):
            await worker.trigger("f", {"when": value})


async def test_channel_ends_travel_as_their_refs() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker, worker.create_channel() as channel:
        asked = [m for m in engine.link.of(InvokeFunction) if m.function_id == CREATE]
        assert len(asked) == 1
        message = await called(engine, worker, "f", {"in": channel.reader, "out": [channel.writer]})
        assert parsed(message.data)["in"]["direction"] == "read"
        assert parsed(message.data)["out"][0]["direction"] == "write"
        assert not engine.ends


async def test_traces_are_passed_on_within_a_handler() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:

        @worker.function("a::one")
        async def one() -> dict[str, Any]:
            await worker.trigger_void("inner")
            await worker.trigger_void("own", traceparent="tp-2", baggage="b=2")
            call = current_call()
            return {
                "caller": call.caller,
                "id": call.invocation_id,
                "function": call.function_id,
                "trace": [call.traceparent, call.baggage],
                "metadata": call.metadata,
            }

        value = await engine.link.call(
            "a::one", {"_caller_worker_id": "w7"}, invocation_id="i5", traceparent="tp", baggage="b=1", metadata=[1]
        )
        assert value == {"caller": "w7", "id": "i5", "function": "a::one", "trace": ["tp", "b=1"], "metadata": [1]}
        inner, own = engine.link.of(InvokeFunction)
        assert (inner.traceparent, inner.baggage) == ("tp", "b=1")
        assert (own.traceparent, own.baggage) == ("tp-2", "b=2")
        await worker.trigger_void("outside")
        assert engine.link.of(InvokeFunction)[-1].traceparent is None
        with pytest.raises(LookupError):
            current_call()


async def test_every_call_is_a_checkpoint() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        with trio.testing.assert_checkpoints():
            await worker.trigger_void("f")
        with trio.testing.assert_checkpoints():
            await worker.wait_connected()
        with trio.testing.assert_checkpoints():
            await worker.wait_state("connected")


@attrs.frozen
class _Page:
    offset: int = 0
    limit: int = 10


@attrs.frozen
class _Named:
    name: str


async def test_no_payload_is_an_empty_object_for_a_class_whose_fields_all_have_defaults(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_engine() as engine, engine.open_worker("app") as app:

        @app.function("app::page")
        async def page(which: _Page) -> int:
            return which.limit

        @app.function("app::named")
        async def named(which: _Named) -> str:
            return which.name

        assert [await app.trigger("app::page"), await app.trigger("app::page", {"limit": 3})] == [10, 3]
        with pytest.raises(CallError, match="expected an object, got null"):
            await app.trigger("app::named")
