"""The engine's one budget of memory: whatever peers make it hold is counted, and the one that holds most goes first."""

from __future__ import annotations

import gc
import uuid
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import EngineConfig, Limits
from iii_trio.engine.admit import serve_stream
from iii_trio.engine.policy import ListenerPolicy
from iii_trio.transport.frames import BINARY, CLOSE, BatchScanner, MessageScanner, close_payload, frame_head
from iii_trio.transport.memory_budget import MemoryBudget
from iii_trio.transport.outbox import Outbox
from iii_trio.transport.pipe import Pipe
from iii_trio.transport.websocket import WebSocket
from iii_trio.wire import attach_target
from tests.helpers.bare import Bare, connected, within

MIB = 1024 * 1024
BUDGET = 8 * MIB
Clock = trio.testing.MockClock


def config(**limits: int) -> EngineConfig:
    return EngineConfig(limits=Limits(**{"memory_bytes": BUDGET, **limits}))


def budget_of(engine: iii_trio.Engine) -> MemoryBudget:
    return engine._shell.memory


@asynccontextmanager
async def tight_line(engine: iii_trio.Engine, target: str = "/") -> AsyncIterator[Bare]:
    """A connection that takes nothing from the engine unless its peer reads."""
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.serve_stream, far)
        bare = Bare(near)
        try:
            assert await bare.ask(target) == 101
            await bare.message()
            yield bare
        finally:
            await trio.aclose_forcefully(near)
            nursery.cancel_scope.cancel()


async def say_part(bare: Bare, opcode: int, here: int, whole: int) -> None:
    """Send the first bytes of one large frame."""
    head = bytearray(frame_head(opcode, whole))
    head[1] |= 0x80
    await bare.stream.send_all(bytes(head) + bytes(4) + b" " * here)


async def say_more(bare: Bare, n: int) -> None:
    await bare.stream.send_all(b" " * n)


async def read_all(bare: Bare) -> tuple[int, str] | None:
    """Read until the engine's Close, or the end."""
    while (got := await bare.frame()) is not None:
        if got[0] == 8:
            await bare.say(8, got[1][:2])
            return int.from_bytes(got[1][:2], "big"), got[1][2:].decode()
    return None


