"""A worker joins, says what it offers, and comes back when its link is lost."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
import trio
import trio.testing

from iii_trio.environment import Environment
from iii_trio.errors import CallError, ConnectionFailed, MisuseError, Rejected
from iii_trio.wire import (
    FEATURE,
    InvokeFunction,
    Reattach,
    RegisterFunction,
    RegistrationRejected,
    UnregisterFunction,
    WireError,
)
from iii_trio.worker import open_worker
from iii_trio.worker.calls import WorkerSession
from tests.helpers.fake_engine import CREATE, REGISTER, FakeEngine, parsed, registered


async def nothing() -> None:
    pass


async def test_the_first_message_says_who_the_worker_is() -> None:
    engine = FakeEngine()
    async with open_worker(engine, name="files", namespace="fleet", description="serves files"):
        first = engine.link.heard[0]
        assert isinstance(first, InvokeFunction) and first.function_id == REGISTER
        said = parsed(first.data)
        assert said["name"] == "files" and said["namespace"] == "fleet" and said["description"] == "serves files"
        assert said["runtime"] == "python" and isinstance(said["pid"], int)
        assert said["telemetry"]["framework"] == "iii-trio"
        assert said["features"] == [FEATURE, "large-messages.v1"]
        assert "amplitude_api_key" not in said["telemetry"]


async def test_an_unnamed_worker_is_named_after_host_and_process() -> None:
    engine = FakeEngine()
    async with open_worker(engine):
        host, _, pid = parsed(engine.link.heard[0].data)["name"].rpartition(":")  # type: ignore[union-attr]
        assert host and pid.isdigit()


async def test_to_another_engine_the_register_call_is_void() -> None:
    engine = FakeEngine(features=())
    async with open_worker(engine) as worker:
        first = engine.link.heard[0]
        assert isinstance(first, InvokeFunction)
        assert first.invocation_id is None and first.action is not None and first.action.type == "void"
        assert worker.connected


async def test_an_engine_that_cannot_be_reached_is_told_of_at_once() -> None:
    with pytest.raises(ConnectionFailed, match="Connection refused"):
        async with open_worker(FakeEngine(unreachable=True)):
            raise AssertionError("entered")


async def test_an_engine_that_does_not_greet_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(ConnectionFailed):
        async with open_worker(FakeEngine(silent=True)):
            raise AssertionError("entered")
    assert 5 <= trio.current_time() <= 30


async def test_opening_can_be_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with open_worker(FakeEngine(silent=True)):
            raise AssertionError("entered")
    assert scope.cancelled_caught and trio.current_time() == 1


async def test_a_name_that_is_taken_is_refused_before_the_block_is_entered() -> None:
    with pytest.raises(Rejected, match="me") as caught:
        async with open_worker(FakeEngine(name_taken=True)):
            raise AssertionError("entered")
    assert caught.value.code == "WORKER_NAMESPACE_CONFLICT"


async def test_a_register_call_that_fails_is_a_rejection() -> None:
    error = WireError("INVALID_NAMESPACE", "namespace is empty")
    with pytest.raises(Rejected, match="namespace is empty") as caught:
        async with open_worker(FakeEngine(register_error=error)):
            raise AssertionError("entered")
    assert caught.value.code == "INVALID_NAMESPACE"


@pytest.mark.parametrize(
    ("holder", "problem"),
    [
        (
            "w0",
            "worker w0 has the name 'me' in namespace 'default'; "
            "stop that worker, or open this one with another `name` or `namespace`",
        ),
        (
            "",
            "the engine itself has the name 'me' in namespace 'default'; open this one with another `name` or `namespace`",
        ),
    ],
)
async def test_a_late_refusal_leaves_the_block_as_itself_and_says_how_to_mend_it(holder: str, problem: str) -> None:
    engine = FakeEngine(features=())
    with pytest.raises(Rejected) as caught:
        async with open_worker(engine):
            engine.link.say(RegistrationRejected("WORKER_NAMESPACE_CONFLICT", "default", holder, worker_name="me"))
            await trio.sleep_forever()
    assert str(caught.value) == f"this worker was refused: {problem}"


async def test_the_exception_of_the_block_leaves_as_itself() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with open_worker(FakeEngine()):
            raise error
    assert caught.value is error


async def test_leaving_says_goodbye_and_leaves_no_task() -> None:
    engine = FakeEngine()
    async with open_worker(engine):
        pass
    assert engine.link.said_goodbye is not None


async def test_a_cancelled_block_says_goodbye_too() -> None:
    engine = FakeEngine()
    with trio.CancelScope() as scope:
        async with open_worker(engine):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught and engine.link.said_goodbye is not None


# --- functions


async def test_functions_are_registered_when_they_are_declared_and_described() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:

        @worker.function("a::one", description="the first", metadata={"internal": True})
        async def one() -> None:
            pass

        worker.register_function("a::two", nothing, request_format={"type": "object"})
        messages = engine.link.of(RegisterFunction)
        assert [message.id for message in messages] == ["a::one", "a::two"]
        assert messages[0].description == "the first" and parsed(messages[0].metadata) == {"internal": True}
        assert parsed(messages[1].request_format) == {"type": "object"}
        await one()  # the decorator gives the function back


async def test_an_unregistered_function_is_withdrawn_and_its_id_is_free() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        registration = worker.register_function("a::one", nothing)
        with pytest.raises(MisuseError, match="a::one"):
            worker.register_function("a::one", nothing)
        registration.unregister()
        registration.unregister()
        assert [message.id for message in engine.link.of(UnregisterFunction)] == ["a::one"]
        assert (await engine.link.call("a::one"))["code"] == "function_not_found"
        worker.register_function("a::one", nothing)
        assert await engine.link.call("a::one") is None


async def test_a_function_that_another_worker_has_is_refused_alone(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        registration = worker.register_function("a::one", nothing)
        other = worker.register_function("a::two", nothing)
        with caplog.at_level(logging.WARNING, "iii_trio.worker"):
            engine.link.say(RegistrationRejected("FUNCTION_NAMESPACE_CONFLICT", "default", "w9", function_id="a::one"))
            await trio.testing.wait_all_tasks_blocked()
        assert registration.refused is not None and "w9" in registration.refused
        assert other.refused is None and worker.connected
        assert "a::one" in caplog.text


# --- reconnecting


async def test_everything_is_said_again_exactly_once_on_the_next_link(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_function("a::one", nothing)
        worker.register_function("a::gone", nothing).unregister()
        first = engine.link
        first.drop()
        worker.register_function("a::meanwhile", nothing)
        second = await engine.linked(2)
        await worker.wait_connected()
        worker.register_function("a::after", nothing)
        await trio.testing.wait_all_tasks_blocked()
        reattach = second.heard[0]
        assert isinstance(reattach, Reattach)
        assert (reattach.previous_worker_id, reattach.reattach_token) == (first.worker_id, "token-0")
        assert isinstance(second.heard[1], InvokeFunction) and second.heard[1].function_id == REGISTER
        assert registered(second) == ["a::one", "a::meanwhile", "a::after"]
        assert not first.of(Reattach)


@pytest.mark.parametrize("drawn", [0.0, 0.25, 0.5, 1.0])
async def test_a_pause_is_longer_or_shorter_by_at_most_three_tenths(
    drawn: float, autojump_clock: trio.testing.MockClock
) -> None:
    class Drawn(random.Random):
        def random(self) -> float:
            return drawn

    engine = FakeEngine()
    async with open_worker(engine, environment=Environment(rng=Drawn())):
        engine.unreachable = True
        engine.link.drop()
        await trio.sleep(300)
    pauses = [after - before for before, after in zip(engine.dials[1:], engine.dials[2:], strict=False)]
    assert pauses[:6] == pytest.approx([due * (0.7 + 0.6 * drawn) for due in (2, 4, 8, 16, 30, 30)])


async def test_a_worker_whose_link_is_lost_waits_for_the_next_one_before_it_asks_again(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not ask in a loop until the loss is known."""
    engine, asked = FakeEngine(), list[object]()
    real = WorkerSession.ping

    async def ping(session: WorkerSession) -> bool:
        asked.append(session)
        await trio.lowlevel.checkpoint()
        return session is not asked[0] and await real(session)

    monkeypatch.setattr(WorkerSession, "ping", ping)
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:
        nursery.start_soon(worker.wait_registered)
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        assert len(asked) == 1
        engine.link.drop()
    assert len(asked) == 2 and asked[0] is not asked[1]


