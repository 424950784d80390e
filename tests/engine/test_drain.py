"""The end of an engine: drained, with a grace and without, and cancelled. Nothing is left behind; all is in virtual time."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.errors import CallError, ChannelBroken
from tests.helpers.bare import connected, within

HOUR = 3600
INVOCATION = "11111111-1111-4111-8111-111111111111"


def end_of(ref: iii_trio.Ref) -> str:
    return f"/ws/channels/{ref.channel_id}?key={ref.access_key}&dir={ref.direction}"


@within(HOUR)
async def test_a_drain_lets_what_runs_finish_and_takes_nothing_new(autojump_clock: trio.testing.MockClock) -> None:
    begun = trio.Event()
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker, trio.open_nursery() as nursery:

        @worker.function("slow")
        async def slow() -> str:
            begun.set()
            await trio.sleep(30)
            return "done"

        results: list[object] = []

        async def call() -> None:
            results.append(await worker.trigger("slow", {}))

        nursery.start_soon(call)
        await begun.wait()
        drained = trio.Event()
        before = trio.current_time()

        async def drain() -> None:
            assert await engine.drain(100)
            drained.set()

        nursery.start_soon(drain)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CallError) as refused:
            await worker.trigger("slow", {})
        assert refused.value.code == "engine_draining"
        async with connected(engine) as late:
            assert late.status == 503 and "shutting down" in late.said
        await drained.wait()
        assert trio.current_time() - before == pytest.approx(30, abs=1)
        await trio.testing.wait_all_tasks_blocked()
        assert results == ["done"]  # the answer went before the goodbye


@within(HOUR)
async def test_healthz_says_ready_and_then_draining(autojump_clock: trio.testing.MockClock) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker, worker.create_channel() as channel:
        await channel.writer.send(b"under way")
        async with trio.open_nursery() as nursery:
            for status, body in ((200, '{"status":"ready"}'), (503, '{"status":"draining"}')):
                async with connected(engine, "/healthz") as asked:
                    assert asked.status == status and asked.said.endswith(body)
                nursery.start_soon(engine.drain, 10)
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


@within(HOUR)
async def test_channel_sockets_of_channels_that_are_there_are_let_in_until_the_grace_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker, worker.create_channel() as channel:
        await channel.writer.send(b"before the drain")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.drain, 50)
            await trio.sleep(10)
            async with connected(engine, end_of(channel.reader_ref)) as reader:
                assert reader.status == 101
                assert await reader.frame() == (2, b"before the drain")
                await channel.writer.aclose()
                opcode, payload = await reader.frame() or (0, b"")
                assert (opcode, payload[:2]) == (8, b"\x03\xe8")  # the clean end
            nursery.cancel_scope.cancel()


@within(HOUR)
async def test_what_is_not_done_within_the_grace_ends_with_a_reason_at_the_peer_in_the_log_and_in_the_list(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "iii_trio.engine")
    async with iii_trio.open_engine() as engine:
        async with connected(engine) as bare:
            await bare.message()
            await bare.tell(
                type="invokefunction", function_id="engine::channels::create", invocation_id=INVOCATION, data={}
            )
            ref = (await bare.message())["result"]["writer"]
            async with connected(engine, end_of(iii_trio.Ref.from_json(ref))) as writer:
                before = trio.current_time()
                assert await engine.drain(20) is False
                assert trio.current_time() - before == pytest.approx(20, abs=1)
                opcode, payload = await writer.frame() or (0, b"")
                assert (opcode, payload[:2]) == (8, (4007).to_bytes(2, "big"))
                assert b"after a grace of 20 s" in payload
                opcode, payload = await bare.frame() or (0, b"")
                assert (opcode, payload[:2]) == (8, (1012).to_bytes(2, "big"))
                (ended,) = engine.ended_channels()
                assert (ended.outcome, ended.reason) == (
                    "engine_closed",
                    "the engine was shut down, after a grace of 20 s",
                )
    assert "draining: 0 calls and 1 channels are under way" in caplog.text
    assert "engine_closed (the engine was shut down, after a grace of 20 s)" in caplog.text


@within(HOUR)
async def test_a_drain_that_is_cancelled_stays_one_and_an_idle_engine_is_done_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:
        async with worker.create_channel() as channel:
            await channel.writer.send(b"under way")
            with trio.move_on_after(5):
                await engine.drain(100)
            async with connected(engine) as late:
                assert late.status == 503
            channel.writer.abort("enough")
        before = trio.current_time()
        assert await engine.drain(100)
        assert trio.current_time() - before < 1


@pytest.mark.parametrize("gently", [True, False])
@within(HOUR)
async def test_nothing_is_left_behind(autojump_clock: trio.testing.MockClock, gently: bool) -> None:
    async with trio.open_nursery() as nursery:
        tasks = len(nursery.child_tasks)
        with trio.CancelScope() as scope:
            async with iii_trio.open_engine() as engine, connected(engine) as bare, engine.open_worker("w") as worker:
                await bare.message()
                async with worker.create_channel() as channel, connected(engine, end_of(channel.reader_ref)):
                    await channel.writer.send(b"item")
                    if gently:
                        assert await engine.drain(3) is False
                    else:
                        scope.cancel()
                        await trio.sleep_forever()
                    with pytest.raises(ChannelBroken, match="engine_closed"):
                        await channel.writer.send(b"item")
        assert not any(attrs.astuple(engine.statistics()))
        assert len(nursery.child_tasks) == tasks
