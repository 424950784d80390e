"""What can go wrong in a simulated world goes wrong as it does in a real one."""

from __future__ import annotations

import logging

import pytest
import trio

import iii_trio
from iii_trio.config import EngineConfig, Timeouts
from iii_trio.testing import World, simulate
from iii_trio.testing.world import Over

BOTH = pytest.mark.parametrize("over", ["network", "memory"])


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


async def read_until_it_breaks(reader: iii_trio.ChannelReader) -> iii_trio.ChannelBroken:
    try:
        while True:
            await reader.receive()
    except iii_trio.ChannelBroken as error:
        return error


@BOTH
def test_a_writer_whose_process_dies_is_lost_at_once(over: Over) -> None:
    async def scenario(world: World) -> str:
        refs = {}

        async def write(worker: iii_trio.Worker) -> None:
            await worker.open_writer(refs["writer"]).send(b"some")
            await trio.sleep_forever()

        async with world.open_worker("reader") as worker, worker.create_channel() as channel:
            refs["writer"] = channel.writer_ref
            await world.start_worker("writer", write, over)
            assert await channel.reader.receive() == b"some"
            before = world.now
            world.crash_worker("writer")
            error = await read_until_it_breaks(channel.reader)
            assert world.now == before
            return error.outcome

    outcome = "writer_lost" if over == "network" else "aborted"  # in the engine's process it can but say goodbye
    history = simulate(scenario)
    assert history.value == outcome
    assert [channel.outcome for channel in history.ended] == [outcome]


@BOTH
def test_a_worker_that_crashed_can_be_started_again(over: Over) -> None:
    async def scenario(world: World) -> list[int]:
        lives = []

        async def serve(worker: iii_trio.Worker) -> None:
            lives.append(len(lives))
            worker.register_function("life", lambda: lives[-1])
            await trio.sleep_forever()

        await world.start_worker("server", serve, over)
        async with world.open_worker("caller") as worker:
            await world.settle()
            first = await worker.trigger("life")
            world.crash_worker("server")
            await world.settle()
            await world.restart_worker("server")
            await world.settle()
            return [first, await worker.trigger("life")]

    assert simulate(scenario).value == [0, 1]


@pytest.mark.parametrize(
    ("over", "crash", "outcome"),
    [("network", True, "reader_lost"), ("network", False, "engine_closed"), ("memory", False, "engine_closed")],
)
def test_an_engine_that_starts_again_is_found_again_by_its_workers(over: Over, crash: bool, outcome: str) -> None:
    async def scenario(world: World) -> str:
        async with world.open_worker("a", over) as worker, worker.create_channel() as channel:
            await channel.writer.send(b"x")
            assert await channel.reader.receive() == b"x"
            await world.restart_engine(crash=crash)
            await worker.wait_connected()
            assert world.now > 0
            async with worker.create_channel() as another:
                await another.writer.aclose()
                assert await another.reader.read_all() == b""
            return (await read_until_it_breaks(channel.reader)).outcome

    assert simulate(scenario).value == outcome


def test_a_partition_is_noticed_when_the_peer_has_been_silent_too_long_and_not_if_it_heals() -> None:
    async def scenario(world: World) -> tuple[float, str]:
        async with world.open_worker("a") as a, world.open_worker("b") as b, a.create_channel() as channel:
            writer = b.open_writer(channel.writer_ref)
            await writer.send(b"1")
            assert await channel.reader.receive() == b"1"
            world.network.partition("b")
            await writer.send(b"2")
            await trio.sleep(100)
            world.network.heal("b")
            assert await channel.reader.receive() == b"2"
            world.network.partition("b")
            cut = world.now
            error = await read_until_it_breaks(channel.reader)
            world.network.heal("b")
            return world.now - cut, error.outcome

    no_heartbeat = EngineConfig(timeouts=Timeouts(silent_worker_seconds=None))
    assert simulate(scenario, config=no_heartbeat).value == (150.0, "writer_lost")


def test_a_slow_line_holds_the_writer_back() -> None:
    async def scenario(world: World) -> float:
        async with world.open_worker("fast") as fast, fast.create_channel(buffer_size=2) as channel:
            async with world.open_worker("slow", bytes_per_second=1_000, receive_buffer_bytes=1_000) as slow:
                began = world.now
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(slow.open_reader(channel.reader_ref).read_all)
                    for _ in range(2_000):  # fewer than half of them fit into the buffers on the way
                        await channel.writer.send(bytes(1_000))
                    took = world.now - began
                    await channel.writer.aclose()
                return took

    assert 1_000 < simulate(scenario).value < 2_000


def test_a_worker_that_there_is_not_is_named_with_those_that_there_are() -> None:
    async def scenario(world: World) -> list[str]:
        said = []
        for name in ("files", "boats"):
            with pytest.raises(ValueError) as caught:
                world.crash_worker("nobody")
            said.append(str(caught.value))
            await world.start_worker(name)
        with pytest.raises(ValueError, match="has no worker 'nobody', it has files, boats:"):
            world.has_crashed("nobody")
        with pytest.raises(ValueError, match="has no worker 'nobody', it has files, boats:"):
            await world.restart_worker("nobody")
        return said

    assert simulate(scenario).value == [
        "this world has no worker 'nobody', it has none: start_worker starts one",
        "this world has no worker 'nobody', it has files: start_worker starts one",
    ]
