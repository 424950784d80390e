"""C5: cancellation, and who owns an end."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from iii_trio.errors import ChannelBroken
from iii_trio.testing.cancelling import Run, Seen, cancel_everywhere
from tests.helpers.clause_world import (
    ENDS,
    IN_PROCESS,
    WAITED,
    WEBSOCKET,
    Clock,
    World,
    open_world,
    put_all,
    take_all,
)

# --- C5.1


@pytest.mark.parametrize("kind", ENDS)
def test_C5_1_a_cancelled_receive_loses_nothing(kind: str) -> None:
    items: list[bytes | str] = ["a", b"b" * 100_000, "c", b"", "e"]

    async def take_four(seen: Seen) -> None:
        for _ in range(4):
            seen["got"].append(await seen["reader"].take())

    async def around(seen: Seen, run: Run) -> None:
        async with open_world() as world:
            owner = await world.worker()
            wref, rref = await owner.create_channel(buffer_size=2)
            writer = await world.writer(IN_PROCESS, wref, owner)
            reader = seen["reader"] = await world.reader(kind, rref, owner)
            seen["got"] = []
            world.nursery.start_soon(put_all, writer, items)
            await run()
            seen["rest"] = await take_all(reader)

    def check(seen: Seen) -> None:
        assert seen["got"] + seen["rest"] == items

    assert cancel_everywhere(take_four, check, around=around) >= 4


@pytest.mark.parametrize("kind", ENDS)
def test_C5_1_a_cancelled_send_has_put_the_whole_item_or_none_of_it(kind: str) -> None:
    items: list[bytes | str] = [bytes([n]) * 400_000 for n in range(4)]

    async def put(seen: Seen) -> None:
        for item in items:
            await seen["writer"].put(item)
            seen["put"] += 1

    async def around(seen: Seen, run: Run) -> None:
        async with open_world() as world:
            owner = await world.worker()
            wref, rref = await owner.create_channel(buffer_size=1)
            writer = seen["writer"] = await world.writer(kind, wref, owner)
            reader = await world.reader(IN_PROCESS, rref, owner)
            seen["put"], seen["got"] = 0, []

            async def read_slowly() -> None:
                while True:
                    await trio.sleep(1)
                    seen["got"].append(await reader.take())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_slowly)
                await run()
                nursery.cancel_scope.cancel()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.close)
                seen["got"] += await take_all(reader)

    def check(seen: Seen) -> None:
        assert seen["got"] == items[: seen["put"]]

    cancel_everywhere(put, check, around=around)


@pytest.mark.parametrize("kind", ENDS)
def test_C5_1_a_cancelled_close_never_looks_complete_unless_it_is(kind: str) -> None:
    async def write(seen: Seen) -> None:
        await put_all(seen["writer"], seen["items"])
        seen["closed"] = True

    async def around(seen: Seen, run: Run) -> None:
        seen["items"] = [b"x" * 300_000] * 3
        seen["closed"] = seen["ended"] = False
        async with open_world() as world:
            owner = await world.worker()
            wref, rref = await owner.create_channel(buffer_size=1)
            scope = trio.CancelScope()
            seen["writer"] = await world.writer(kind, wref, owner, scope)
            reader = await world.reader(WEBSOCKET, rref, owner)

            async def read() -> None:
                try:
                    seen["got"] = await take_all(reader)
                    seen["ended"] = True
                except ChannelBroken:
                    pass

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await run()
                await world.settle()
                scope.cancel()  # its task ends with it

    def check(seen: Seen) -> None:
        if seen["ended"]:
            assert seen["got"] == seen["items"]
        if seen["closed"]:
            assert seen["ended"]

    cancel_everywhere(write, check, around=around)


@pytest.mark.parametrize("kind", [WEBSOCKET, WAITED])
async def test_C5_3_a_close_that_is_cancelled_aborts_and_never_makes_a_part_look_like_all(
    autojump_clock: Clock, world: World, kind: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel(buffer_size=1)
    writer = await world.writer(kind, wref, owner)
    with trio.move_on_after(20) as scope:
        await put_all(writer, [b"x" * 90_000] * 5)
    assert scope.cancelled_caught
    assert writer.ended is not None and writer.ended.outcome == "aborted"
    reader = await world.reader(IN_PROCESS, rref, owner)
    try:  # what was on its way, our Close too, cannot be called back: then it is all there
        assert await take_all(reader) == [b"x" * 90_000] * 5
    except ChannelBroken as error:
        assert error.outcome in ("aborted", "writer_lost")
