"""A simulated history follows from its seed, and from nothing else; one that does not end is given up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import iii_trio
from iii_trio.testing import Conditions, HistoryStuck, World, simulate

ROUGH = Conditions(
    delay_seconds=0.01,
    jitter_seconds=0.02,
    bytes_per_second=50_000,
    segment_bytes=400,
    split=0.3,
    merge=0.5,
    short_writes=0.2,
)


async def count_a_stream(world: World) -> int:
    """Two workers; one streams to the other, which counts."""

    async def serve(worker: iii_trio.Worker) -> None:
        async def count(source: iii_trio.ChannelReader) -> int:
            return sum([len(item) async for item in source])

        worker.register_function("count", count)
        await trio.sleep_forever()

    await world.start_worker("counter", serve)
    async with (
        world.open_worker("source") as worker,
        worker.create_channel() as channel,
        trio.open_nursery() as nursery,
    ):
        await trio.sleep(1)
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await worker.trigger("count", {"source": channel.reader}))

        nursery.start_soon(ask)
        for _ in range(20):
            await channel.writer.send(bytes(world.random.randrange(1, 2000)))
        await channel.writer.aclose()
    return answers[0]


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = (simulate(count_a_stream, 7, conditions=ROUGH) for _ in range(2))
    assert first == second
    assert [channel.outcome for channel in first.ended] == ["completed"]
    assert first.seconds > 1


def test_another_seed_gives_another_history() -> None:
    histories = [simulate(count_a_stream, seed, conditions=ROUGH).transcript for seed in range(5)]
    assert len(set(histories)) == 5


@given(st.integers(0, 2**32))
@settings(max_examples=5, deadline=None)
def test_within_hypothesis_the_schedule_follows_from_the_drawn_seed(seed: int) -> None:
    assert simulate(count_a_stream, seed).transcript == simulate(count_a_stream, seed).transcript


def test_a_history_repeats_in_another_process_with_other_hashes() -> None:
    program = (
        f"import sys, zlib; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from tests.testing.test_simulation import *\n"
        "print(zlib.crc32(str(simulate(count_a_stream, 11, conditions=ROUGH)).encode()))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_zero_delay_takes_zero_time() -> None:
    async def talk(world: World) -> float:
        async with world.open_worker("a") as worker, worker.create_channel() as channel:
            writer, reader = channel.writer, worker.open_reader(channel.reader_ref)
            await writer.send(b"x")
            assert await reader.receive() == b"x"
            writer.abort("enough")
            with pytest.raises(iii_trio.ChannelBroken, match="enough"):
                await reader.receive()
            return world.now

    assert simulate(talk).value == 0.0


def test_a_deadlock_is_given_up_with_the_last_events() -> None:
    async def wait_for_ever(world: World) -> None:
        world.note("somebody", "waits")
        await trio.sleep_forever()

    with pytest.raises(HistoryStuck, match="virtual seconds") as caught:
        simulate(wait_for_ever, 3)
    assert "somebody waits" in "".join(caught.value.__notes__)
    assert "seed 3" in "".join(caught.value.__notes__)


def test_a_livelock_is_given_up_though_time_stands_still() -> None:
    async def spin(world: World) -> None:
        while True:
            await trio.lowlevel.checkpoint()

    with pytest.raises(HistoryStuck, match="after 10000 steps"):
        simulate(spin, max_steps=10_000)


def test_what_is_left_in_the_engine_is_told() -> None:
    async def leave_a_worker(world: World) -> None:
        async def stay() -> None:
            async with world.open_worker("stays"):
                await trio.sleep_forever()

        world.nursery.start_soon(stay)
        await trio.sleep(1)

    with pytest.raises(AssertionError, match="the engine holds"):
        simulate(leave_a_worker)


def test_a_failure_leaves_as_itself() -> None:
    async def fail(world: World) -> None:
        async with world.open_worker("a"):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        simulate(fail)