async def test_pauses_double_up_to_half_a_minute_with_jitter(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    async with open_worker(engine, environment=Environment(rng=random.Random(7))) as worker:
        engine.unreachable = True
        engine.link.drop()
        await trio.sleep(300)
        pauses = [after - before for before, after in zip(engine.dials[1:], engine.dials[2:], strict=False)]
        wanted = [2.0, 4.0, 8.0, 16.0] + [30.0] * (len(pauses) - 4)
        assert len(pauses) > 8
        assert all(0.7 * due <= pause <= 1.3 * due for due, pause in zip(wanted, pauses, strict=True)), pauses
        assert len(set(pauses[4:])) > 3, "no jitter"
        engine.unreachable = False
        await worker.wait_connected()
        # once it was ready, patience starts anew
        dialled = len(engine.dials)
        engine.link.drop()
        lost = trio.current_time()
        await engine.linked(3 if len(engine.links) < 3 else len(engine.links) + 1)
        assert len(engine.dials) == dialled + 1 and trio.current_time() - lost <= 1.3


async def test_the_state_can_be_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        assert worker.connected and worker.state == "connected" and worker.worker_id == engine.link.worker_id
        await worker.wait_connected()
        engine.link.drop()
        await worker.wait_state("backoff")
        assert not worker.connected and worker.worker_id is None
        await worker.wait_connected()
        assert worker.worker_id == engine.links[1].worker_id
        with pytest.raises(MisuseError, match="closed"):
            await worker.wait_state("asleep")
    assert worker.state == "closed" and not worker.connected


async def test_a_refusal_at_a_reconnection_leaves_the_block(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    with pytest.raises(Rejected):
        async with open_worker(engine):
            engine.name_taken = True
            engine.link.drop()
            await trio.sleep_forever()


async def test_an_engine_that_drains_is_not_a_refusal(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        engine.register_error = WireError("engine_draining", "The engine is shutting down and takes no new calls.")
        engine.link.drop()
        refused = await engine.linked(2)
        await refused.over.wait()
        engine.register_error = None
        await worker.wait_connected()
        assert len(engine.links) == 3


async def test_whoever_waits_is_told_when_the_worker_is_closed() -> None:
    engine = FakeEngine()
    errors: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            try:
                await worker.trigger("a::one")
            except (ConnectionFailed, CallError) as error:
                errors.append(error)

        async with open_worker(engine) as worker:
            nursery.start_soon(call)
            await engine.link.hear(InvokeFunction)
    assert len(errors) == 1
    with trio.fail_after(1):
        with pytest.raises(ConnectionFailed):
            await worker.trigger("a::one")
        with pytest.raises(ConnectionFailed):
            await worker.trigger_void("a::one")
        with pytest.raises(ConnectionFailed):
            await worker.wait_connected()
        with pytest.raises(ConnectionFailed):
            async with worker.create_channel():
                pass


async def test_what_is_no_message_harms_nobody() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        for text in (b"", b"{", b"[]", b'{"type":"unknown"}', b'{"type":"invocationresult"}', b"\xff", b'{"type":7}'):
            engine.link.say_text(text)
        worker.register_function("a::one", nothing)
        assert await engine.link.call("a::one") is None


async def test_a_call_that_cannot_be_read_is_answered() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_function("a::one", nothing)
        engine.link.say_text(b'{"type":"invokefunction","invocation_id":"i9","function_id":"a::one","data":{"x":NaN}}')
        error = parsed((await engine.link.answer_to("i9")).error)
        assert error["code"] == "deserialization_error"


async def test_a_channel_of_a_plain_engine_is_asked_for_in_its_own_words() -> None:
    engine = FakeEngine(features=())
    async with open_worker(engine) as worker:
        async with worker.create_channel(8):
            pass
        asked = [m for m in engine.link.of(InvokeFunction) if m.function_id == CREATE]
        assert parsed(asked[0].data) == {"buffer_size": 8} and asked[0].namespace == "default"
        with pytest.raises(MisuseError, match=FEATURE):
            async with worker.create_channel(max_bytes=10):
                pass
