"""The worker with the real engine: the example of the README, and Trio's own checks of streams."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing

import iii_trio


async def test_the_example_of_the_readme_runs() -> None:
    async def send_file(writer: iii_trio.ChannelWriter) -> None:
        async with writer:
            for _ in range(100):
                await writer.send(b"one\ntwo\n" * 1000)

    async with (
        iii_trio.open_engine() as engine,
        engine.open_worker("files") as files,
        engine.open_worker("app") as app,
    ):

        @files.function("files::count_lines")
        async def count_lines(reader: iii_trio.ChannelReader) -> dict[str, int]:
            async with reader:
                return {"lines": sum([chunk.count(b"\n") async for chunk in reader.chunks()])}

        async with app.create_channel() as channel, trio.open_nursery() as nursery:
            nursery.start_soon(send_file, channel.writer)
            value = await app.trigger("files::count_lines", {"reader": channel.reader_ref})
        assert value == {"lines": 200_000}
        assert engine.statistics().channels == 0


@pytest.mark.parametrize("over", ["memory", "sockets"])
async def test_byte_views_keep_trios_contract(over: str) -> None:
    async with iii_trio.open_engine() as engine, AsyncExitStack() as stack:
        at: Any = engine
        if over == "sockets":
            (at,) = await engine.listen(iii_trio.Listener(port=0))
        one = await stack.enter_async_context(iii_trio.open_worker(at, name="one"))
        two = await stack.enter_async_context(iii_trio.open_worker(at, name="two"))

        async def one_way() -> tuple[trio.abc.SendStream, trio.abc.ReceiveStream]:
            channel = await stack.enter_async_context(one.create_channel())
            return channel.writer.stream, two.open_reader(channel.reader_ref).stream

        async def half_closeable() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            there = await stack.enter_async_context(one.create_channel())
            back = await stack.enter_async_context(one.create_channel())
            ours = iii_trio.duplex(back.reader, there.writer)
            return ours, iii_trio.duplex(two.open_reader(there.reader_ref), two.open_writer(back.writer_ref))

        await trio.testing.check_one_way_stream(one_way, None)
        await trio.testing.check_half_closeable_stream(half_closeable, None)


@pytest.mark.parametrize("over", ["memory", "sockets"])
async def test_a_handlers_failure_reaches_the_reader_with_code_and_reason(over: str) -> None:
    async with iii_trio.open_engine() as engine:
        at: Any = engine
        if over == "sockets":
            (at,) = await engine.listen(iii_trio.Listener(port=0))
        async with iii_trio.open_worker(at, name="a") as a, iii_trio.open_worker(at, name="b") as b:

            @a.function("a::write")
            async def write(out: iii_trio.ChannelWriter) -> None:
                await out.send(b"a beginning")
                raise iii_trio.CallError("disk_gone", "the disk is gone")

            async with b.create_channel() as channel:
                with pytest.raises(iii_trio.CallError, match="disk_gone"):
                    await b.trigger("a::write", {"out": channel.writer_ref})
                with pytest.raises(iii_trio.ChannelBroken) as caught:
                    await channel.reader.read_all()
                assert (caught.value.outcome, caught.value.reason) == ("aborted", "the disk is gone")
                assert caught.value.code == "disk_gone"


async def test_a_cancelled_caller_cancels_the_handler_of_another_worker() -> None:
    gone = trio.Event()
    async with iii_trio.open_engine() as engine, engine.open_worker("a") as a, engine.open_worker("b") as b:

        @a.function("a::wait")
        async def wait() -> None:
            try:
                await trio.sleep_forever()
            finally:
                gone.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.trigger, "a::wait")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await gone.wait()


async def test_C4_8_an_end_learns_of_the_outcome_by_the_link_while_its_own_socket_is_not_read() -> None:
    """A reader with an item untaken does not read its socket; its writer's abort must not wait for that."""
    async with iii_trio.open_engine() as engine:
        (url,) = await engine.listen(iii_trio.Listener(port=0))
        async with (
            iii_trio.open_worker(url, name="writing") as writing,
            iii_trio.open_worker(url, name="reading") as reading,
        ):
            async with writing.create_channel() as channel:
                reader = reading.open_reader(channel.reader_ref).detach()
                for number in range(3):
                    await channel.writer.send(f"{number}")
                assert await reader.receive() == "0"
                await channel.writer.send("left untaken")
                channel.writer.abort("no more", "out_of_paper")
                assert await reader.wait_outcome() == iii_trio.ChannelResult("aborted", "no more")
                with pytest.raises(iii_trio.ChannelBroken) as broken:
                    await reader.receive()
                assert (broken.value.outcome, broken.value.code) == ("aborted", "out_of_paper")


async def test_C4_8_a_writer_that_was_told_the_outcome_sends_nothing_more() -> None:
    async with iii_trio.open_engine() as engine:
        (url,) = await engine.listen(iii_trio.Listener(port=0))
        async with (
            iii_trio.open_worker(url, name="writing") as writing,
            iii_trio.open_worker(url, name="reading") as reading,
        ):
            async with writing.create_channel() as channel:
                reader = reading.open_reader(channel.reader_ref).detach()
                await channel.writer.send("0")
                await reader.receive()
                reader.cancel("enough")
                assert (await channel.wait_outcome()).outcome == "reader_cancelled"
                with pytest.raises(iii_trio.ChannelBroken, match="reader_cancelled: enough"):
                    await channel.writer.send("1")
