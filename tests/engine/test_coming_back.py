"""Clause C4.6: a lost worker that comes back with its token finds its channels and ends, if the engine grants a grace."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.config import EngineConfig, Timeouts
from iii_trio.transport.dial import SocketAddress
from iii_trio.worker import open_worker
from tests.helpers.bare import Bare, connected, within

HOUR = 3600
GRACE = EngineConfig(timeouts=Timeouts(reattach_grace_seconds=10, registration_grace_seconds=0))
STRICT = EngineConfig(timeouts=Timeouts(registration_grace_seconds=0))
CREATE = {
    "type": "invokefunction",
    "function_id": "engine::channels::create",
    "invocation_id": "11111111-1111-4111-8111-111111111111",
    "data": {},
}


async def created(bare: Bare) -> tuple[dict[str, Any], dict[str, Any]]:
    """The greeting of a worker, and the refs of a channel of its own."""
    hello = await bare.message()
    await bare.tell(**CREATE)
    while "result" not in (answer := await bare.message()):
        pass
    return hello, answer["result"]


def target(ref: dict[str, str]) -> str:
    return f"/ws/channels/{ref['channel_id']}?key={ref['access_key']}&dir={ref['direction']}"


async def come_back(bare: Bare, hello: dict[str, Any], *, token: str | None = None) -> dict[str, Any]:
    """Say who one was; the new greeting, once that has been read."""
    new = await bare.message()
    await bare.tell(
        type="reattach", previous_worker_id=hello["worker_id"], reattach_token=token or hello["reattach_token"]
    )
    await bare.tell(type="ping")
    while (await bare.message())["type"] != "pong":
        pass
    return new


def held(hello: dict[str, Any]) -> dict[str, str]:
    """What makes a session the holder of an end (clause C8.2)."""
    return {"Iii_Session": f"{hello['worker_id']} {hello['channel_secret']}"}


def owners(engine: iii_trio.Engine) -> list[str | None]:
    return [channel.owner for channel in engine.channels()]


@within(HOUR)
async def test_C4_6_without_a_grace_a_lost_owner_ends_its_channels_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with iii_trio.open_engine(STRICT) as engine:
        async with connected(engine) as bare:
            await created(bare)
        await trio.testing.wait_all_tasks_blocked()
        assert [ended.outcome for ended in engine.ended_channels()] == ["owner_lost"]


@within(HOUR)
async def test_C4_6_channels_and_ends_of_a_worker_that_is_back_in_time_go_on_as_its_new_sessions(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with iii_trio.open_engine(GRACE) as engine:
        async with connected(engine) as bare:
            hello, refs = await created(bare)
            async with connected(engine, target(refs["reader"])) as reader:
                async with connected(engine, target(refs["writer"]), **held(hello)) as writer:
                    await trio.aclose_forcefully(bare.stream)
                    await trio.sleep(9)
                    assert engine.statistics().sessions == 0
                    await writer.say(2, b"while it was away")
                    assert await reader.frame() == (2, b"while it was away")
                    async with connected(engine) as again:
                        new = await come_back(again, hello)
                        assert owners(engine) == [new["worker_id"]]
                        assert engine.channels()[0].writer == new["worker_id"]
                        await trio.sleep(100)  # the grace is long over, and nothing happens
                        await writer.say(2, b"and after")
                        assert await reader.frame() == (2, b"and after")
                        await trio.aclose_forcefully(again.stream)
                        await trio.sleep(11)  # now it is gone for good
                        opcode, _ = await reader.frame() or (0, b"")
                        assert opcode == 3  # the abort that any SDK's reader hears
        (ended,) = engine.ended_channels()
        assert ended.outcome == "writer_lost" and new["worker_id"] in ended.reason


@pytest.mark.parametrize("late", [True, False])
@within(HOUR)
async def test_C4_6_who_is_late_or_has_another_token_gets_nothing(
    autojump_clock: trio.testing.MockClock, late: bool
) -> None:
    async with iii_trio.open_engine(GRACE) as engine:
        async with connected(engine) as bare:
            hello, _ = await created(bare)
        await trio.sleep(11 if late else 1)
        async with connected(engine) as again:
            await come_back(again, hello, token=None if late else "11111111-1111-4111-8111-111111111112")
            assert owners(engine) == ([] if late else [hello["worker_id"]])
            await trio.sleep(11)
        assert [(ended.outcome, ended.owner) for ended in engine.ended_channels()] == [
            ("owner_lost", hello["worker_id"])
        ]


@pytest.mark.parametrize(("code", "waits"), [(1000, False), (1001, False), (1011, True)])
@within(HOUR)
async def test_C4_6_only_a_lost_worker_is_waited_for_not_one_that_left(
    autojump_clock: trio.testing.MockClock, code: int, waits: bool
) -> None:
    async with iii_trio.open_engine(GRACE) as engine:
        async with connected(engine) as bare:
            await created(bare)
            await bare.say(8, code.to_bytes(2, "big"))
            await trio.sleep(1)
            assert engine.statistics().sessions == 0
            assert engine.statistics().channels == waits


@within(HOUR)
async def test_C4_6_a_worker_may_be_back_before_its_old_link_is_found_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with iii_trio.open_engine(GRACE) as engine, connected(engine) as bare:
        hello, _ = await created(bare)
        async with connected(engine) as again:
            new = await come_back(again, hello)
            assert owners(engine) == [new["worker_id"]]
            assert engine.statistics().sessions == 1
            opcode, why = await bare.frame() or (0, b"")
            assert (opcode, why) == (8, b"\x0f\xaait came back as " + new["worker_id"].encode())


@within(HOUR)
async def test_C4_6_a_worker_that_is_silent_is_waited_for_too(autojump_clock: trio.testing.MockClock) -> None:
    async with iii_trio.open_engine(GRACE) as engine, connected(engine) as bare:
        hello, _ = await created(bare)
        while await bare.frame() is not None:
            pass
        async with connected(engine) as again:
            new = await come_back(again, hello)
            assert owners(engine) == [new["worker_id"]]


@within(HOUR)
async def test_C4_6_the_name_and_the_functions_are_free_at_once(autojump_clock: trio.testing.MockClock) -> None:
    register = {"type": "invokefunction", "function_id": "engine::workers::register", "data": {"name": "files"}}
    async with iii_trio.open_engine(GRACE) as engine:
        async with connected(engine) as bare:
            await created(bare)
            await bare.tell(**register)
            await bare.tell(type="registerfunction", id="files::list")
            await trio.testing.wait_all_tasks_blocked()
            assert engine.statistics().functions == 1
        await trio.testing.wait_all_tasks_blocked()
        assert (engine.statistics().functions, engine.statistics().channels) == (0, 1)
        async with engine.open_worker("files"):
            pass


@within(HOUR)
async def test_C4_6_an_engine_that_closes_during_the_grace_ends_what_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with iii_trio.open_engine(GRACE) as engine:
        async with connected(engine) as bare:
            await created(bare)
        await trio.sleep(1)
        assert engine.statistics().channels == 1
    assert [ended.outcome for ended in engine.ended_channels()] == ["engine_closed"]


@within(HOUR)
async def test_C4_6_our_own_workers_stream_goes_on_across_a_lost_link(autojump_clock: trio.testing.MockClock) -> None:
    links: list[trio.abc.Stream] = []
    async with iii_trio.open_engine(GRACE) as engine, trio.open_nursery() as nursery:

        async def dial() -> trio.abc.Stream:
            near, far = trio.testing.memory_stream_pair()
            nursery.start_soon(engine.serve_stream, far)
            links.append(near)
            return near

        address = SocketAddress("ws://engine", dial=dial)
        async with open_worker(address, name="lost and back") as worker, engine.open_worker("reader") as other:
            async with worker.create_channel() as channel, other.open_reader(channel.reader_ref) as reader:
                await channel.writer.send(b"before")
                assert await reader.receive() == b"before"
                first = worker.worker_id
                await trio.aclose_forcefully(links[0])
                while worker.worker_id in (first, None):
                    await worker.wait_connected()
                    await trio.sleep(0.1)
                assert owners(engine) == [worker.worker_id]
                await channel.writer.send(b"after")
                assert await reader.receive() == b"after"
                await channel.writer.aclose()
                with pytest.raises(trio.EndOfChannel):
                    await reader.receive()
        assert [ended.outcome for ended in engine.ended_channels()] == ["completed"]
        nursery.cancel_scope.cancel()
