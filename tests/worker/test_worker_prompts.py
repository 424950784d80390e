"""Calls without tasks: functions that answer by a callback, and calls whose answer is one."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from msgspec import Raw

from iii_trio.errors import CallError, ConnectionFailed, MisuseError
from iii_trio.lowlevel import InlineCall, call_nowait, can_call, register_inline_handler, wait_can_call
from iii_trio.wire import MAX_MESSAGE_BYTES, CancelInvocation, InvocationResult, InvokeFunction
from iii_trio.worker import open_worker
from tests.helpers.fake_engine import FakeEngine, outcome


async def test_a_prompt_answers_at_once_or_later_and_is_asked_in_order() -> None:
    engine = FakeEngine()
    asked: list[InlineCall] = []

    def prompt(call: InlineCall) -> None:
        if bytes(call.payload) == b"1":
            call.answer({"at": "once"})
        else:
            asked.append(call)

    async with open_worker(engine) as worker:
        register_inline_handler(worker, "p", prompt)
        for n in range(4):
            engine.link.invoke("p", n, invocation_id=f"call-{n}", traceparent=f"trace-{n}", baggage="a=b")
        assert outcome(await engine.link.answer_to("call-1")) == {"at": "once"}
        assert [(bytes(call.payload), call.traceparent, call.baggage) for call in asked] == [
            (b"0", "trace-0", "a=b"), (b"2", "trace-2", "a=b"), (b"3", "trace-3", "a=b"),
        ]  # fmt: skip
        assert len(engine.link.of(InvocationResult)) == 1
        asked[1].answer(None)
        asked[0].fail(CallError("full", "there is no room"))
        assert outcome(await engine.link.answer_to("call-2")) is None
        refused = outcome(await engine.link.answer_to("call-0"))
        assert (refused["code"], refused["message"]) == ("full", "there is no room")


async def test_what_a_prompt_raises_is_the_answer_and_harms_nobody_else() -> None:
    engine = FakeEngine()

    def prompt(call: InlineCall) -> None:
        raise CallError("bad", "no") if bytes(call.payload) == b"1" else ZeroDivisionError("a bug")

    async with open_worker(engine) as worker:
        register_inline_handler(worker, "p", prompt)
        assert (await engine.link.call("p", 1))["code"] == "bad"
        assert (await engine.link.call("p", 2))["message"] == "ZeroDivisionError: a bug"
        with pytest.raises(MisuseError, match="offers p already"):
            register_inline_handler(worker, "p", prompt)


async def test_who_calls_a_prompt_for_no_answer_gets_none() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        register_inline_handler(worker, "p", lambda call: call.answer(1))
        engine.link.say(InvokeFunction("p"))
        await trio.testing.wait_all_tasks_blocked()
        assert not engine.link.of(InvocationResult)


async def test_an_answer_can_be_a_callback() -> None:
    engine = FakeEngine()
    settled: list[str] = []
    async with open_worker(engine) as worker:
        good = call_nowait(worker, InvokeFunction("f"), lambda: settled.append("good"))
        bad = call_nowait(worker, InvokeFunction("g"), lambda: settled.append("bad"))
        calls = [await engine.link.hear(InvokeFunction, n) for n in (1, 2)]
        assert [call.function_id for call in calls] == ["f", "g"]
        engine.link.answer(calls[1], error={"code": "no", "message": "it does not"})
        engine.link.answer(calls[0], {"n": 1})
        await trio.testing.wait_all_tasks_blocked()
        assert settled == ["bad", "good"] and good.value() == {"n": 1}
        with pytest.raises(CallError, match="it does not"):
            bad.value()
        bad.give_up("it is settled")
        assert not engine.link.of(CancelInvocation)


async def test_an_answer_that_is_given_up_calls_nobody_and_the_handler_is_told() -> None:
    engine = FakeEngine()
    settled: list[str] = []
    async with open_worker(engine) as worker:
        asked = call_nowait(worker, InvokeFunction("f"), lambda: settled.append("f"))
        call = await engine.link.hear(InvokeFunction)
        asked.give_up("no longer")
        told = await engine.link.hear(CancelInvocation)
        assert (told.invocation_id, told.reason) == (call.invocation_id, "no longer")
        engine.link.answer(call, 1)
        await trio.testing.wait_all_tasks_blocked()
    assert not settled


async def test_a_link_that_is_lost_settles_what_was_asked(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    settled: list[str] = []
    async with open_worker(engine) as worker:
        asked = call_nowait(worker, InvokeFunction("f"), lambda: settled.append("f"))
        engine.link.drop()
        await trio.testing.wait_all_tasks_blocked()
        assert settled == ["f"] and not can_call(worker)
        with pytest.raises(CallError) as lost:
            asked.value()
        assert lost.value.origin == "link"
        await wait_can_call(worker)
        assert can_call(worker) and len(engine.links) == 2


async def test_who_asks_waits_for_room_and_for_a_connection() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        engine.full = True
        assert not can_call(worker)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_can_call, worker)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            engine.full = False
            engine.news.unpark_all()
    with pytest.raises(ConnectionFailed):
        await wait_can_call(worker)


async def test_nobody_asks_over_a_link_that_is_over_although_the_worker_has_not_noticed(autojump_clock: object) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        engine.link.drop()
        assert not can_call(worker), "a call would be settled before its caller has a handle"
        await wait_can_call(worker)
        assert can_call(worker) and len(engine.links) == 2


async def test_what_is_too_large_is_not_asked() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        with pytest.raises(CallError, match="use a channel") as refused:
            call_nowait(worker, InvokeFunction("f", data=Raw(b'"' + b"x" * MAX_MESSAGE_BYTES + b'"')), lambda: None)
        assert refused.value.code == "payload_too_large" and not engine.link.of(InvokeFunction)
