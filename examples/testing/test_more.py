"""The other tools of the kit, each used once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given, settings

import iii_trio
from iii_trio.conformance import CHECKS, Verdict, run_check
from iii_trio.testing import (
    Conditions,
    Conversation,
    History,
    World,
    cancel_everywhere,
    check_channel,
    check_job_store,
    check_lifecycle,
    simulate,
    simulate_conversation,
)
from iii_trio.testing.channel_machine import ChannelMachine
from iii_trio.testing.strategies import conversations
from iii_trio.triggers.queue.sqlite_store import SqliteStore

LINES = ["one", "two", "three"]


# --- simulate

ROUGH = Conditions(delay_seconds=0.05, jitter_seconds=0.02, segment_bytes=100, split=0.3, lost_by_reset=1.0)


async def lose_the_network(world: World) -> str:
    async with world.open_worker("near") as near, world.open_worker("far") as far, near.create_channel() as channel:
        writer = far.open_writer(channel.writer_ref)
        await writer.send("one")
        assert await channel.reader.receive() == "one"
        world.network.partition("far")
        with pytest.raises(iii_trio.ChannelBroken) as caught:
            await channel.reader.receive()
        return str(caught.value.outcome)


def test_a_lost_network_cuts_the_stream() -> None:
    history: History = simulate(lose_the_network, seed=7, conditions=ROUGH)
    assert history.value == "writer_lost"
    assert simulate(lose_the_network, seed=7, conditions=ROUGH) == history  # event for event


# --- conversations


@given(conversation=conversations(), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_every_conversation_keeps_the_promises(conversation: Conversation, seed: int) -> None:
    simulate_conversation(conversation, seed)


# --- cancel_everywhere


async def take(seen: dict[str, Any]) -> None:
    async for line in seen["reader"]:
        seen["taken"].append(line)


async def three_lines(seen: dict[str, Any], run: Any) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker, worker.create_channel() as channel:
        async with channel.writer as writer:
            for line in LINES:
                await writer.send(line)
        seen |= {"reader": channel.reader, "taken": []}
        await run()
        seen["left"] = [line async for line in channel.reader]


def nothing_is_lost(seen: dict[str, Any]) -> None:
    assert seen["taken"] + seen["left"] == LINES


def test_a_cancelled_taker_loses_no_line() -> None:
    cancel_everywhere(take, nothing_is_lost, around=three_lines)


# --- contracts and lifecycles


async def test_my_channels_keep_the_contract(iii_worker: iii_trio.Worker) -> None:
    async def make() -> tuple[iii_trio.ChannelWriter, iii_trio.ChannelReader]:
        refs = await iii_worker.trigger("engine::channels::create", {})
        return iii_worker.open_writer(refs["writer"]), iii_worker.open_reader(refs["reader"])

    await check_channel(make)


def test_the_lifecycle_has_no_dead_end() -> None:
    from iii_trio.core.channel import CHANNEL, ChannelState

    check_lifecycle(CHANNEL, start=ChannelState.ALLOCATED, end_well=ChannelState.COMPLETED)


# --- stores of jobs


def test_my_store_keeps_jobs(tmp_path: Path) -> None:
    check_job_store(lambda: SqliteStore(tmp_path))


# --- the machine


class TestChannels(ChannelMachine.TestCase):  # type: ignore[misc]
    settings = settings(deadline=None, max_examples=10, stateful_step_count=20)


# --- fixtures


async def test_five_minutes_pass_at_once(iii_clock: Any, iii_worker: iii_trio.Worker) -> None:
    async with iii_worker.create_channel() as channel:
        async with channel.writer as writer:
            await writer.send("hello")
        await trio.sleep(299)  # of virtual time: the channel expires after 300 seconds
        assert await channel.reader.receive() == "hello"


# --- conformance


SOME = [check for check in CHECKS if check.__name__.startswith("C2_1")]


@pytest.mark.parametrize("check", SOME, ids=lambda check: check.__name__)
async def test_my_engine_keeps_the_clause(check: Any) -> None:
    async with iii_trio.open_engine() as engine:
        [url] = await engine.listen(iii_trio.Listener("127.0.0.1", 0))
        assert (await run_check(check, url)).verdict is Verdict.KEPT
