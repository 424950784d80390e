"""Channels across nodes, over a model of the store in virtual time: all mixtures of ends (promises N10 to N14)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio.errors import CallError, ChannelBroken

from .mesh_world import LEASE_SECONDS, mesh_world

ENDS = [(writer, reader) for writer in "ab" for reader in "ab"]
ITEMS = [b"first", "zwölf", b"", b"x" * 300_000, "last"]


@pytest.mark.parametrize("over", ["memory", "network"])
@pytest.mark.parametrize(("writer_at", "reader_at"), ENDS)
async def test_N10_a_channel_passes_items_between_any_two_nodes_and_ends_alike_for_all(
    writer_at: str, reader_at: str, over: str, autojump_clock: MockClock
) -> None:
    async with (
        mesh_world("a", "b") as world,
        world.open_worker("a", "owner") as owner,
        world.open_worker(writer_at, "w", over) as w,
        world.open_worker(reader_at, "r", over) as r,
        owner.create_channel() as channel,
        trio.open_nursery() as nursery,
    ):
        assert channel.writer.channel_id.endswith(".a")
        writer, reader = w.open_writer(channel.writer.ref), r.open_reader(channel.reader.ref)

        async def write() -> None:
            async with writer:
                for item in ITEMS:
                    await writer.send(item)

        nursery.start_soon(write)
        assert [item async for item in reader] == ITEMS
        for end in (writer, reader):
            with trio.fail_after(30):
                assert (await end.wait_outcome()).outcome == "completed"


async def broken_end(end: iii_trio.ChannelReader | iii_trio.ChannelWriter) -> ChannelBroken:
    """Use an end until it breaks."""
    with pytest.raises(ChannelBroken) as caught, trio.fail_after(200):
        while True:
            if isinstance(end, iii_trio.ChannelReader):
                await end.receive()
            else:
                await end.send(b"x" * 10_000)
                await trio.sleep(0.01)
    return caught.value


@pytest.mark.parametrize(("writer_at", "reader_at"), [("b", "a"), ("b", "b"), ("a", "b")])
async def test_N11_an_abort_and_a_cancellation_pass_with_their_reasons(
    writer_at: str, reader_at: str, autojump_clock: MockClock
) -> None:
    async with mesh_world("a", "b") as world, world.open_worker("a", "owner") as owner:
        for side in ("writer", "reader"):
            async with (
                world.open_worker(writer_at, "w", "network") as w,
                world.open_worker(reader_at, "r", "network") as r,
                owner.create_channel() as channel,
            ):
                writer, reader = w.open_writer(channel.writer.ref), r.open_reader(channel.reader.ref)
                await writer.send(b"one")
                assert await reader.receive() == b"one"
                if side == "writer":
                    writer.abort("no more", "out_of_stock")
                    error = await broken_end(reader)
                    assert (error.outcome, error.reason, error.code) == ("aborted", "no more", "out_of_stock")
                else:
                    reader.cancel("enough", "sated")
                    error = await broken_end(writer)
                    assert (error.outcome, error.reason, error.code) == ("reader_cancelled", "enough", "sated")


@pytest.mark.parametrize("lost", ["writer", "reader"])
@pytest.mark.parametrize("other_at", ["a", "b"])
async def test_N12_a_worker_lost_at_another_node_ends_its_end_at_once(
    lost: str, other_at: str, autojump_clock: MockClock
) -> None:
    async with mesh_world("a", "b") as world, world.open_worker("a", "owner") as owner:
        here, there = ("b", other_at) if lost == "writer" else (other_at, "b")
        async with (
            world.open_worker(here, "w", "network") as w,
            world.open_worker(there, "r", "network") as r,
            owner.create_channel() as channel,
        ):
            writer, reader = w.open_writer(channel.writer.ref), r.open_reader(channel.reader.ref)
            await writer.send(b"one")
            assert await reader.receive() == b"one"
            began = trio.current_time()
            world.drop_worker("w" if lost == "writer" else "r")
            error = await broken_end(reader if lost == "writer" else writer)
            assert error.outcome == f"{lost}_lost"
            assert trio.current_time() - began < 0.1


@pytest.mark.parametrize(("writer_at", "reader_at"), [("b", "a"), ("a", "b")])
async def test_N13_a_lost_node_is_no_clean_end(writer_at: str, reader_at: str, autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b", "c") as world, world.open_worker("a", "owner") as owner:
        async with (
            world.open_worker(writer_at, "w") as w,
            world.open_worker(reader_at, "r") as r,
            owner.create_channel() as channel,
        ):
            writer, reader = w.open_writer(channel.writer.ref), r.open_reader(channel.reader.ref)
            await writer.send(b"one")
            assert await reader.receive() == b"one"
            world.cut("a", "b")
            left = {"a": writer, "b": reader} if writer_at == "a" else {"a": reader, "b": writer}
            assert (await broken_end(left["a"])).outcome in ("writer_lost", "reader_lost")
            assert (await broken_end(left["b"])).outcome in ("writer_lost", "reader_lost", "owner_lost")


async def test_N14_a_fast_writer_waits_for_a_slow_reader_of_another_node(autojump_clock: MockClock) -> None:
    async with (
        mesh_world("a", "b") as world,
        world.open_worker("a", "owner") as owner,
        world.open_worker("b", "w", "network") as w,
        owner.create_channel(max_bytes=100_000) as channel,
    ):
        writer, reader = w.open_writer(channel.writer.ref), owner.open_reader(channel.reader.ref)
        sent = 0
        with trio.move_on_after(30):
            while True:
                await writer.send(b"x" * 10_000)
                sent += 1
        assert sent < 200
        assert await reader.receive() == b"x" * 10_000


async def test_a_channel_of_a_node_that_is_gone_is_lost_and_of_an_unknown_one_unreachable(
    autojump_clock: MockClock,
) -> None:
    async with mesh_world("a", "b") as world, world.open_worker("b", "w") as w:
        async with world.open_worker("a", "owner") as owner, owner.create_channel() as channel:
            ref = channel.writer.ref
        await world.stop("a")
        await world.until(lambda: "a" not in world["b"].cluster.directory.nodes)
        with pytest.raises(ChannelBroken, match="owner_lost: node a is gone"):
            await w.open_writer(ref).send(b"x")
        unknown = {**ref.to_json(), "channel_id": "1234.elsewhere"}
        with pytest.raises(iii_trio.ConnectionFailed, match="node elsewhere, which has the channel, cannot be reached"):
            await w.open_writer(unknown).send(b"x")


@pytest.mark.parametrize("apart", ["from one", "from all"])
async def test_N13_a_node_that_falls_silent_is_no_clean_end_within_three_leases(
    autojump_clock: MockClock, apart: str
) -> None:
    async with mesh_world("a", "b", "c") as world:
        async with world.open_worker("a", "one") as one, world.open_worker("b", "two") as two:

            @one.function("give")
            async def give(writer: iii_trio.ChannelWriter) -> None:
                while True:
                    await writer.send("x")
                    await trio.sleep(0.1)

            await one.wait_registered()
            await world.settle()
            async with two.create_channel() as channel, trio.open_nursery() as nursery:

                async def ask() -> None:
                    with pytest.raises(CallError, match="invocation_stopped"):
                        await two.trigger("give", {"writer": channel.writer.ref})

                nursery.start_soon(ask)
                got = 0
                with pytest.raises(ChannelBroken) as broken, trio.fail_after(3 * LEASE_SECONDS + 2):
                    async for _ in channel.reader:
                        got += 1
                        # Everything vanishes from here on, and no connection ends.
                        if got == 20:
                            world.silence("a", "b")
                            if apart == "from all":
                                world.silence("a", "c")
                                world.cut_from_store("a")
                assert got >= 20 and broken.value.outcome == "writer_lost"
            # Its session is gone, so nothing of it waits for the heartbeat of workers.
            assert not [each for each in world["b"].engine._shell.hub.sessions.values() if _is_link_of(each, "a")]
            world.hear("a", "b")
            world.hear("a", "c")
            world.reach_store("a")
            await world.until(lambda: world.agreed)


def _is_link_of(session: Any, node: str) -> bool:
    return bool(session.relays) and str(session.info.name).startswith(f"node {node} (")


async def test_N13_a_node_that_has_lost_only_the_store_keeps_its_streams(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world:
        async with world.open_worker("a", "one") as one, world.open_worker("b", "two") as two:
            async with two.create_channel() as channel:
                async with one.open_writer(channel.writer.ref) as writer:
                    world.cut_from_store("a")
                    for number in range(60):
                        await writer.send(str(number))
                        assert await channel.reader.receive() == str(number)
                        await trio.sleep(LEASE_SECONDS / 10)
                assert "a" not in world["b"].cluster.directory.nodes
