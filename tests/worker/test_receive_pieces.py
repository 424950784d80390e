"""Bytes in pieces of any size, for relays that need no items (`iii_trio.lowlevel.receive_pieces`)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.errors import ChannelBroken
from iii_trio.lowlevel import receive_pieces
from iii_trio.testing.world import open_world

ITEMS: list[bytes | str] = [
    b"",
    b"a",
    "text",
    b"b" * 100,
    b"c" * 70_000,
    "\u00e9\u20ac" * 40_000,
    b"",
    b"d" * 300_000,
    "",
    b"e" * 9000,
    "end",
]


def runs(items: list[bytes | str]) -> list[bytes | str]:
    """Return the texts one by one, and the bytes between them joined."""
    found: list[bytes | str] = []
    for item in items:
        if isinstance(item, str) or not found or isinstance(found[-1], str):
            found.append(item)
        else:
            found[-1] = bytes(found[-1]) + item
    return found


@pytest.mark.parametrize("reader_over", ["memory", "network"])
@pytest.mark.parametrize("writer_over", ["memory", "network"])
async def test_texts_come_whole_and_bytes_in_pieces(
    writer_over: str, reader_over: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        open_world(1) as world,
        world.open_worker("writer", writer_over, split=0.3) as writer,  # type: ignore[arg-type]
        world.open_worker("reader", reader_over) as reader,  # type: ignore[arg-type]
        writer.create_channel() as channel,
    ):
        got: list[bytes | str] = []

        @reader.function("take")
        async def take(end: iii_trio.ChannelReader) -> None:
            with pytest.raises(trio.EndOfChannel):
                while True:
                    pieces = await receive_pieces(end)
                    assert pieces
                    got.extend(piece if isinstance(piece, str) else bytes(piece) for piece in pieces)

        await reader.wait_registered()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.trigger, "take", {"end": channel.reader_ref})
            for item in ITEMS:
                await channel.writer.send(item)
            await channel.writer.aclose()
        assert runs(got) == runs(ITEMS)
        # An empty item begins something, and is not lost.
        assert got[0] == b""


async def test_a_channel_that_was_cut_is_broken_for_pieces_too(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_world(1) as world,
        world.open_worker("writer") as writer,
        world.open_worker("reader", "memory") as reader,
        writer.create_channel() as channel,
    ):
        got: list[bytes] = []

        @reader.function("take")
        async def take(end: iii_trio.ChannelReader) -> str:
            try:
                while True:
                    got.extend(bytes(piece) for piece in await receive_pieces(end) if not isinstance(piece, str))
            except ChannelBroken as error:
                return error.reason

        await reader.wait_registered()

        async def send() -> None:
            await channel.writer.send(b"begun")
            await trio.sleep(1)
            channel.writer.abort("no more")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await writer.trigger("take", {"end": channel.reader_ref}) == "no more"
        assert got == [b"begun"]


async def test_a_text_that_has_come_in_part_is_counted_and_given_back(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_world(1) as world,
        world.open_worker("writer") as writer,
        world.open_worker("reader", "memory") as reader,
        writer.create_channel() as channel,
    ):
        size, peak = 2_000_000, 0

        @reader.function("take")
        async def take(end: iii_trio.ChannelReader) -> int:
            nonlocal peak

            async def watch() -> None:
                nonlocal peak
                while True:
                    held: Any = end._end
                    peak = max(peak, held.inner._memory.bytes if held is not None else 0)
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                (text,) = await receive_pieces(end)
                nursery.cancel_scope.cancel()
            held: Any = end._end
            assert held.inner._memory.bytes == 0
            return len(text)

        await reader.wait_registered()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.writer.send, "x" * size)
            assert await writer.trigger("take", {"end": channel.reader_ref}) == size
        assert size // 2 < peak <= size
