"""Trio's own checks of streams, with a real engine, over every combination of memory and sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import iii_trio

PLACES = ["memory", "sockets"]
every_combination = pytest.mark.parametrize(("writing", "reading"), [(a, b) for a in PLACES for b in PLACES])
STUCK_SECONDS = 0.02  # no task moves for so long: what is to fill up is full (all sockets here are loopback)


@attrs.define(eq=False)
class Two:
    """Two workers of one engine, and channels between them."""

    engine: iii_trio.Engine
    writer: iii_trio.Worker
    reader: iii_trio.Worker
    stack: AsyncExitStack

    async def channel(self, *, back: bool = False) -> tuple[iii_trio.ChannelWriter, iii_trio.ChannelReader]:
        """Both ends of a channel, one at each worker; the other way round if it is for the way `back`."""
        writer, reader = (self.reader, self.writer) if back else (self.writer, self.reader)
        channel = await self.stack.enter_async_context(writer.create_channel(4, max_bytes=100_000))
        return channel.writer, reader.open_reader(channel.reader_ref)

    async def one_way(self) -> tuple[trio.abc.SendStream, trio.abc.ReceiveStream]:
        writer, reader = await self.channel()
        return writer.stream, reader.stream

    async def both_ways(self) -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        there, back = await self.channel(), await self.channel(back=True)
        return iii_trio.duplex(back[1], there[0]), iii_trio.duplex(there[1], back[0])

    async def clogged_one_way(self) -> tuple[trio.abc.SendStream, trio.abc.ReceiveStream]:
        sender, receiver = await self.one_way()
        await clog(sender, receiver)
        return sender, receiver

    async def clogged_both_ways(self) -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        ours, theirs = await self.both_ways()
        await clog(ours, theirs)
        await clog(theirs, ours)
        return ours, theirs


async def clog(sender: trio.abc.SendStream, receiver: trio.abc.ReceiveStream) -> None:
    """Send until nothing moves any more. The receiver has been attached, so that its socket is full, too."""
    await sender.send_all(b"x")
    await receiver.receive_some(1)

    sent = 1
    while sent:  # what waits to be sent may have become less since the last one had to wait

        async def fill() -> None:
            nonlocal sent
            while True:
                await sender.send_all(bytes(65_536))
                sent += 1

        sent = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            await trio.testing.wait_all_tasks_blocked(STUCK_SECONDS)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_two(writing: str, reading: str, folder: Path) -> AsyncIterator[Two]:
    async with iii_trio.open_engine() as engine, AsyncExitStack() as workers:
        (address,) = await engine.listen(iii_trio.Listener(unix=str(folder / "engine")))
        at: dict[str, Any] = {"memory": engine, "sockets": address}
        writer = await workers.enter_async_context(iii_trio.open_worker(at[writing], name="writer"))
        reader = await workers.enter_async_context(iii_trio.open_worker(at[reading], name="reader"))
        async with AsyncExitStack() as stack:
            yield Two(engine, writer, reader, stack)
        while engine.statistics().channels:  # until the words of the ends are there
            await trio.testing.wait_all_tasks_blocked(0.001)


@every_combination
async def test_one_way_streams_keep_trios_contract(writing: str, reading: str, tmp_path: Path) -> None:
    async with open_two(writing, reading, tmp_path) as two:
        await trio.testing.check_one_way_stream(two.one_way, two.clogged_one_way)


@every_combination
async def test_half_closeable_streams_keep_trios_contract(writing: str, reading: str, tmp_path: Path) -> None:
    async with open_two(writing, reading, tmp_path) as two:
        await trio.testing.check_half_closeable_stream(two.both_ways, two.clogged_both_ways)


@every_combination
async def test_closing_while_another_task_sends_never_looks_complete(
    writing: str, reading: str, tmp_path: Path
) -> None:
    async with open_two(writing, reading, tmp_path) as two:
        writer, reader = await two.channel()
        await clog(writer.stream, reader.stream)

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await writer.send(b"the last words")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked(STUCK_SECONDS)
            with pytest.raises(trio.BusyResourceError):
                await writer.aclose()
        with pytest.raises(iii_trio.ChannelBroken) as caught:
            await reader.read_all()
        assert caught.value.outcome == "aborted" and "still being sent" in caught.value.reason
        await writer.aclose()


@every_combination
async def test_an_end_that_nobody_was_told_of_is_raised_when_the_stream_is_closed(
    writing: str, reading: str, tmp_path: Path
) -> None:
    async with open_two(writing, reading, tmp_path) as two:
        async with iii_trio.open_worker(two.engine, name="owner") as owner:
            async with owner.create_channel() as channel:
                writer = two.writer.open_writer(channel.writer_ref)
                channel.reader.detach()
                stream = writer.stream
                await stream.send_all(b"one")
        while not writer_knows(writer):
            await trio.testing.wait_all_tasks_blocked(0.001)
        with pytest.raises(iii_trio.ChannelBroken) as caught:
            await stream.aclose()
        assert caught.value.outcome == "owner_lost"
        await stream.aclose()


async def test_an_end_that_sending_has_told_of_is_not_raised_again_when_the_stream_is_closed() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("writer") as worker:
        async with engine.open_worker("owner") as owner, owner.create_channel() as channel:
            stream = worker.open_writer(channel.writer_ref).stream
            channel.reader.detach()
            await stream.send_all(b"one")
        with pytest.raises(iii_trio.ChannelBroken) as caught:
            await stream.send_all(b"two")
        assert caught.value.outcome == "owner_lost"
        await stream.aclose()


def writer_knows(writer: iii_trio.ChannelWriter) -> bool:
    return writer._end is not None and writer._end.ended is not None


@every_combination
async def test_closing_a_stream_is_no_error_once_sending_was_or_the_reader_left(
    writing: str, reading: str, tmp_path: Path
) -> None:
    async with open_two(writing, reading, tmp_path) as two:
        for sends_again in (True, False):
            writer, reader = await two.channel()
            stream = writer.stream
            await stream.send_all(b"one")
            assert await reader.receive() == b"one"
            reader.cancel("enough")
            if sends_again:
                with pytest.raises(trio.BrokenResourceError):
                    while True:
                        await stream.send_all(b"more")
            await stream.aclose()


@every_combination
async def test_closing_wakes_who_waits_for_room_and_the_stream_is_whole(
    writing: str, reading: str, tmp_path: Path
) -> None:
    async with open_two(writing, reading, tmp_path) as two:
        writer, reader = await two.channel()
        stream = writer.stream
        await clog(stream, reader.stream)
        woken = trio.Event()

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.wait_send_all_might_not_block()
            woken.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(STUCK_SECONDS)
            nursery.start_soon(writer.aclose)
            await woken.wait()
            assert len(await reader.read_all()) > 100_000
