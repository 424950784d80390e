"""Limits of one listener: beyond them, who comes there is refused clearly, and other listeners notice nothing."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import iii_trio
from iii_trio import EngineConfig, Limits, Listener, ListenerLimits
from iii_trio.errors import CallError, ConnectionFailed
from tests.helpers.bare import Bare, within

SECONDS = 20


@asynccontextmanager
async def listening(narrow: ListenerLimits, **limits: int) -> AsyncIterator[tuple[iii_trio.Engine, str, str]]:
    """An engine with a listener of these limits, and one without any of its own; their addresses."""
    config = EngineConfig(listeners=(Listener(port=0, limits=narrow), Listener(port=0)), limits=Limits(**limits))
    async with iii_trio.open_engine(config) as engine:
        first, second = await engine.listen()
        yield engine, first, second


async def dial(url: str) -> Bare:
    host, port = url.removeprefix("ws://").rsplit(":", 1)
    return Bare(await trio.open_tcp_stream(host, int(port)))


@within(SECONDS)
async def test_sessions_of_one_listener_are_bounded_and_one_that_goes_makes_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    async with listening(ListenerLimits(sessions=1)) as (_, narrow, wide):
        first, second, elsewhere = await dial(narrow), await dial(narrow), await dial(wide)
        assert await first.ask("/") == 101
        assert await second.ask("/") == 503
        assert "this listener has as many sessions as it may (1)" in second.said
        assert await elsewhere.ask("/") == 101
        (line,) = [record for record in caplog.records if "refused" in record.getMessage()]
        assert (line.iii_status, line.iii_peer) == ("503", "127.0.0.1")  # type: ignore[attr-defined]
        await first.stream.aclose()
        while await (third := await dial(narrow)).ask("/") != 101:  # until the engine has seen it go
            await third.stream.aclose()
        for bare in (second, elsewhere, third):
            await bare.stream.aclose()


@within(SECONDS)
@pytest.mark.parametrize("whose", ["listener", "engine"])
async def test_sessions_whose_handshake_is_under_way_count(whose: str) -> None:
    narrow = ListenerLimits(sessions=3) if whose == "listener" else ListenerLimits()
    async with listening(narrow, sessions=3 if whose == "engine" else 100) as (_, url, _):
        statuses: list[int] = []

        async def come() -> None:
            bare = await dial(url)
            statuses.append(await bare.ask("/"))
            if len(statuses) == 20:
                done.set()
            await done.wait()
            await bare.stream.aclose()

        done = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(come)
        assert sorted(statuses) == [101] * 3 + [503] * 17


@within(SECONDS)
async def test_connections_of_one_listener_are_bounded() -> None:
    async with listening(ListenerLimits(connections=2)) as (_, narrow, wide):
        idle, first = await dial(narrow), await dial(narrow)
        assert await first.ask("/") == 101
        refused = await dial(narrow)
        assert await refused.get("/healthz") == 503
        assert "this listener has as many connections as it may (2)" in refused.said
        elsewhere = await dial(wide)
        assert await elsewhere.get("/healthz") == 200
        await idle.stream.aclose()
        await refused.stream.aclose()
        await elsewhere.stream.aclose()
        while await (again := await dial(narrow)).get("/healthz") != 200:
            await again.stream.aclose()
        await again.stream.aclose()
        await first.stream.aclose()


@within(SECONDS)
async def test_channels_of_a_listeners_sessions_are_bounded() -> None:
    async with listening(ListenerLimits(channels_per_session=1)) as (_, narrow, wide):
        async with iii_trio.open_worker(narrow, name="a") as worker, iii_trio.open_worker(wide, name="b") as other:
            async with worker.create_channel(), other.create_channel(), other.create_channel():
                with pytest.raises(CallError, match="owns 1 open channels, as many as one may") as caught:
                    async with worker.create_channel():
                        pass
                assert caught.value.code == "channel_limit_reached"


@within(SECONDS)
async def test_a_reload_changes_a_listeners_limits_for_who_is_there_and_who_comes() -> None:
    listener = Listener(port=0, limits=ListenerLimits(channels_per_session=1, sessions=1))
    async with iii_trio.open_engine(EngineConfig(listeners=(listener,))) as engine:
        (url,) = await engine.listen()
        async with iii_trio.open_worker(url, name="there") as worker, worker.create_channel():
            with pytest.raises(ConnectionFailed, match="as many sessions as it may"):
                async with iii_trio.open_worker(url, name="new"):
                    pass
            wider = ListenerLimits(channels_per_session=2, sessions=2)
            await engine.reload(EngineConfig(listeners=(Listener(port=0, limits=wider),)))
            async with worker.create_channel(), iii_trio.open_worker(url, name="back"):
                with pytest.raises(ConnectionFailed, match="as many sessions as it may"):
                    async with iii_trio.open_worker(url, name="new"):
                        pass


@within(SECONDS)
@pytest.mark.parametrize("target", ["/", "/otel", "channel"])
async def test_messages_of_one_listener_are_bounded_on_every_kind_of_socket(target: str) -> None:
    async with listening(ListenerLimits(message_bytes=1000)) as (engine, narrow, wide):
        async with engine.open_worker("w") as worker, worker.create_channel() as channel:
            if target == "channel":
                ref = channel.writer_ref
                target = f"/ws/channels/{ref.channel_id}?key={ref.access_key}&dir=write"
            bare = await dial(narrow)
            assert await bare.ask(target) == 101
            await bare.say(2, b"x" * 1001)
            while (frame := await bare.frame()) is not None and frame[0] != 8:
                pass
            assert frame is not None and int.from_bytes(frame[1][:2], "big") == 1009
            await bare.stream.aclose()
            there = await dial(wide)
            assert await there.ask("/otel") == 101
            await there.say(2, b"x" * 1001)
            await there.say(9, b"alive?")
            assert await there.frame() == (10, b"alive?")
            await there.stream.aclose()


@within(SECONDS)
async def test_registrations_beyond_what_can_be_held_back_end_their_sender_with_the_cause() -> None:
    limits = Limits(held_back_registrations=2)
    async with iii_trio.open_engine(EngineConfig(listeners=(Listener(port=0),), limits=limits)) as engine:
        (url,) = await engine.listen()
        async with iii_trio.open_worker(url, name="other") as other:
            bare = await dial(url)
            assert await bare.ask("/") == 101
            assert (await bare.message())["type"] == "workerregistered"
            for number in range(3):
                await bare.tell(type="registerfunction", id=f"f{number}")
            opcode, payload = await bare.frame() or (0, b"")
            assert (opcode, int.from_bytes(payload[:2], "big")) == (8, 1008)
            assert b"more than 2 registrations before engine::workers::register" in payload
            await bare.stream.aclose()
            assert (
                len((await other.trigger("engine::workers::list", {}))["workers"]) == 3
            )  # the engine, its queue, and `other`
