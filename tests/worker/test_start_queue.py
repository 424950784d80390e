"""The tasks in which handlers run: one waits for the next call, unless its handler left something behind."""

from __future__ import annotations

import contextvars

import pytest
import trio
import trio.testing

from iii_trio.wire import ChannelEnded, InvocationResult, InvokeFunction, Message, RegisterFunction
from iii_trio.worker import open_worker
from tests.helpers.fake_engine import FakeEngine, outcome

LEFT_BEHIND: contextvars.ContextVar[object] = contextvars.ContextVar("left_behind")


class Incomparable:
    """A value of a context variable that cannot be compared with itself."""

    def __eq__(self, other: object) -> bool:
        raise TypeError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("leaves", "same"), [([None, None, None], True), (["a", "a", "a"], False), ([Incomparable()] * 3, False)]
)
async def test_a_task_answers_one_call_after_another_if_its_handlers_leave_no_context_behind(
    leaves: list[object], same: bool
) -> None:
    engine, tasks, found = FakeEngine(), list[trio.lowlevel.Task](), []
    async with open_worker(engine) as worker:

        @worker.function("f")
        async def f(number: int) -> int:
            tasks.append(trio.lowlevel.current_task())
            found.append(LEFT_BEHIND.get(None))
            if leaves[number] is not None:
                LEFT_BEHIND.set(leaves[number])
            return number

        await worker.wait_registered()
        assert [await engine.link.call("f", {"number": number}) for number in range(3)] == [0, 1, 2]
    assert found == [None] * 3
    assert (len({id(task) for task in tasks}) == 1) is same


@pytest.mark.parametrize("message", [InvokeFunction("f", "broken"), ChannelEnded("c", "completed")])
async def test_a_failure_at_one_message_of_the_engine_ends_nothing_else(
    message: Message, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("odd")

    engine = FakeEngine()
    async with open_worker(engine) as worker:

        @worker.function("f")
        async def f() -> str:
            return "done"

        await worker.wait_registered()
        with monkeypatch.context() as patched:
            patched.setattr(worker._membership, "_on_call", fail)
            patched.setattr(worker._membership, "_on_channel_ended", fail)
            engine.link.say(message)
            await trio.testing.wait_all_tasks_blocked()
        assert await engine.link.call("f") == "done"
    assert "handling a message of the engine raised" in caplog.text and "odd" in caplog.text


async def call_together(engine: FakeEngine, count: int) -> None:
    """Have the handlers of this many calls of `f` start together, and run as far as they go."""
    for number in range(count):
        engine.link.invoke("f", {"number": number}, invocation_id=f"i{number}")
    await trio.testing.wait_all_tasks_blocked()


async def test_answers_of_calls_that_start_together_leave_together(mock_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:

        @worker.function("f")
        async def f(number: int) -> int:
            return number

        await worker.wait_registered()
        before = len(engine.link.writes)
        await call_together(engine, 5)
        assert [answer.invocation_id for answer in engine.link.of(InvocationResult)] == [f"i{n}" for n in range(5)]
        # The last call sends the answers of the others before it starts, because its handler may take long.
        assert engine.link.writes[before:] == [4, 1]
        assert await engine.link.call("f", {"number": 7}) == 7
        assert engine.link.writes[before:] == [4, 1, 1]


async def test_no_answer_waits_for_a_handler_that_takes_long() -> None:
    engine, done = FakeEngine(), trio.Event()
    async with open_worker(engine) as worker:

        @worker.function("f")
        async def f(number: int) -> int:
            if number >= 2:
                await done.wait()
            return number

        await worker.wait_registered()
        await call_together(engine, 4)
        assert [answer.invocation_id for answer in engine.link.of(InvocationResult)] == ["i0", "i1"]
        done.set()
        await trio.testing.wait_all_tasks_blocked()
        assert len(engine.link.of(InvocationResult)) == 4


async def test_no_answer_waits_for_several_handlers_that_keep_the_loop_busy(mock_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:

        @worker.function("f")
        async def f(number: int) -> int:
            mock_clock.jump(0.001)
            return number

        await worker.wait_registered()
        before = len(engine.link.writes)
        await call_together(engine, 4)
        assert engine.link.writes[before:] == [1, 1, 1, 1]


async def test_no_answer_waits_for_a_call_that_does_not_start_because_the_worker_leaves() -> None:
    engine, done, leaving = FakeEngine(), trio.Event(), trio.CancelScope()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def work() -> None:
            with leaving:
                async with open_worker(engine) as worker:

                    @worker.function("leave")
                    async def leave() -> str:
                        leaving.cancel()
                        return "bye"

                    @worker.function("stay")
                    async def stay() -> None:
                        with trio.CancelScope(shield=True):
                            await done.wait()

                    await trio.sleep_forever()

        await trio.testing.wait_all_tasks_blocked()
        engine.link.invoke("stay", invocation_id="i0")
        await trio.testing.wait_all_tasks_blocked()
        for number in 1, 2:
            engine.link.invoke("leave", invocation_id=f"i{number}")
        await trio.testing.wait_all_tasks_blocked()
        answers = [outcome(answer) for answer in engine.link.of(InvocationResult)]
        done.set()
    assert answers == ["bye"]


async def test_what_a_handler_registers_arrives_in_its_place_and_at_once() -> None:
    engine, heard = FakeEngine(), list[int]()
    async with open_worker(engine) as worker:

        @worker.function("f")
        async def f(number: int) -> int:
            if number == 1:
                worker.register_function("g", lambda: None)
                heard.append(len(engine.link.of(RegisterFunction)))
            return number

        await worker.wait_registered()
        await call_together(engine, 3)
        assert heard == [2]
        kinds = [type(message).__name__ for message in engine.link.heard[-4:]]
        assert kinds == ["InvocationResult", "RegisterFunction", "InvocationResult", "InvocationResult"]
