"""Checks for any channel: Trio's channel contract, and the further promises of these channels.

`make` gives a fresh pair (writer, reader) of a channel with room for at least two items. The checks raise AssertionError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio
import trio.testing

from ..errors import ChannelBroken
from ..worker import ChannelReader, ChannelWriter

MakeChannel: TypeAlias = Callable[[], Awaitable[tuple[ChannelWriter, ChannelReader]]]


async def check_channel(make: MakeChannel) -> None:
    """Run all checks of this module."""
    await check_writing_end(make)
    await check_reading_end(make)


async def check_writing_end(make: MakeChannel) -> None:
    """Check that a writer checkpoints, refuses use after close, and ends in one of two ways, twice harmlessly."""
    writer, reader = await make()
    with trio.testing.assert_checkpoints():
        await writer.send(b"one")
    with trio.testing.assert_checkpoints():
        await writer.aclose()
    with trio.testing.assert_checkpoints():
        await writer.aclose()
    await _raises(trio.ClosedResourceError, writer.send, b"late")  # clause C4.8
    _equal(await reader.receive(), b"one", "what was sent before a clean close arrives")
    await _raises(trio.EndOfChannel, reader.receive)

    writer, reader = await make()
    await writer.send(b"one")
    writer.abort("as it is to be", "a_code")
    writer.abort("again")
    told = await _told(reader)
    _equal((told.outcome, told.reason, told.code), ("aborted", "as it is to be", "a_code"), "an abort says why")  # C5.3
    await _raises(trio.ClosedResourceError, writer.send, b"late")

    writer, reader = await make()
    await writer.send(b"one")
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.send(b"two")  # whole, or not at all (clause C5.1)
    # Trio's contract makes every send a checkpoint, even one that need not wait.
    if not scope.cancelled_caught:
        raise AssertionError("a send under a cancellation was not cancelled: it is not a checkpoint")
    await writer.send(b"three")
    await writer.aclose()
    _equal([item async for item in reader], [b"one", b"three"], "a cancelled send puts nothing on its way")

    writer, reader = await make()
    await writer.send(b"one")
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.aclose()
    _equal((await _told(reader)).outcome, "aborted", "a close that was cancelled does not look complete")  # clause C5.3


async def check_reading_end(make: MakeChannel) -> None:
    """Check that a reader checkpoints, loses nothing when cancelled, keeps its end, and tells the writer that it leaves."""
    writer, reader = await make()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.receive)
            await trio.testing.wait_all_tasks_blocked()
            await _raises(trio.BusyResourceError, reader.receive)
            scope.cancel()
    for item in (b"one", "two", b""):
        await writer.send(item)
        with trio.CancelScope() as scope:
            scope.cancel()
            await reader.receive()  # clause C5.1
        with trio.testing.assert_checkpoints():
            _equal(await reader.receive(), item, "a cancelled receive loses nothing, and kinds and boundaries are kept")
    for steps in range(8):  # as many as it may take an item to come through
        await _check_a_receive_cancelled_when_its_item_comes(writer, reader, steps)
    await writer.aclose()
    for _ in range(2):
        await _raises(trio.EndOfChannel, reader.receive)
    await reader.aclose()
    await _raises(trio.ClosedResourceError, reader.receive)

    writer, reader = await make()
    await writer.send(b"one")
    await reader.receive()
    with trio.testing.assert_checkpoints():
        await reader.aclose()
    await reader.aclose()
    await _raises(trio.ClosedResourceError, reader.receive)
    try:
        # How many items fit is not known here, so the writer sends until it is told.
        while True:
            await writer.send(b"more")
    except ChannelBroken as error:
        _equal(error.outcome, "reader_cancelled", "the writer is told that nobody reads any more")  # clause C4.4


async def _check_a_receive_cancelled_when_its_item_comes(
    writer: ChannelWriter, reader: ChannelReader, steps: int
) -> None:
    """Cancel some steps after the item came. The item is returned or still there (clause C5.1)."""
    got: list[bytes | str] = []

    async def receive() -> None:
        got.append(await reader.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await writer.send(b"just now")
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    await writer.send(b"last")
    # The cancelled receive has the first item or has left it, and both are right.
    while b"last" not in got:
        got.append(await reader.receive())
    _equal(got, [b"just now", b"last"], "a receive that was cancelled as its item came loses nothing")


async def _told(reader: ChannelReader) -> ChannelBroken:
    try:
        while True:
            await reader.receive()
    except ChannelBroken as error:
        return error
    # A clean end after a cut is the one thing that must never be seen (clause C4.2).
    except trio.EndOfChannel:
        raise AssertionError("a stream that was cut looks complete") from None


async def _raises(kind: type[Exception], operation: Callable[..., Awaitable[Any]], *args: Any) -> None:
    try:
        got = await operation(*args)
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was to be raised; there was {got!r}")


def _equal(got: object, wanted: object, promise: str) -> None:
    if got != wanted:
        raise AssertionError(f"{promise}: {got!r}, where {wanted!r} was to be")
