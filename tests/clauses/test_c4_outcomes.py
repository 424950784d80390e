"""The table of outcomes (C4.7): whatever ends a channel, everybody is told the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from iii_trio.errors import ChannelBroken
from tests.helpers.clause_world import (
    IN_PROCESS,
    WEBSOCKET,
    Clock,
    Peer,
    ReadingEnd,
    World,
    WritingEnd,
    error_of,
    put_all,
    take_all,
)


@attrs.define(eq=False)
class Scene:
    """A channel of one session, whose ends are held by two others; and one who only looks on."""

    world: World
    owner: Peer
    writers_session: Peer
    readers_session: Peer
    unaware: Peer
    bystander: Peer
    writer: WritingEnd
    reader: ReadingEnd
    writers_task: trio.CancelScope
    readers_task: trio.CancelScope
    channel_id: str


async def set_scene(world: World, writing: str, reading: str) -> Scene:
    owner, writers, readers, bystander = [await world.worker(kind) for kind in (writing, writing, reading, WEBSOCKET)]
    unaware = await world.worker(WEBSOCKET, feature=False)
    wref, rref = await owner.create_channel()
    tasks = trio.CancelScope(), trio.CancelScope()
    writer = await world.writer(writing, wref, writers, tasks[0])
    reader = await world.reader(reading, rref, readers, tasks[1])
    await writer.put("first")
    assert await reader.take() == "first"
    return Scene(world, owner, writers, readers, unaware, bystander, writer, reader, *tasks, wref.channel_id)


async def complete(scene: Scene) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all, scene.writer, ["last"])
        assert await take_all(scene.reader) == ["last"]


async def abort(scene: Scene) -> None:
    scene.writer.abort("the disk is full", "no_space")


async def cancel(scene: Scene) -> None:
    scene.reader.cancel("seen enough", "done")


async def cancel_writers_task(scene: Scene) -> None:
    scene.writers_task.cancel()


async def cancel_readers_task(scene: Scene) -> None:
    scene.readers_task.cancel()


async def end_writers_session(scene: Scene) -> None:
    scene.writers_session.link.close("went home")


async def end_readers_session(scene: Scene) -> None:
    scene.readers_session.link.close("went home")


async def end_owners_session(scene: Scene) -> None:
    scene.owner.link.close("went home")


async def close_engine(scene: Scene) -> None:
    scene.world.shell.close("going down")


Cause = Callable[[Scene], Awaitable[None]]
CAUSES: list[tuple[Cause, str, str, str | None]] = [
    (complete, "completed", "", None),
    (abort, "aborted", "the disk is full", "no_space"),
    (cancel_writers_task, "writer_lost", "", None),
    (end_writers_session, "writer_lost", "went home", None),
    (cancel, "reader_cancelled", "seen enough", "done"),
    (cancel_readers_task, "reader_lost", "", None),
    (end_readers_session, "reader_lost", "went home", None),
    (end_owners_session, "owner_lost", "went home", None),
    (close_engine, "engine_closed", "going down", None),
]


@pytest.mark.parametrize(("cause", "outcome", "reason", "code"), CAUSES, ids=[cause.__name__ for cause, *_ in CAUSES])
async def test_C4_7_every_outcome_is_reported_alike_to_all(
    autojump_clock: Clock,
    world: World,
    writing: str,
    reading: str,
    cause: Cause,
    outcome: str,
    reason: str,
    code: str | None,
) -> None:
    scene = await set_scene(world, writing, reading)
    began = trio.current_time()
    await cause(scene)
    await world.settle()
    # the engine
    (ended,) = world.engine.ended_channels()
    assert (ended.id, ended.outcome, ended.code) == (scene.channel_id, outcome, code)
    assert reason in ended.reason
    assert not world.engine.channels()
    assert world.engine.statistics().attached_channels == 0
    # both ends
    ends = await scene.writer.wait_ended(), await scene.reader.wait_ended()
    assert [end.outcome for end in ends] == [outcome, outcome]
    mine = {"abort": 0, "cancel_writers_task": 0, "cancel": 1, "cancel_readers_task": 1}.get(cause.__name__)
    assert all(end.reason == ended.reason for which, end in enumerate(ends) if which != mine)
    assert all(end.code == code for end in ends)
    if outcome == "completed":
        with pytest.raises(trio.EndOfChannel):
            await scene.reader.take()
        with pytest.raises(trio.ClosedResourceError):
            await scene.writer.put(b"more")
    else:
        for operation, args, which in ((scene.reader.take, (), 1), (scene.writer.put, (b"more",), 0)):
            if which != mine:
                error = await error_of(operation, *args)
                assert (error.outcome, error.reason) == (outcome, ended.reason)
                assert error.code == (code or outcome)
    # `channelended` (C8.3), once, to those whom it concerns and who are still there
    gone = {
        "end_writers_session": [scene.writers_session],
        "end_readers_session": [scene.readers_session],
        "end_owners_session": [scene.owner],
    }.get(cause.__name__, [])
    for peer in (scene.owner, scene.writers_session, scene.readers_session):
        if peer not in gone:
            assert peer.ended() == [(scene.channel_id, outcome)]
    assert scene.bystander.ended() == scene.unaware.ended() == []
    assert trio.current_time() == began


async def test_C8_3_who_has_not_announced_the_feature_is_not_told_though_it_owns_and_holds(
    autojump_clock: Clock, world: World
) -> None:
    unaware = await world.worker(WEBSOCKET, feature=False)
    wref, rref = await unaware.create_channel()
    writer, reader = await world.writer(WEBSOCKET, wref, unaware), await world.reader(WEBSOCKET, rref, unaware)
    writer.abort("x")
    await reader.wait_ended()
    await world.settle()
    assert unaware.ended() == []


async def test_C8_3_who_owns_and_holds_is_told_once(autojump_clock: Clock, world: World, writing: str) -> None:
    owner = await world.worker(WEBSOCKET)
    wref, rref = await owner.create_channel()
    writer, reader = await world.writer(writing, wref, owner), await world.reader(writing, rref, owner)
    reader.cancel("enough")
    await writer.wait_ended()
    await world.settle()
    assert owner.ended() == [(wref.channel_id, "reader_cancelled")]


async def test_C8_3_a_writers_session_is_still_told_when_the_reader_has_everything(
    autojump_clock: Clock, world: World, reading: str
) -> None:
    """The writer is through long before the reader: it completes `wait_outcome`."""
    owner, writers, readers = [await world.worker(WEBSOCKET) for _ in range(3)]
    wref, rref = await owner.create_channel()
    writer = await world.writer(WEBSOCKET, wref, writers)
    await put_all(writer, ["x"])
    reader = await world.reader(reading, rref, readers)
    await world.settle()
    if reading == IN_PROCESS:
        assert writers.ended() == []
    assert await take_all(reader) == ["x"]
    await world.settle()
    assert [peer.ended() for peer in (owner, writers, readers)] == [[(wref.channel_id, "completed")]] * 3


@pytest.mark.parametrize("waiting", ["writer", "reader"])
async def test_C4_7_an_expired_channel_is_reported_to_its_one_end(
    autojump_clock: Clock, world: World, writing: str, waiting: str
) -> None:
    owner, holder = await world.worker(), await world.worker(WEBSOCKET)
    wref, rref = await owner.create_channel()
    attach, ref = (world.writer, wref) if waiting == "writer" else (world.reader, rref)
    end = await attach(writing, ref, holder)
    told = await end.wait_ended()
    await world.settle()
    assert (told.outcome, told.reason) == await world.outcome()
    assert holder.ended() == owner.ended() == [(wref.channel_id, "expired")]


async def test_C4_7_a_history_of_many_channels_leaves_nothing(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    owner = await world.worker()
    held = world.held()
    for n in range(30):
        wref, rref = await owner.create_channel()
        writer, reader = await world.writer(writing, wref, owner), await world.reader(reading, rref, owner)
        await writer.put(b"x" * n)
        if n % 3 == 0:
            writer.abort("a")
        elif n % 3 == 1:
            reader.cancel("b")
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.close)
                assert len(await take_all(reader)) == 1
    await trio.sleep(6)
    assert world.held() == held
    assert owner.ended() and len(world.engine.ended_channels()) == 30


async def test_C4_8_ending_twice_is_harmless(autojump_clock: Clock, world: World, writing: str, reading: str) -> None:
    owner = await world.worker()
    for first in ("abort", "cancel"):
        wref, rref = await owner.create_channel()
        writer, reader = await world.writer(writing, wref, owner), await world.reader(reading, rref, owner)
        for _ in range(2):
            for end in (first, "abort", "cancel"):
                if end == "abort":
                    writer.abort("no good")
                else:
                    reader.cancel("enough")
                await world.settle()
        assert (await world.outcome())[0] == {"abort": "aborted", "cancel": "reader_cancelled"}[first]
        with pytest.raises(ChannelBroken):
            await reader.take()


async def test_C4_8_after_the_clean_end_there_is_only_the_end(
    autojump_clock: Clock, world: World, writing: str, reading: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    writer, reader = await world.writer(writing, wref, owner), await world.reader(reading, rref, owner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all, writer, [b"x"])
        assert await take_all(reader) == [b"x"]
    for _ in range(3):
        with pytest.raises(trio.EndOfChannel):
            await reader.take()
        with pytest.raises(trio.ClosedResourceError):
            await writer.put(b"x")
    reader.cancel("too late")
    writer.abort("too late")
    assert await world.outcome() == ("completed", "")
