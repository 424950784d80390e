"""C7: what can be seen of a channel."""

from __future__ import annotations

import pytest
import trio

from iii_trio.wire import RegisterFunction, encode
from tests.helpers.clause_world import (
    WEBSOCKET,
    Clock,
    World,
)


async def test_C7_1_every_open_channel_can_be_looked_at(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    owner, writers, readers = [await world.worker() for _ in range(3)]
    wref, rref = await owner.create_channel(buffer_size=4)
    (view,) = world.engine.channels()
    ids = [peer.identity.worker_id for peer in (owner, writers, readers)]
    assert (view.id, view.phase, view.owner, view.writer, view.reader) == (
        wref.channel_id,
        "allocated",
        ids[0],
        None,
        None,
    )
    await trio.sleep(10)
    writer = await world.writer(writing, wref, writers)
    for _ in range(3):
        await writer.put(b"x" * 1000)
    await world.settle()
    await trio.sleep(5)
    (view,) = world.engine.channels()
    assert (view.phase, view.writer, view.reader) == ("awaiting_reader", ids[1], None)
    assert (view.age_seconds, view.idle_seconds) == (15, 5)
    assert (view.items_waiting, view.bytes_waiting, view.bytes_peak) == (3, 3000, 3000)
    assert (view.items_passed, view.bytes_passed, view.waiting) == (0, 0, "")
    await writer.put(b"y")
    await world.settle()
    assert world.engine.channels()[0].waiting == "writer for reader"
    reader = await world.reader(reading, rref, readers)
    for _ in range(4):
        await reader.take()
    await world.settle()
    (view,) = world.engine.channels()
    assert (view.phase, view.writer, view.reader) == ("flowing", ids[1], ids[2])
    assert (view.items_waiting, view.bytes_waiting, view.bytes_peak) == (0, 0, 3001)
    assert (view.items_passed, view.bytes_passed, view.waiting) == (4, 3001, "reader for writer")
    writer.abort("done")
    await world.settle()
    assert world.engine.channels() == []


@pytest.mark.parametrize("which", ["writer", "reader"])
async def test_C7_2_a_lost_end_is_told_with_the_name_of_its_worker(
    autojump_clock: Clock, world: World, writing: str, reading: str, which: str
) -> None:
    owner, holder = await world.worker(), await world.worker(WEBSOCKET)
    holder.link.send(encode(RegisterFunction("x::y")))
    await holder.call("engine::workers::register", name="resizer", features=["iii-trio.v1"])
    wref, rref = await owner.create_channel()
    scope = trio.CancelScope()
    if which == "writer":
        await world.writer(writing, wref, holder, scope)
        end = await world.reader(reading, rref, owner)
    else:
        await world.reader(reading, rref, holder, scope)
        end = await world.writer(writing, wref, owner)  # type: ignore[assignment]
    scope.cancel()
    told = await end.wait_ended()
    assert told.outcome == f"{which}_lost"
    assert "resizer" in told.reason and which in told.reason


async def test_C7_2_a_sessions_end_is_told_with_its_name_and_its_cause(
    autojump_clock: Clock, world: World, writing: str
) -> None:
    owner = await world.worker(WEBSOCKET)
    await owner.call("engine::workers::register", name="resizer", features=["iii-trio.v1"])
    wref, _ = await owner.create_channel()
    writer = await world.writer(writing, wref)
    owner.link.close("it went home")
    told = await writer.wait_ended()
    assert told.outcome == "owner_lost"
    assert "resizer" in told.reason and "it went home" in told.reason
