"""A worker that leaves: what finished handlers wrote still arrives, and no thread keeps it."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.worker import ChannelWriter, Worker, open_worker
from tests.helpers.fake_engine import FakeEngine, ref


async def test_a_handler_that_did_not_use_its_writer(autojump_clock: object) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("reader") as reader:
        async with reader.create_channel() as channel:
            async with engine.open_worker("writer") as worker:

                @worker.function("f")
                async def f(writer: ChannelWriter) -> str:
                    return "answered"

                await worker.wait_registered()
                assert await reader.trigger("f", {"writer": channel.writer_ref}) == "answered"
            assert await channel.reader.read_all() == b""


@pytest.mark.parametrize("slow", [False, True])
async def test_what_a_finished_handler_wrote_arrives(slow: bool, autojump_clock: object) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("reader") as reader:
        async with reader.create_channel() as channel, trio.open_nursery() as nursery:

            async def read() -> None:
                async with channel.reader:
                    if slow:
                        await trio.sleep(1)
                    assert len(await channel.reader.read_all()) == 600_000

            async with engine.open_worker("writer") as worker:

                @worker.function("f")
                async def f(writer: ChannelWriter) -> str:
                    for _ in range(6):
                        await writer.send(b"x" * 100_000)
                    return "answered"

                await worker.wait_registered()
                nursery.start_soon(read)
                assert await reader.trigger("f", {"writer": channel.writer_ref}) == "answered"
        assert (await channel.wait_outcome()).outcome == "completed"


async def _finish_with_a_stream(engine: FakeEngine, worker: Worker) -> float:
    """Let a handler finish whose stream cannot be closed yet. Return the time then."""

    @worker.function("f")
    async def f(writer: ChannelWriter) -> None:
        pass

    assert await engine.link.call("f", {"writer": ref("c", "write")}) is None
    await trio.testing.wait_all_tasks_blocked()
    return trio.current_time()


async def test_a_stream_that_nobody_takes_is_waited_for_five_seconds(autojump_clock: object) -> None:
    engine = FakeEngine(prepare=lambda end: end.change(room=False))
    async with open_worker(engine) as worker:
        start = await _finish_with_a_stream(engine, worker)
    assert trio.current_time() - start == pytest.approx(5)
    end = engine.ends["c", "write"]
    assert end.done == ["close", ("abort", "cancelled while closing", None)]


@pytest.mark.parametrize("room_after", [0.5, 4.5, 60.0])
async def test_a_cancelled_worker_waits_for_the_streams_of_its_finished_handlers_too(
    room_after: float, autojump_clock: object
) -> None:
    engine = FakeEngine(prepare=lambda end: end.change(room=False))
    async with trio.open_nursery() as nursery:

        async def give_room() -> None:
            await trio.sleep(room_after)
            engine.ends["c", "write"].change(room=True)

        with trio.CancelScope() as scope:
            async with open_worker(engine) as worker:
                start = await _finish_with_a_stream(engine, worker)
                nursery.start_soon(give_room)
                scope.cancel()
        assert trio.current_time() - start == pytest.approx(min(room_after, 5))
        cut = [("abort", "cancelled while closing", None)] if room_after > 5 else []
        assert engine.ends["c", "write"].done == ["close", *cut]
        nursery.cancel_scope.cancel()


async def test_a_thread_is_abandoned_after_the_goodbye(mock_clock: trio.testing.MockClock) -> None:
    release, begun = threading.Event(), threading.Event()
    mock_clock.rate = 50  # 2 virtual seconds are 40 ms
    engine = FakeEngine()
    try:
        async with open_worker(engine) as worker:

            @worker.function("f")
            def f() -> None:
                begun.set()
                release.wait()

            engine.link.invoke("f")
            await trio.to_thread.run_sync(begun.wait)
            start = trio.current_time()
        assert 2 <= trio.current_time() - start < 60
    finally:
        release.set()


async def test_a_cancelled_call_waits_for_its_thread_which_can_ask() -> None:
    engine = FakeEngine()
    begun = threading.Event()
    ends: list[str] = []
    async with open_worker(engine) as worker:

        @worker.function("f")
        def f() -> None:
            begun.set()
            try:
                while True:
                    trio.from_thread.check_cancelled()
            finally:
                ends.append("cancelled")

        @worker.function("g")
        def g() -> str:
            begun.set()
            while True:
                try:
                    trio.from_thread.check_cancelled()
                except trio.Cancelled:
                    return "a value wins"

        for function_id, invocation_id in (("f", "1"), ("g", "2")):
            begun.clear()
            engine.link.invoke(function_id, invocation_id=invocation_id)
            await trio.to_thread.run_sync(begun.wait)
            engine.link.say(iii_trio.wire.CancelInvocation(invocation_id, "unwanted"))
            await engine.link.answer_to(invocation_id)
    assert ends == ["cancelled"]
    (value,) = [bytes(m.result) for m in engine.link.of(iii_trio.wire.InvocationResult) if m.function_id == "g"]
    assert value == b'"a value wins"'


async def test_calls_that_wait_for_a_thread_can_be_cancelled_and_give_their_places_back() -> None:
    engine = FakeEngine()
    release = threading.Event()
    async with open_worker(engine) as worker:

        @worker.function("f")
        def f() -> None:
            release.wait()

        for number in range(45):
            engine.link.invoke("f", invocation_id=str(number))
        await trio.testing.wait_all_tasks_blocked(0.01)
        for number in range(40, 45):
            engine.link.say(iii_trio.wire.CancelInvocation(str(number), "unwanted"))
            await engine.link.answer_to(str(number))
        release.set()
        for number in range(40):
            await engine.link.answer_to(str(number))
        for _ in range(3):
            assert await engine.link.call("f") is None
