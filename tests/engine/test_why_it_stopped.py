"""Every end of a session that the engine causes says why: at the peer, in the log, and in the list of ended channels."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import CallError, ChannelBroken, Engine, EngineConfig, Limits, Timeouts, open_engine
from iii_trio.engine.admit import serve_stream
from iii_trio.engine.policy import ListenerPolicy
from iii_trio.engine.policy_change import update_policy
from tests.helpers.bare import Bare, connected, within

LIMITS = Limits(message_bytes=10_000, outbox_bytes=1_000, outbox_reserve_bytes=2_000, held_back_registrations=3)
CONFIG = EngineConfig(limits=LIMITS, timeouts=Timeouts(silent_worker_seconds=60))
CLOSE = 8


@attrs.define
class Scene:
    engine: Engine
    victim: Bare
    hello: dict[str, Any]
    policy: ListenerPolicy

    async def answer(self) -> None:
        """Wait for the answer to the victim's last message."""
        while (await self.victim.message()).get("type") != "invocationresult":
            pass


async def silence(scene: Scene) -> None:
    await trio.sleep(100)


async def too_large(scene: Scene) -> None:
    await scene.victim.say(1, b"x" * 10_001)


async def broken_rule(scene: Scene) -> None:
    await scene.victim.say(3)


async def drained(scene: Scene) -> None:
    await scene.engine.drain(1)


async def closed(scene: Scene) -> None:
    scene.engine._shell.close("the engine was closed")


async def token_withdrawn(scene: Scene) -> None:
    update_policy(scene.engine._shell, scene.policy, ListenerPolicy(tokens=["another"]))


async def takes_nothing(scene: Scene) -> None:
    for _ in range(2_000):
        await scene.victim.tell(type="ping")


async def came_back(scene: Scene) -> None:
    async with connected(scene.engine) as again:
        hello = scene.hello
        back = {"previous_worker_id": hello["worker_id"], "reattach_token": hello["reattach_token"]}
        await again.tell(type="reattach", **back)
        await again.tell(type="ping")
        await again.message()


async def held_back_too_much(scene: Scene) -> None:
    for number in range(4):
        await scene.victim.tell(type="registerfunction", id=f"f{number}")


async def name_taken(scene: Scene) -> None:
    call = {"function_id": "engine::workers::register", "data": {"name": "other"}}
    await scene.victim.tell(type="invokefunction", invocation_id=str(uuid.uuid4()), **call)


CAUSES: dict[Callable[[Scene], Awaitable[None]], tuple[int, str]] = {
    silence: (4010, "nothing came from it for 60 s, not even the answer to a ping"),
    too_large: (1009, "a message is larger than 10000 bytes"),
    broken_rule: (1002, "the opcode 3 is reserved"),
    drained: (1012, "the engine was shut down, after a grace of 1 s"),
    closed: (1012, "the engine was closed"),
    token_withdrawn: (1012, "its token was withdrawn"),
    takes_nothing: (4010, "it does not take what is sent to it"),
    came_back: (4010, "it came back as "),
    held_back_too_much: (1008, "more than 3 registrations before engine::workers::register"),
    name_taken: (1000, "another worker has this name"),
}


@within(3600)
@pytest.mark.parametrize(("end", "code", "cause"), [(end, *told) for end, told in CAUSES.items()])
async def test_the_peer_the_log_and_the_list_of_ended_channels_say_why(
    end: Callable[[Scene], Awaitable[None]],
    code: int,
    cause: str,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    slow = end is takes_nothing
    async with open_engine(CONFIG) as engine, engine.open_worker("other") as other, trio.open_nursery() as nursery:

        @other.function("never")
        async def never() -> None:
            await trio.sleep_forever()

        near, far = trio.testing.lockstep_stream_pair() if slow else trio.testing.memory_stream_pair()
        policy = ListenerPolicy(tokens=["known"])
        nursery.start_soon(serve_stream, engine._shell, far, "10.0.0.9", policy)
        victim = Bare(near)
        assert await victim.ask("/", authorization="Bearer known") == 101
        scene = Scene(engine, victim, await victim.message(), policy)
        worker_id = scene.hello["worker_id"]
        await other.wait_registered()
        made, waits = str(uuid.uuid4()), str(uuid.uuid4())
        await victim.tell(type="invokefunction", invocation_id=made, function_id="engine::channels::create", data={})
        await scene.answer()
        await victim.tell(type="invokefunction", invocation_id=waits, function_id="never", data={})
        await trio.testing.wait_all_tasks_blocked()
        (channel,) = engine.channels()
        await end(scene)

        told: list[dict[str, Any]] = []
        while (frame := await victim.frame()) is not None and frame[0] != CLOSE:
            if frame[0] == 1:
                told.append(json.loads(frame[1]))
        assert frame is not None and int.from_bytes(frame[1][:2], "big") == code
        assert cause in frame[1][2:].decode()
        if not slow and code not in (1002, 1009):  # SDKs would wait for their own timeouts
            answers = [message["error"]["code"] for message in told if message.get("invocation_id") == waits]
            assert answers == ["invocation_stopped"]

        await trio.aclose_forcefully(near)
        (ended,) = engine.ended_channels()
        expected = "engine_closed" if end in (drained, closed) else "owner_lost"
        assert (ended.id, ended.outcome) == (channel.id, expected) and cause in ended.reason
        lines = [vars(record) for record in caplog.records if cause in record.getMessage()]
        assert worker_id in [line.get("iii_session") for line in lines], "that it is gone"
        assert channel.id in [line.get("iii_channel") for line in lines], "that its channel is"
        nursery.cancel_scope.cancel()


@within(3600)
async def test_a_worker_of_ours_raises_the_cause_out_of_its_calls_and_streams(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_engine(CONFIG) as engine, engine.open_worker("files") as files, engine.open_worker("app") as app:
        begun = trio.Event()

        @files.function("never")
        async def never(reader: iii_trio.ChannelReader) -> None:
            begun.set()
            await trio.sleep_forever()

        await files.wait_registered()
        raised: list[BaseException] = []

        async def call(reader: Any) -> None:
            with pytest.raises(CallError) as caught:
                await app.trigger("never", {"reader": reader})
            raised.append(caught.value)

        async def write(writer: iii_trio.ChannelWriter) -> None:
            with pytest.raises(ChannelBroken) as caught:
                while True:
                    await writer.send(b"x" * 100_000)
            raised.append(caught.value)

        async with app.create_channel() as channel:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, channel.reader_ref)
                await begun.wait()
                nursery.start_soon(write, channel.writer)
                await trio.testing.wait_all_tasks_blocked()
                assert not await engine.drain(2)
    assert len(raised) == 2
    assert all("the engine was shut down, after a grace of 2 s" in str(error) for error in raised), raised
