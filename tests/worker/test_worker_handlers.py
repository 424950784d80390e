"""Payloads become arguments; handlers' values and errors become answers; ends are seen to (clause C5.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from msgspec import Raw

from iii_trio.errors import CallError, ConnectionFailed, MisuseError
from iii_trio.wire import CancelInvocation, InvocationResult, Outcome, to_json
from iii_trio.worker import ChannelReader, ChannelWriter, Worker, open_worker
from tests.helpers.fake_engine import FakeEnd, FakeEngine, outcome, ref


@attrs.frozen
class Item:
    name: str
    count: int = 1


@attrs.frozen
class Order:
    items: list[Item]
    rush: bool = False


@attrs.frozen
class Closed:
    a: int
    forbid_extra_keys = True


async def whole(data):  # type: ignore[no-untyped-def]
    return data


async def keyed(a: int, b: str = "x", *, c: float | None = None) -> Any:
    return [a, b, c]


async def order(order: Order) -> Any:
    return [[item.name, item.count] for item in order.items]


async def number(n: int) -> int:
    return n


async def with_metadata(a: int, metadata: Any) -> Any:
    return [a, metadata]


async def strings(names: list[str]) -> Any:
    return names


async def closed(what: Closed) -> int:
    return what.a


@pytest.mark.parametrize(
    ("handler", "payload", "value"),
    [
        (whole, {"a": 1, "_caller_worker_id": "w"}, {"a": 1}),
        (whole, {"data": 5}, 5),
        (whole, [1], [1]),
        (whole, None, None),
        (keyed, {"a": 1}, [1, "x", None]),
        (keyed, {"a": 1, "b": "y", "c": 2, "d": 0}, [1, "y", 2]),
        (order, {"items": [{"name": "n"}]}, [["n", 1]]),
        (order, {"order": {"items": []}}, []),
        (number, 7, 7),
        (number, {"n": 7}, 7),
        (with_metadata, {"a": 1, "metadata": 9}, [1, {"side": "car"}]),
        (strings, {"names": ["a"]}, ["a"]),
        (closed, {"a": 1}, 1),
    ],
)
async def test_a_payload_becomes_arguments(handler: Callable[..., Awaitable[Any]], payload: Any, value: Any) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_function("f", handler)
        assert await engine.link.call("f", payload, metadata={"side": "car"}) == value


@pytest.mark.parametrize(
    ("handler", "payload", "field"),
    [
        (keyed, {}, "a: missing"),
        (keyed, {"a": "1"}, "a: "),
        (keyed, {"a": None}, "a: "),
        (keyed, {"a": True}, "a: "),
        (keyed, {"a": 1, "b": None}, "b: "),
        (keyed, {"a": 1, "b": 7}, "b: "),
        (keyed, [1], "object"),
        (order, {"items": [{"name": "n"}, {"name": "n", "count": "2"}]}, "items[1].count: "),
        (order, {"items": [{}]}, "items[0].name: missing"),
        (order, {"items": [7]}, "items[0]: expected an object"),
        (order, {"items": "abc"}, "items: expected a list"),
        (order, None, "object"),
        (strings, {"names": "abc"}, "names: expected a list"),
        (closed, {"a": 1, "b": 2}, "b"),
    ],
)
async def test_a_wrong_payload_names_the_field(
    handler: Callable[..., Awaitable[Any]], payload: Any, field: str
) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_function("a::f", handler)
        error = await engine.link.call("a::f", payload)
        assert error["code"] == "deserialization_error"
        assert error["message"].startswith("Failed to deserialize input for a::f: ") and field in error["message"]


def test_handlers_whose_parameters_have_no_names_are_refused() -> None:
    async def main() -> None:
        async with open_worker(FakeEngine()) as worker:
            for handler in (lambda *rest: None, lambda a, /: None):
                with pytest.raises(MisuseError):
                    worker.register_function("f", handler)

    trio.run(main)


async def test_errors_are_answered_with_their_code() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:

        @worker.function("bug")
        async def bug() -> None:
            raise ValueError("no such boat")

        @worker.function("own")
        async def own() -> None:
            raise CallError("sold_out", "none left")

        @worker.function("group")
        async def group() -> None:
            async with trio.open_nursery():
                raise CallError("sold_out", "in a nursery")

        @worker.function("bytes")
        async def give_bytes() -> dict[str, bytes]:
            return {"x": b"1"}

        error = await engine.link.call("bug")
        assert (error["code"], error["message"]) == ("invocation_failed", "ValueError: no such boat")
        assert "ValueError" in error["stacktrace"]
        assert (await engine.link.call("own"))["code"] == "sold_out"
        assert (await engine.link.call("group"))["message"] == "in a nursery"
        error = await engine.link.call("bytes")
        assert error["code"] == "serialization_error" and "x" in error["message"]
        error = await engine.link.call("none")
        assert (error["code"], error["message"]) == ("function_not_found", "Function 'none' not found")


async def test_a_plain_function_runs_in_a_thread_or_where_it_is_told_to() -> None:
    def plain(a: int) -> int:
        with pytest.raises(RuntimeError):
            trio.lowlevel.current_task()
        return a + 1

    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_function("f", plain)
        assert await engine.link.call("f", {"a": 1}) == 2

    async def inline(handler: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        return "inline"

    async with open_worker(engine, run_sync=inline) as worker:
        worker.register_function("f", plain)
        assert await engine.link.call("f", {"a": 1}) == "inline"


async def test_a_cancelled_call_ends_its_handler_and_nothing_else() -> None:
    engine = FakeEngine()
    ended: list[str] = []
    async with open_worker(engine) as worker:

        @worker.function("wait")
        async def wait(name: str) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(name)

        engine.link.invoke("wait", {"name": "one"}, invocation_id="i1")
        engine.link.invoke("wait", {"name": "two"}, invocation_id="i2")
        await trio.testing.wait_all_tasks_blocked()
        engine.link.say(CancelInvocation("i1", "not wanted"))
        engine.link.say(CancelInvocation("i7", "never heard of"))
        await engine.link.answer_to("i1")
        assert ended == ["one"]
        assert outcome(engine.link.of(InvocationResult)[0])["code"] == "invocation_cancelled"
        assert worker.connected
    assert ended == ["one", "two"]


async def test_handlers_begin_in_the_order_of_their_calls_however_many_come_at_once() -> None:
    engine = FakeEngine()
    began: list[int] = []

    async def begin(n: int) -> None:
        began.append(n)
        await trio.lowlevel.checkpoint()

    async with open_worker(engine) as worker:
        worker.register_function("begin", begin)
        for n in range(500):  # tasks that were started together would begin in a random order
            engine.link.invoke("begin", {"n": n}, invocation_id=engine.new_id())
            if n % 50 == 49:
                await trio.testing.wait_all_tasks_blocked()
        await engine.link.hear(InvocationResult, 500)
    assert began == list(range(500))


async def test_a_call_cancelled_before_its_handler_has_begun_never_begins() -> None:
    engine = FakeEngine()
    began: list[int] = []

    async def begin(n: int) -> None:
        began.append(n)

    async with open_worker(engine) as worker:
        worker.register_function("begin", begin)
        for n in range(3):
            engine.link.invoke("begin", {"n": n}, invocation_id=f"call-{n}")
        engine.link.say(CancelInvocation("call-1", "not wanted"))
        answers = [outcome(await engine.link.answer_to(f"call-{n}")) for n in range(3)]
    assert began == [0, 2] and answers[1]["code"] == "invocation_cancelled" and answers[::2] == [None, None]


async def test_a_handler_that_fails_while_it_is_cancelled_does_not_end_the_worker() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:

        @worker.function("messy")
        async def messy() -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled as cancelled:
                raise BaseExceptionGroup("both", [cancelled, ValueError("on the way out")]) from None

        engine.link.invoke("messy")
        await trio.testing.wait_all_tasks_blocked()
        engine.link.say(CancelInvocation("i1", "not wanted"))
        await engine.link.answer_to("i1")
        worker.register_function("f", whole)
        assert await engine.link.call("f", 1) == 1


# --- ends


async def run(handler: Callable[..., Any], payload: Any, prepare: Callable[[FakeEnd], None] = lambda end: None) -> Any:
    """The answer of a handler, and the ends that were attached for it, once all is quiet."""
    engine = FakeEngine(prepare=prepare)
    async with open_worker(engine) as worker:
        worker.register_function("f", handler)
        answer = await engine.link.call("f", payload)
        await trio.testing.wait_all_tasks_blocked()
        return answer, {f"{name} {way}": (list(end.items), list(end.done)) for (name, way), end in engine.ends.items()}


W, R = ref("c", "write"), ref("c", "read")


async def test_a_used_writer_is_closed_cleanly_on_return() -> None:
    async def handler(out: ChannelWriter) -> None:
        await out.send(b"1")
        await out.send("2")

    assert await run(handler, {"out": W}) == (None, {"c write": ([b"1", "2"], ["close"])})


async def test_a_used_writer_is_aborted_with_the_handlers_code() -> None:
    async def handler(out: ChannelWriter) -> None:
        await out.send(b"1")
        raise CallError("sold_out", "none left")

    _, ends = await run(handler, {"out": W})
    assert ends["c write"][1] == [("abort", "none left", "sold_out")]


async def test_an_unused_writer_delivers_an_empty_stream_and_an_unused_reader_is_cancelled() -> None:
    async def handler(data: Any) -> None:
        assert isinstance(data["deep"][0]["r"], ChannelReader)

    _, ends = await run(handler, {"deep": [{"r": ref("a", "read")}], "w": ref("b", "write")})
    assert ends["b write"] == ([], ["close"])
    assert ends["a read"][1][0][0] == "cancel"


async def test_a_ref_is_found_however_its_keys_are_written() -> None:
    async def handler(r: ChannelReader) -> int:
        return len(await r.receive())

    escaped = Raw(to_json({"r": R}).replace(b"channel_id", b"channel\\u005f\\u0069d"))
    answer, _ = await run(handler, escaped, lambda end: end.items.append(b"abc"))
    assert answer == 3


async def test_an_end_that_was_passed_on_is_not_touched() -> None:
    async def handler(w: ChannelWriter, r: ChannelReader) -> Any:
        return {"w": w, "r": [r]}

    answer, ends = await run(handler, {"w": W, "r": R})
    assert answer == {"w": W, "r": [R]} and ends == {}


async def test_a_used_reader_is_cancelled_on_return_before_its_end() -> None:
    async def handler(r: ChannelReader) -> int:
        return len(await r.receive())

    answer, ends = await run(handler, {"r": R}, lambda end: end.items.extend([b"abc", b"more"]))
    assert answer == 3 and ends["c read"][1][0][0] == "cancel"


async def test_a_reader_gets_everything_and_the_clean_end() -> None:
    async def handler(r: ChannelReader) -> Any:
        return [len(chunk) async for chunk in r.chunks()]

    answer, ends = await run(
        handler, {"r": R}, lambda end: (end.items.extend([b"abc", b""]), end.change(finished=True))
    )
    assert answer == [3, 0] and ends["c read"][1] == []


async def test_the_wrong_direction_is_a_clear_error() -> None:
    async def handler(r: ChannelReader) -> None:
        pass

    for payload in ({"r": W}, {"r": 7}):
        answer, _ = await run(handler, payload)
        assert answer["code"] == "deserialization_error" and "r: expected a channel ref" in answer["message"]


async def test_a_detached_end_outlives_its_call() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:

        async def later(out: ChannelWriter) -> None:
            async with out:
                await out.send(b"later")

        @worker.function("f")
        async def f(out: ChannelWriter) -> None:
            nursery.start_soon(later, out.detach())

        await engine.link.call("f", {"out": W})
        end = await engine.attached("c", "write")
        await end.wait_ended()
        assert list(end.items) == [b"later"] and end.done == ["close"]


async def test_a_cancelled_receive_while_attaching_loses_nothing() -> None:
    engine = FakeEngine(attach_gate=trio.Event(), prepare=lambda end: end.items.append(b"kept"))
    async with open_worker(engine) as worker:
        reader = worker.open_reader(R)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.receive)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert engine.attach_gate is not None
        engine.attach_gate.set()
        assert await reader.receive() == b"kept"
        identity = engine.ends["c", "read"].identity
        assert identity is not None and identity.worker_id == engine.link.worker_id


async def test_two_at_once_are_busy_and_one_closed_meanwhile_is_closed() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:
        reader = worker.open_reader(R)

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await reader.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await reader.receive()
        await reader.aclose()
        await reader.aclose()


async def test_a_block_left_by_an_exception_aborts() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        with pytest.raises(KeyError):
            async with worker.open_writer(W) as writer:
                await writer.send(b"x")
                raise KeyError("why")
        assert engine.ends["c", "write"].done == [("abort", "'why'", "invocation_failed")]
        with pytest.raises(trio.ClosedResourceError):
            await writer.send(b"y")


async def test_the_outcome_can_be_waited_for() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker, worker.create_channel() as channel:
        engine.tell_ended(channel.id, "completed", "")
        assert (await channel.wait_outcome()).outcome == Outcome.COMPLETED
    plain = FakeEngine(features=())
    async with open_worker(plain) as worker:
        with pytest.raises(MisuseError, match="announced"):
            await worker.open_reader(R).wait_outcome()


async def test_an_end_of_a_worker_that_has_left_says_so() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        reader, writer = worker.open_reader(R), worker.open_writer(W)
    for use in (reader.receive, writer.aclose):
        with pytest.raises((ConnectionFailed, trio.ClosedResourceError)):
            await use()


async def test_leaving_aborts_what_is_held_before_the_goodbye() -> None:
    engine = FakeEngine()
    order: list[str] = []
    with trio.CancelScope() as scope:
        async with open_worker(engine) as worker:
            await be_left(engine, worker, order)
            scope.cancel()
            await trio.sleep_forever()
    assert order == ["link still up"]
    assert engine.ends["c", "write"].done[0][0] == "abort"


async def be_left(engine: FakeEngine, worker: Worker, order: list[str]) -> None:
    @worker.function("f")
    async def f(out: ChannelWriter) -> None:
        try:
            await out.send(b"x")
            await trio.sleep_forever()
        finally:
            order.append("link still up" if engine.link.ended is None else "link gone")

    engine.link.invoke("f", {"out": W})
    await engine.attached("c", "write")
    await trio.testing.wait_all_tasks_blocked()


async def test_a_handler_starts_with_the_context_variables_of_its_worker() -> None:
    """Neither those that an earlier handler set, which ran in the same task, nor those of a caller in this process."""
    variable = ContextVar("variable", default="nothing")
    variable.set("the worker's")
    engine = FakeEngine()
    async with open_worker(engine) as worker:

        @worker.function("swap")
        async def swap(to: str) -> str:
            before = variable.get()
            variable.set(to)
            return before

        variable.set("the caller's")
        assert [await engine.link.call("swap", {"to": str(n)}) for n in range(3)] == ["the worker's"] * 3


async def test_a_context_variable_that_cannot_be_compared_reaches_no_other_call() -> None:
    class Stubborn:
        def __eq__(self, other: object) -> bool:
            raise ValueError("not comparable")

        __hash__ = object.__hash__

    variable: ContextVar[Stubborn] = ContextVar("stubborn")
    variable.set(Stubborn())
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        original = variable.get()

        @worker.function("replace")
        async def replace() -> bool:
            before = variable.get()
            variable.set(Stubborn())
            return before is original

        assert [await engine.link.call("replace") for _ in range(3)] == [True] * 3


async def test_a_task_answers_one_call_after_the_other_and_few_wait_for_more() -> None:
    engine = FakeEngine()
    tasks: list[trio.lowlevel.Task] = []
    async with open_worker(engine) as worker:

        @worker.function("f")
        async def f() -> None:
            tasks.append(trio.lowlevel.current_task())
            await trio.lowlevel.checkpoint()

        for _ in range(5):
            await engine.link.call("f")
        assert len(set(tasks)) == 1
        for n in range(200):
            engine.link.invoke("f", {}, invocation_id=f"i{n}")
        await trio.testing.wait_all_tasks_blocked()
        assert len(tasks) == 205
        assert len(worker._tasks.child_tasks) == 64


async def test_a_call_after_a_cancelled_one_runs_to_its_end() -> None:
    """Cancelled while it ran, before it started, and in the step in which it returned."""
    engine = FakeEngine()
    async with open_worker(engine) as worker:

        @worker.function("wait")
        async def wait() -> None:
            await trio.sleep_forever()

        @worker.function("last_step")
        async def last_step() -> int:
            session = worker._membership.session
            assert session is not None
            session.running["i2"].cancel("too late")
            return 1

        @worker.function("pause")
        async def pause() -> str:
            await trio.lowlevel.checkpoint()
            return "done"

        engine.link.invoke("wait", {}, invocation_id="i1")
        await trio.testing.wait_all_tasks_blocked()
        engine.link.say(CancelInvocation("i1", "not wanted"))
        assert outcome(await engine.link.answer_to("i1"))["code"] == "invocation_cancelled"
        assert await engine.link.call("pause") == "done"
        engine.link.invoke("last_step", {}, invocation_id="i2")
        assert outcome(await engine.link.answer_to("i2")) == 1
        assert await engine.link.call("pause") == "done"
        assert len([answer for answer in engine.link.of(InvocationResult) if answer.invocation_id == "i2"]) == 1
        engine.link.invoke("pause", {}, invocation_id="i3")
        engine.link.say(CancelInvocation("i3", "before it starts"))
        assert outcome(await engine.link.answer_to("i3"))["code"] == "invocation_cancelled"
        assert await engine.link.call("pause") == "done"
