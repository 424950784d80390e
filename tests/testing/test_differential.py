"""The simulated stream and real sockets, told the same, show the same."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from iii_trio.testing import Conditions, Network, SimStream
from iii_trio.transport.socket import Socket

Stream = Socket | SimStream
Script = Callable[[Stream, Stream], Awaitable[list[object]]]
BIG = 8_000_000


def tcp_pair() -> tuple[Socket, Socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return Socket(near), Socket(far)


async def seen(operation: Awaitable[object]) -> object:
    """What an operation gives, or the name of what it raises."""
    try:
        with trio.fail_after(5):
            return await operation
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        return type(error).__name__


async def read_all(stream: Stream) -> tuple[bytes, object]:
    """All that can be read, and how it ended."""
    data = bytearray()
    while isinstance(more := await seen(stream.receive_some()), bytes) and more:
        data += more
    return bytes(data), more


async def arrived(stream: Stream) -> None:
    """Let what was sent arrive: on loopback that is within the call that sends."""
    with trio.move_on_after(1):
        await stream.wait_readable()


async def data_then_reset(near: Stream, far: Stream) -> list[object]:
    await near.send_all(b"data")
    near.reset()
    await arrived(far)
    return [*await read_all(far), await seen(far.receive_some()), await seen(far.send_all(b"x"))]


async def close_with_unread_input(near: Stream, far: Stream) -> list[object]:
    await near.send_all(b"unread")
    await arrived(far)
    await far.send_all(b"answer")
    far.close()
    return [*await read_all(near), await seen(near.send_all(b"x"))]


async def orderly_close(near: Stream, far: Stream) -> list[object]:
    await near.send_all(b"data")
    near.close()
    return [*await read_all(far), *await read_all(far), await seen(near.receive_some())]


async def write_after_fin(near: Stream, far: Stream) -> list[object]:
    await near.send_all(b"data")
    await near.send_eof()
    await near.send_eof()
    got = await read_all(far)
    await far.send_all(b"answer")
    far.close()
    return [*got, *await read_all(near), await seen(near.send_all(b"x"))]


async def write_to_one_who_closed(near: Stream, far: Stream) -> list[object]:
    await far.send_all(b"last words")
    far.close()
    await arrived(near)
    first = await seen(near.send_all(b"1"))
    await trio.testing.wait_all_tasks_blocked()
    return [first, await seen(near.send_all(b"2")), *await read_all(near)]


async def read_the_end_after_a_write_was_answered_with_a_reset(near: Stream, far: Stream) -> list[object]:
    await far.send_all(b"last words")
    far.close()
    await arrived(near)
    await near.send_all(b"1")
    return [*await read_all(near)]


async def a_write_takes_the_reset(near: Stream, far: Stream) -> list[object]:
    await far.send_all(b"data")
    far.reset()
    await arrived(near)
    return [await seen(near.send_all(b"x")), await seen(near.receive_some()), await seen(near.receive_some())]


async def fill(stream: Stream) -> int:
    sent = 0
    while took := stream.write_now([bytes(65_536)]):
        sent += took
    return sent


async def a_reset_loses_what_was_not_sent(near: Stream, far: Stream) -> list[object]:
    sent = await fill(near)
    near.reset()
    got, how = await read_all(far)
    return [len(got) < sent, how]


async def a_close_loses_nothing(near: Stream, far: Stream) -> list[object]:
    sent = await fill(near)
    near.close()
    got, how = await read_all(far)
    return [len(got) == sent, how]


async def full_until_read(near: Stream, far: Stream) -> list[object]:
    await fill(near)
    with trio.move_on_after(0.05) as waiting:
        await near.wait_send_all_might_not_block()
    await far.receive_some(BIG)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, far)
        writable = await seen(near.wait_send_all_might_not_block())
        near.close()
    return [waiting.cancelled_caught, writable]


async def own_close_wakes_who_waits(near: Stream, far: Stream) -> list[object]:
    results: list[object] = []
    await fill(near)

    async def note(operation: Awaitable[object]) -> None:
        results.append(await seen(operation))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, near.receive_some())
        nursery.start_soon(note, near.wait_send_all_might_not_block())
        await trio.testing.wait_all_tasks_blocked()
        near.close()
    return results


async def a_reset_wakes_who_waits(near: Stream, far: Stream) -> list[object]:
    results: list[object] = []

    async def note(operation: Awaitable[object]) -> None:
        results.append(await seen(operation))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, near.receive_some())
        await trio.testing.wait_all_tasks_blocked()
        far.reset()
    return [*results, await seen(near.send_all(b"x"))]


SCRIPTS = [
    data_then_reset,
    close_with_unread_input,
    orderly_close,
    write_after_fin,
    write_to_one_who_closed,
    read_the_end_after_a_write_was_answered_with_a_reset,
    a_write_takes_the_reset,
    a_reset_loses_what_was_not_sent,
    a_close_loses_nothing,
    full_until_read,
    own_close_wakes_who_waits,
    a_reset_wakes_who_waits,
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
async def test_the_same_script_shows_the_same(script: Script) -> None:
    near, far = tcp_pair()
    try:
        real = await script(near, far)
    finally:
        near.close()
        far.close()
    for conditions in (Conditions(), Conditions(split=0.5, merge=0.3, short_writes=0.3, segment_bytes=1460)):
        assert await script(*Network(1, conditions).pair()) == real


@pytest.mark.parametrize("seed", range(3))
async def test_a_reset_may_take_a_suffix_with_it_that_follows_from_the_seed(seed: int) -> None:
    async def received(seed: int) -> int:
        near, far = Network(seed, Conditions(lost_by_reset=1.0)).pair()
        await near.send_all(bytes(1000))
        near.reset()
        got, how = await read_all(far)
        assert how == "BrokenResourceError"
        return len(got)

    assert await received(seed) == await received(seed) < 1000
