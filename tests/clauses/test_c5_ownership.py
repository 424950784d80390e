"""C5.2 to C5.5: who owns an end, and what a cancellation does to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.errors import ChannelBroken
from iii_trio.wire import CancelInvocation, InvocationResult, InvokeFunction, RegisterFunction, encode
from tests.helpers.clause_world import (
    WEBSOCKET,
    Clock,
    World,
    to_raw,
)

# --- workers


@asynccontextmanager
async def two_workers(world: World, first: str, second: str) -> AsyncIterator[tuple[iii_trio.Worker, iii_trio.Worker]]:
    async with (
        iii_trio.open_worker(world.address(first), name="first") as one,
        iii_trio.open_worker(world.address(second), name="second") as two,
    ):
        yield one, two


async def test_C5_2_every_public_operation_is_a_checkpoint(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    async def check(operation: Callable[..., Awaitable[object]], *args: object) -> object:
        with trio.testing.assert_checkpoints():
            return await operation(*args)

    async with two_workers(world, writing, reading) as (one, two), one.create_channel() as channel:
        writer, reader = channel.writer, two.open_reader(channel.reader_ref)
        await check(writer.send, b"not waiting")
        assert await check(reader.receive) == b"not waiting"
        await check(writer.wait_room)
        await check(writer.aclose)
        await check(writer.aclose)
        with pytest.raises(trio.EndOfChannel):
            await check(reader.receive)
        with pytest.raises(trio.EndOfChannel):
            await check(reader.receive)
        with pytest.raises(trio.ClosedResourceError):
            await check(writer.send, b"late")
        await check(reader.aclose)
        await check(writer.wait_outcome)
        await check(writer.wait_outcome)
        with pytest.raises(iii_trio.CallError):
            await check(two.trigger, "nobody::here")
        await check(two.trigger_void, "nobody::here")


async def test_C5_2_the_body_of_a_block_raises_its_own_error_and_no_group(
    autojump_clock: Clock, world: World, writing: str
) -> None:
    with pytest.raises(KeyError, match="mine") as caught:
        async with two_workers(world, writing, writing) as (one, _), one.create_channel() as channel, channel.writer:
            await channel.writer.send(b"x")
            raise KeyError("mine")
    assert type(caught.value) is KeyError


async def test_C5_3_aclose_returns_when_the_engine_has_everything(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    async with iii_trio.open_worker(world.address(reading), name="reads") as two:
        async with iii_trio.open_worker(world.address(writing), name="writes") as one:
            async with one.create_channel() as channel:
                ref = channel.reader_ref
                async with channel.writer as writer:
                    for n in range(50):
                        await writer.send(b"%02d" % n * 10_000)
        # the writer and the owner are gone
        async with two.open_reader(ref) as reader:
            assert [item[:2] async for item in reader] == [b"%02d" % n for n in range(50)]
    assert (await world.outcome())[0] == "completed"


async def test_C5_3_aclose_waits_while_the_engine_has_no_room(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    async with two_workers(world, writing, reading) as (one, two), one.create_channel(buffer_size=1) as channel:
        reader = two.open_reader(channel.reader_ref)
        closed = False

        async def write() -> None:
            nonlocal closed
            for n in range(4):
                await channel.writer.send(bytes([n]) * 300_000)
            await channel.writer.aclose()
            closed = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.sleep(200)
            assert not closed
            assert [item[0] async for item in reader] == [0, 1, 2, 3]
        assert closed


@pytest.mark.parametrize("how", ["exception", "call error", "cancellation"])
async def test_C5_3_leaving_the_writers_block_otherwise_aborts(
    autojump_clock: Clock, world: World, writing: str, reading: str, how: str
) -> None:
    reason, code = {
        "exception": ("the disk is full", "invocation_failed"),
        "call error": ("no such row", "not_there"),
        "cancellation": ("cancelled", "invocation_cancelled"),
    }[how]
    async with two_workers(world, writing, reading) as (one, two), one.create_channel() as channel:
        reader = two.open_reader(channel.reader_ref)
        with trio.CancelScope() as scope:
            try:
                async with channel.writer as writer:
                    await writer.send(b"begun")
                    assert await reader.receive() == b"begun"
                    if how == "exception":
                        raise OSError("the disk is full")
                    if how == "call error":
                        raise iii_trio.CallError("not_there", "no such row")
                    scope.cancel()
                    await trio.sleep_forever()
            except (OSError, iii_trio.CallError):
                pass
        with pytest.raises(ChannelBroken) as caught:
            await reader.receive()
        assert (caught.value.outcome, caught.value.reason, caught.value.code) == ("aborted", reason, code)
        assert (await reader.wait_outcome()).outcome == "aborted"


async def test_C5_3_wait_outcome_returns_when_the_channel_has_ended_for_both(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    async with two_workers(world, writing, reading) as (one, two), one.create_channel() as channel:
        reader = two.open_reader(channel.reader_ref)
        async with channel.writer as writer:
            await writer.send(b"x")
        with trio.move_on_after(100) as scope:
            await writer.wait_outcome()
        assert scope.cancelled_caught  # the reader has not come
        async with trio.open_nursery() as nursery:
            outcomes = []

            async def wait(end: Any) -> None:
                outcomes.append((await end.wait_outcome()).outcome)

            for end in (writer, reader, channel):
                nursery.start_soon(wait, end)
            assert await reader.read_all() == b"x"
        assert outcomes == ["completed"] * 3


# --- C5.4


@pytest.mark.parametrize("ending", ["returns", "raises", "is cancelled"])
async def test_C5_4_a_writer_that_a_call_used_ends_with_it(
    autojump_clock: Clock, world: World, writing: str, reading: str, ending: str
) -> None:
    async with two_workers(world, writing, reading) as (one, two):
        arrived = trio.Event()

        @one.function("first::produce")
        async def produce(writer: iii_trio.ChannelWriter) -> None:
            await writer.send("something")
            if ending == "raises":
                await arrived.wait()  # an abort may overtake what is on its way
                raise ValueError("out of ideas")
            if ending == "is cancelled":
                await trio.sleep_forever()

        await world.settle()  # the engine knows the function
        async with two.create_channel() as channel, trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def call() -> None:
                with scope:
                    try:
                        await two.trigger("first::produce", {"writer": channel.writer_ref})
                    except iii_trio.CallError as error:
                        assert ending == "raises" and "out of ideas" in error.message

            nursery.start_soon(call)
            assert await channel.reader.receive() == "something"
            arrived.set()
            if ending == "returns":
                with pytest.raises(trio.EndOfChannel):
                    await channel.reader.receive()
            else:
                scope.cancel() if ending == "is cancelled" else None
                with pytest.raises(ChannelBroken) as caught:
                    await channel.reader.receive()
                assert caught.value.outcome == "aborted"
    assert trio.current_time() == 0


@pytest.mark.parametrize("ending", ["returns", "raises"])
async def test_C5_4_a_reader_that_a_call_used_is_cancelled_with_it(
    autojump_clock: Clock, world: World, writing: str, reading: str, ending: str
) -> None:
    async with two_workers(world, writing, reading) as (one, two):

        @two.function("second::peek")
        async def peek(reader: iii_trio.ChannelReader) -> str:
            if ending == "raises":
                await reader.receive()
                raise ValueError("not to my taste")
            return str(await reader.receive())

        await world.settle()  # the engine knows the function
        async with one.create_channel() as channel, trio.open_nursery() as nursery:

            async def call() -> None:
                try:
                    assert await one.trigger("second::peek", {"reader": channel.reader_ref}) == "first"
                except iii_trio.CallError:
                    assert ending == "raises"

            nursery.start_soon(call)
            await channel.writer.send("first")
            with pytest.raises(ChannelBroken) as caught:
                while True:
                    await channel.writer.send("more")
            assert caught.value.outcome == "reader_cancelled"


async def test_C5_4_an_end_that_was_passed_on_is_let_go_untouched(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    async with two_workers(world, writing, reading) as (one, two):

        @one.function("first::relay")
        async def relay(writer: iii_trio.ChannelWriter, reader: iii_trio.ChannelReader) -> dict[str, Any]:
            return {"writer": writer.ref, "reader": reader.ref}

        await world.settle()  # the engine knows the function
        async with two.create_channel() as channel:
            refs = await two.trigger("first::relay", {"writer": channel.writer_ref, "reader": channel.reader_ref})
            await trio.sleep(1000)
            async with two.open_writer(refs["writer"]) as writer, trio.open_nursery() as nursery:
                nursery.start_soon(writer.send, "still open")
                assert await two.open_reader(refs["reader"]).receive() == "still open"
                writer.abort("enough")


async def test_C5_4_a_detached_end_outlives_its_call(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    async with two_workers(world, writing, reading) as (one, two), trio.open_nursery() as nursery:

        @one.function("first::later")
        async def later(writer: iii_trio.ChannelWriter) -> str:
            async def write(writer: iii_trio.ChannelWriter) -> None:
                async with writer:
                    await trio.sleep(60)
                    await writer.send("later")

            await writer.send("now")
            nursery.start_soon(write, writer.detach())
            return "returned"

        await world.settle()  # the engine knows the function
        async with two.create_channel() as channel:
            assert await two.trigger("first::later", {"writer": channel.writer_ref}) == "returned"
            assert [item async for item in channel.reader] == ["now", "later"]
        assert trio.current_time() == 60


async def test_C5_4_ends_that_nobody_used_give_an_empty_stream_or_are_cancelled(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    async with two_workers(world, writing, reading) as (one, two):

        @one.function("first::ignore")
        async def ignore(
            writer: iii_trio.ChannelWriter | None = None, reader: iii_trio.ChannelReader | None = None
        ) -> None:
            pass

        await world.settle()  # the engine knows the function
        async with two.create_channel() as channel:
            await two.trigger("first::ignore", {"writer": channel.writer_ref})
            assert [item async for item in channel.reader] == []
        async with two.create_channel() as channel:
            await two.trigger("first::ignore", {"reader": channel.reader_ref})
            with pytest.raises(ChannelBroken) as caught:
                while True:
                    await channel.writer.send("anybody?")
            assert caught.value.outcome == "reader_cancelled"
    assert trio.current_time() == 0


async def test_C5_4_a_channels_block_ends_what_was_used_in_it(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    async with two_workers(world, writing, reading) as (one, two):
        async with one.create_channel() as channel:
            reader = two.open_reader(channel.reader_ref)
            await channel.writer.send("all")
        assert [item async for item in reader] == ["all"]
        with pytest.raises(KeyError):
            async with one.create_channel() as channel:
                reader = two.open_reader(channel.reader_ref)
                await channel.writer.send("part")
                assert await reader.receive() == "part"
                raise KeyError("mine")
        with pytest.raises(ChannelBroken) as caught:
            await reader.receive()
        assert caught.value.outcome == "aborted"


async def test_C5_4_a_channels_block_ends_what_was_neither_used_nor_passed_on(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    async with two_workers(world, writing, reading) as (one, two):
        async with one.create_channel() as unused:
            pass
        await unused.wait_outcome()  # it does not wait for anybody until it expires
        async with one.create_channel() as channel:
            reader = two.open_reader(channel.reader_ref)
        assert [item async for item in reader] == []
        async with one.create_channel() as channel:
            writer = two.open_writer(channel.writer_ref)
        with pytest.raises(ChannelBroken) as caught:
            while True:
                await writer.send("anybody?")
        assert caught.value.outcome == "reader_cancelled"
        with pytest.raises(KeyError):
            async with one.create_channel() as channel:
                reader = two.open_reader(channel.reader_ref)
                raise KeyError("mine")
        with pytest.raises(ChannelBroken) as caught:
            await reader.receive()
        assert caught.value.outcome == "aborted"
    assert trio.current_time() == 0


@pytest.mark.parametrize("sends_first", [True, False])
async def test_C5_4_a_stream_that_another_task_still_writes_never_looks_complete(
    autojump_clock: Clock, world: World, writing: str, reading: str, sends_first: bool
) -> None:
    async with two_workers(world, writing, reading) as (one, two), trio.open_nursery() as outer:
        entered, go_on = trio.Event(), trio.Event()

        async def produce(writer: iii_trio.ChannelWriter) -> None:
            with pytest.raises(trio.ClosedResourceError):
                async with writer:
                    if sends_first:
                        await writer.send("a part")
                    entered.set()
                    await go_on.wait()
                    await writer.send("the rest")

        async def keep(writer: iii_trio.ChannelWriter) -> None:
            outer.start_soon(produce, writer)
            await entered.wait()

        async with one.create_channel() as channel:
            reader = two.open_reader(channel.reader_ref)
            await keep(channel.writer)
        with pytest.raises(ChannelBroken) as caught:
            while True:
                await reader.receive()
        assert caught.value.outcome == "aborted"
        go_on.set()
        entered, go_on = trio.Event(), trio.Event()
        one.register_function("first::keep", keep)
        await world.settle()  # the engine knows the function
        async with two.create_channel() as channel:
            await two.trigger("first::keep", {"writer": channel.writer_ref})
            with pytest.raises(ChannelBroken) as caught:
                while True:
                    await channel.reader.receive()
            assert caught.value.outcome == "aborted"
        go_on.set()
    assert trio.current_time() == 0


# --- C5.5


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_C5_5_when_the_caller_is_cancelled_so_is_the_handler(
    autojump_clock: Clock, world: World, writing: str, reading: str, how: str
) -> None:
    async with two_workers(world, writing, reading) as (one, two):
        ended = trio.Event()

        @one.function("first::think")
        async def think() -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

        await world.settle()  # the engine knows the function
        with trio.CancelScope() as scope:
            if how == "deadline":
                scope.deadline = trio.current_time() + 5
                await two.trigger("first::think")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(two.trigger, "first::think")
                await world.settle()
                scope.cancel()
        await ended.wait()
        assert trio.current_time() == (5 if how == "deadline" else 0)
        await world.settle()
        assert world.engine.statistics().calls == 0


async def test_C5_5_a_callee_that_does_not_understand_is_sent_nothing_and_its_late_answer_is_ignored(
    autojump_clock: Clock,
    world: World,
) -> None:
    caller, unaware, aware = [await world.worker(WEBSOCKET, feature=feature) for feature in (True, False, True)]
    for callee, name in ((unaware, "unaware::f"), (aware, "aware::f")):
        callee.link.send(encode(RegisterFunction(name)))
        await world.settle()
        # a foreign worker's registrations wait for its name
        await trio.sleep(6)
        call_id = world.new_id()
        caller.link.send(encode(InvokeFunction(name, call_id)))
        await world.settle()
        assert [m.invocation_id for m in callee.heard if isinstance(m, InvokeFunction)] == [call_id]
        caller.link.send(encode(CancelInvocation(call_id, "changed my mind")))
        await world.settle()
        told = [(m.invocation_id, m.reason) for m in callee.heard if isinstance(m, CancelInvocation)]
        assert told == ([(call_id, "changed my mind")] if callee is aware else [])
        callee.link.send(encode(InvocationResult(call_id, name, to_raw("late"))))
        await world.settle()
        assert not [m for m in caller.heard if isinstance(m, InvocationResult) and m.invocation_id == call_id]
    assert world.engine.statistics().calls == 0