@within(100)
async def test_the_session_with_the_largest_incomplete_message_is_closed_and_others_are_not(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with iii_trio.open_engine(config()) as engine, engine.open_worker("app") as app:
        async with connected(engine) as large, connected(engine) as small, connected(engine) as other:
            await say_part(small, 1, 1 * MIB, 2 * MIB)
            await say_part(large, 1, 3 * MIB, 60 * MIB)
            await say_part(other, 1, 2 * MIB, 60 * MIB)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(budget_of(engine).usage().values()) == [n * MIB * 5 // 4 for n in (1, 2, 3)]
            await say_more(other, MIB // 2)  # over the limit, but still the second
            close = await read_all(large)
            assert close is not None and close[0] == 1013 and "limits.memory_bytes" in close[1]
            assert len(budget_of(engine).usage()) == 2
            await say_more(small, 1 * MIB)
            await trio.testing.wait_all_tasks_blocked()
            assert len(budget_of(engine).usage()) == 1  # the message was whole, and is gone
            assert await app.trigger("engine::workers::list", {})
            assert engine.statistics().sessions == 3
        await trio.testing.wait_all_tasks_blocked()
        assert budget_of(engine).used_bytes == 0
    assert [r.levelname for r in caplog.records if "is disconnected: it holds" in r.getMessage()] == ["WARNING"]


@within(100)
async def test_an_evicted_session_that_goes_on_sending_is_kept_no_more(autojump_clock: Clock) -> None:
    async with iii_trio.open_engine(config()) as engine, connected(engine) as bare:
        await say_part(bare, 1, 8 * MIB, 60 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        assert budget_of(engine).used_bytes == 0
        await say_more(bare, 7 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        assert budget_of(engine).used_bytes == 0


@within(100)
async def test_sessions_that_ask_and_never_read_are_within_the_budget(autojump_clock: Clock) -> None:
    async with iii_trio.open_engine(config(outbox_bytes=64 * MIB)) as engine, engine.open_worker("app") as app:

        @app.function("app::large")
        async def large() -> str:
            return "x" * MIB

        async with tight_line(engine) as first, tight_line(engine) as second:
            for bare, count in ((first, 6), (second, 5)):
                for n in range(count):
                    await bare.tell(
                        type="invokefunction", function_id="app::large", data={}, invocation_id=str(uuid.UUID(int=n))
                    )
                await trio.sleep(1)
            # Eleven MiB would wait. The first to take most is dropped with all that waits for it; the second is not.
            assert 5 * MIB <= budget_of(engine).used_bytes < 6 * MIB
            assert engine.statistics().sessions == 2
            assert await app.trigger("app::large", {}) == "x" * MIB
        await trio.sleep(10)
        assert budget_of(engine).used_bytes == 0


@within(100)
async def test_a_flood_of_pings_by_a_peer_that_never_reads_takes_the_size_of_its_answers(autojump_clock: Clock) -> None:
    async with iii_trio.open_engine(config()) as engine, tight_line(engine) as bare:
        ping = b'{"type":"ping"}'
        head = bytes((0x81, 0x80 | len(ping))) + bytes(4)
        await bare.stream.send_all((head + ping) * 20_000)
        await trio.testing.wait_all_tasks_blocked()
        answers = 20_000 * len(b'\x81\x0f{"type":"pong"}')
        assert answers <= budget_of(engine).used_bytes < answers * 1.2
        (outbox,) = [line._websocket.outbox for line in engine._shell.outputs.values() if hasattr(line, "_websocket")]
        assert len(outbox._waiting) < 600  # what one gathering write takes, and then joined pieces
        for _ in range(20_000):
            assert await bare.frame() == (1, b'{"type":"pong"}')
        await trio.testing.wait_all_tasks_blocked()
        assert budget_of(engine).used_bytes == 0


@within(100)
async def test_registrations_count_until_their_session_ends(autojump_clock: Clock) -> None:
    async with iii_trio.open_engine(config()) as engine:
        async with connected(engine) as bare:
            for n in range(100):
                await bare.tell(type="registerfunction", id=f"f::{n}", metadata="x" * 1000)
            await trio.testing.wait_all_tasks_blocked()
            assert 100 * 1875 < budget_of(engine).used_bytes < 100 * 2500
            held = budget_of(engine).used_bytes
            await trio.sleep(6)  # now they are in force
            await bare.say(9)
            await trio.testing.wait_all_tasks_blocked()
            assert held * 0.9 < budget_of(engine).used_bytes < held * 1.1
        await trio.testing.wait_all_tasks_blocked()
        assert budget_of(engine).used_bytes == 0


@within(100)
async def test_telemetry_that_is_thrown_away_is_not_kept_and_its_pings_are_answered(autojump_clock: Clock) -> None:
    async with iii_trio.open_engine(config()) as engine:
        near, far = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, engine._shell, far, None, ListenerPolicy(tokens=["secret"]))
            bare = Bare(near)
            assert await bare.ask("/otel") == 101
            await say_part(bare, 2, 20 * MIB, 30 * MIB)
            await trio.testing.wait_all_tasks_blocked()
            assert budget_of(engine).used_bytes == 0
            await say_more(bare, 10 * MIB)
            await bare.say(9, b"?")
            assert await bare.frame() == (10, b"?")
            await near.aclose()


@within(100)
async def test_telemetry_that_is_believed_is_counted_and_may_have_4_mib(autojump_clock: Clock) -> None:
    async with iii_trio.open_engine(config()) as engine:
        async with connected(engine, "/otel") as first, connected(engine, "/otel") as second:
            await say_part(first, 2, 3 * MIB, 4 * MIB)
            await trio.testing.wait_all_tasks_blocked()
            assert budget_of(engine).used_bytes == 3 * MIB * 5 // 4
            await say_part(second, 2, 100, 4 * MIB + 1)
            close = await read_all(second)
            assert close is not None and close[0] == 1009
        await trio.testing.wait_all_tasks_blocked()
        assert budget_of(engine).used_bytes == 0


@within(1000)
async def test_full_pipes_make_writers_wait_before_anybody_is_evicted(autojump_clock: Clock) -> None:
    """Twenty pipes of 1 MiB do not fit: near the limit each holds one chunk, and streams go on."""
    async with (
        iii_trio.open_engine(config()) as engine,
        engine.open_worker("app") as app,
        trio.open_nursery() as nursery,
    ):
        sent = [0] * 20
        channels = []

        async def write(at: int, writer: iii_trio.ChannelWriter) -> None:
            for _ in range(16):
                await writer.send(b"x" * 65_536)
                sent[at] += 1
            await writer.aclose()

        async with trio.open_nursery() as owners:
            for at in range(20):
                channel = await owners.start(hold_channel, app)
                channels.append(channel)
                nursery.start_soon(write, at, channel.writer)
            await trio.sleep(100)
            assert BUDGET * 7 // 8 <= budget_of(engine).used_bytes <= BUDGET
            assert all(sent) and sum(sent) < 20 * 16
            for channel in channels:
                received = 0
                async with channel.reader as reader:
                    async for item in reader:
                        received += len(item)
                assert received == 16 * 65_536
            owners.cancel_scope.cancel()
        await trio.sleep(1)
        assert budget_of(engine).used_bytes == 0


async def hold_channel(app: iii_trio.Worker, *, task_status: trio.TaskStatus[Any]) -> None:
    async with app.create_channel() as channel:
        task_status.started(channel)
        await trio.sleep_forever()


@within(100)
async def test_a_scanner_is_released_with_its_connection_without_the_cycle_collector(autojump_clock: Clock) -> None:
    async with iii_trio.open_engine(config()) as engine:
        gc.collect()
        gc.disable()
        try:
            for target, opcode in (("/", 1), ("/otel", 2)):
                async with connected(engine, target) as bare:
                    await say_part(bare, opcode, MIB, 2 * MIB)
                    await trio.testing.wait_all_tasks_blocked()
                    scanner = weakref.ref(
                        next(s for s in gc.get_objects() if type(s) is MessageScanner and s.held_bytes)
                    )
                await trio.testing.wait_all_tasks_blocked()
                left = scanner()
                assert left is None or left.held_bytes == 0
        finally:
            gc.enable()


@pytest.mark.parametrize("ending", ["closed", "aborted", "cancelled", "writer lost", "reader lost"])
@within(100)
async def test_an_ended_channel_is_released_without_the_cycle_collector(ending: str, autojump_clock: Clock) -> None:
    kinds = (WebSocket, Outbox, Pipe, BatchScanner, trio.Nursery)
    async with (
        iii_trio.open_engine(config()) as engine,
        engine.open_worker("maker") as worker,
        worker.create_channel() as channel,
    ):
        gc.collect()
        gc.disable()
        try:
            before = {id(each) for each in gc.get_objects()}
            async with (
                connected(engine, attach_target(channel.writer.ref)) as writer,
                connected(engine, attach_target(channel.reader.ref)) as reader,
            ):
                await writer.say(BINARY, b"data")
                assert await reader.frame() == (BINARY, b"data")
                made = [each for each in gc.get_objects() if type(each) in kinds and id(each) not in before]
                # The other two nurseries are those of the connections of this test.
                of_engine = [weakref.ref(each) for each in made if type(each) is not trio.Nursery]
                nurseries = [weakref.ref(each) for each in made if type(each) is trio.Nursery]
                assert [len(of_engine), len(nurseries)] == [7, 4]
                del made
                if ending in ("closed", "aborted"):
                    await writer.say(CLOSE, close_payload(1000 if ending == "closed" else 4001))
                    assert await writer.frame() is not None
                    assert await reader.frame() is not None
                elif ending == "cancelled":
                    await reader.say(CLOSE, close_payload(1000))
                    assert await writer.frame() is not None
                await trio.aclose_forcefully(reader.stream if ending == "reader lost" else writer.stream)
                await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            assert not engine.channels()
            assert [each for each in (*of_engine, *nurseries) if each() is not None] == []
        finally:
            gc.enable()


@within(100)
async def test_a_message_that_ended_its_channel_restarts_no_expiry(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        iii_trio.open_engine(config()) as engine,
        engine.open_worker("maker") as worker,
        worker.create_channel() as channel,
        connected(engine, attach_target(channel.writer.ref)),
    ):
        shell = engine._shell
        touched: list[str] = []
        monkeypatch.setattr(shell.hub, "touch", lambda channel_id, now: touched.append(channel_id))
        attached = shell.attached_channels[channel.writer.ref.channel_id]
        shell.touch(attached)
        assert touched == [attached.channel_id]
        shell.end_channel(attached.channel_id, "enough")
        shell.touch(attached)
        assert touched == [attached.channel_id]


@within(100)
async def test_a_reload_changes_the_budget_both_ways(autojump_clock: Clock) -> None:
    async with iii_trio.open_engine(config()) as engine, connected(engine) as bare:
        await say_part(bare, 1, 2 * MIB, 60 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        await engine.reload(attrs.evolve(config(memory_bytes=64 * MIB), listeners=()))
        await say_more(bare, 20 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        assert budget_of(engine).used_bytes == 22 * MIB * 5 // 4
        await engine.reload(attrs.evolve(config(), listeners=()))
        close = await read_all(bare)
        assert close is not None and close[0] == 1013
        assert budget_of(engine).used_bytes == 0


@within(100)
async def test_a_channel_of_a_worker_in_process_is_ended_by_itself(autojump_clock: Clock) -> None:
    async with iii_trio.open_engine(config()) as engine, engine.open_worker("app") as app:
        async with app.create_channel(max_bytes=4 * MIB) as channel:
            await channel.writer.send(b"x" * 9 * MIB)  # one item of any size may pass: but not beyond the budget
            with pytest.raises(iii_trio.ChannelBroken, match=r"limits.memory_bytes"):
                await channel.writer.send(b"x")
        assert budget_of(engine).used_bytes == 0
        assert await app.trigger("engine::workers::list", {})
