"""A worker claims a name whose holder has vanished behind a network that still looks alive (docs/names.md)."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing

from iii_trio import CallError, open_engine
from tests.helpers.bare import Bare, connected, within

REGISTER = {"type": "invokefunction", "function_id": "engine::workers::register"}


async def claim(bare: Bare, invocation_id: str | None = None) -> None:
    await bare.message()  # the greeting
    call = {**REGISTER, "data": {"name": "n", "runtime": "bare"}}
    await bare.tell(**({**call, "invocation_id": invocation_id} if invocation_id else call))


ID = "7d6c2c1e-7c59-4a53-9d29-000000000001"


@within(100)
async def test_R7_a_vanished_holder_is_replaced_after_the_time_of_the_challenge(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_engine() as engine, connected(engine) as gone, connected(engine) as newcomer:
        await claim(gone)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await claim(newcomer, ID)
        answer = await newcomer.message()
        assert answer is not None and answer["result"] == {"success": True}
        assert 4.9 < trio.current_time() - began < 6
        await trio.testing.wait_all_tasks_blocked()
        assert engine.statistics().sessions == 1


@within(100)
async def test_R7_calls_that_are_sent_to_a_vanished_holder_are_no_sign_of_its_life(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The kernel takes them as long as it has room."""
    async with open_engine() as engine, connected(engine) as gone, connected(engine) as newcomer:
        await claim(gone)
        await gone.tell(type="registerfunction", id="svc::x")
        await trio.testing.wait_all_tasks_blocked()
        await claim(newcomer, ID)
        async with engine.open_worker("caller") as caller, trio.open_nursery() as nursery:

            async def keep_calling() -> None:
                while True:
                    with trio.move_on_after(0.5), suppress(CallError):
                        await caller.trigger("svc::x")
                    await trio.sleep(0.1)

            nursery.start_soon(keep_calling)
            answer = await newcomer.message()
            assert answer is not None and answer.get("result") == {"success": True}
            nursery.cancel_scope.cancel()


@within(100)
async def test_R6_a_holder_that_answers_its_ping_keeps_its_name(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine, connected(engine) as holder, connected(engine) as newcomer:
        await claim(holder)
        await trio.testing.wait_all_tasks_blocked()
        await claim(newcomer, ID)
        while (frame := await holder.frame()) is not None and frame[0] != 9:
            pass
        assert frame is not None
        await holder.say(10, frame[1])
        rejection = await newcomer.message()
        assert rejection is not None and rejection["code"] == "WORKER_NAMESPACE_CONFLICT"
        assert trio.current_time() < 1


@within(100)
async def test_R6_a_worker_in_this_process_keeps_its_name(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine, engine.open_worker("n"), connected(engine) as newcomer:
        await claim(newcomer, ID)
        rejection = await newcomer.message()
        assert rejection is not None and rejection["code"] == "WORKER_NAMESPACE_CONFLICT"


@within(100)
async def test_R8_a_holder_that_closes_while_it_is_challenged_has_left(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "iii_trio.engine")
    async with open_engine() as engine, connected(engine) as holder, connected(engine) as newcomer:
        await claim(holder)
        await trio.testing.wait_all_tasks_blocked()
        await claim(newcomer, ID)
        while (frame := await holder.frame()) is not None and frame[0] != 9:
            pass
        await holder.say(8, b"\x03\xe8")
        answer = await newcomer.message()
        assert answer is not None and answer["result"] == {"success": True}
        assert "it closed with 1000" in caplog.text and "no sign of life" not in caplog.text
