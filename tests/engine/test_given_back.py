"""Every budget is given back: it is taken and released 10,000 times, and is as large as before."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import EngineConfig, Limits
from iii_trio.transport.link import EndReason
from iii_trio.transport.memory_budget import MemoryBudget
from iii_trio.transport.outbox import Outbox
from iii_trio.transport.pipe import Pipe
from iii_trio.wire import Outcome
from tests.helpers.bare import connected, within
from tests.helpers.conversation import Conversation

TIMES = 10_000


async def test_the_items_bytes_and_memory_of_a_pipe(autojump_clock: trio.testing.MockClock) -> None:
    budget = MemoryBudget(1_000_000)
    charge = budget.open_account("owner").charge()
    pipe = Pipe(2, 100_000, charge)
    for n in range(TIMES):
        pipe.push_item(b"x" * 90_000 if n % 2 else "é" * 50_000)
        pipe.push_item(b"y" * 20_000)
        assert pipe.full
        for _ in range(2):
            chunk = pipe.take_now()
            assert chunk is not None
            pipe.done(chunk)
        assert not pipe.full and pipe.empty and pipe.items_waiting == pipe.bytes_waiting == 0
    assert budget.used_bytes <= 65_536  # a pipe that was used keeps a little counted, until its channel ends
    pipe.break_off(EndReason(Outcome.ABORTED))
    assert budget.used_bytes == 0


async def test_the_memory_of_pipes_that_end_full(autojump_clock: trio.testing.MockClock) -> None:
    budget = MemoryBudget(1_000_000)
    account = budget.open_account("owner")
    for n in range(TIMES):
        pipe = Pipe(2, 100_000, account.charge())
        pipe.push_item(b"x" * 900)
        assert budget.used_bytes == 4096
        if n % 2:
            pipe.break_off(EndReason(Outcome.ABORTED))
        pipe.release_memory()
    assert budget.used_bytes == 0 and not budget.usage()


async def test_the_bytes_and_memory_of_an_outbox(autojump_clock: trio.testing.MockClock) -> None:
    budget = MemoryBudget(1_000_000)
    stream, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:

        def broken(cause: str) -> None:
            raise AssertionError(cause)

        outbox = Outbox(stream, nursery.start_soon, broken)
        outbox.memory = budget.open_account("peer").charge()
        for n in range(TIMES):
            for size in (10, 700, 10, 10):
                outbox.put(b"x" * size)
                outbox.flush()
            assert budget.used_bytes >= outbox.waiting_bytes > 0
            got = 0
            while got < 730:
                got += len(await far.receive_some(65_536))
            await outbox.wait_empty()
            assert outbox.waiting_bytes == budget.used_bytes == 0, n
        nursery.cancel_scope.cancel()


@within(10_000)
async def test_registrations_calls_and_channels_of_a_session(autojump_clock: trio.testing.MockClock) -> None:
    """Ten thousand registrations, with bounds that admit one at a time."""
    limits = Limits(functions_per_session=1, registration_bytes=4000, calls_per_session=2, channels_per_session=1)
    async with iii_trio.open_engine(EngineConfig(limits=limits)) as engine, connected(engine) as bare:
        await bare.message()

        async def call(function_id: str, data: Any) -> dict[str, Any]:
            invocation_id = "0b7f1a36-6a53-4d0e-9d8b-0f2f6f0c5b11"
            await bare.tell(type="invokefunction", function_id=function_id, data=data, invocation_id=invocation_id)
            answer = await bare.message()
            assert answer["type"] == "invocationresult" and not answer.get("error"), answer
            return answer

        await call("engine::workers::register", {"runtime": "test", "name": "again"})
        for n in range(TIMES // 10):
            for _ in range(10):
                await bare.tell(type="registerfunction", id=f"f::{n}", metadata="x" * 1000)
                await bare.tell(type="unregisterfunction", id=f"f::{n}")
        await bare.tell(type="registerfunction", id="f::last", metadata="x" * 1000)
        await call("engine::workers::list", {})
        assert engine.statistics().functions == 1 and engine.statistics().calls == 0
        (session,) = [each for each in engine._shell.hub.sessions.values() if not each.in_process]
        assert len(session.functions) == 1 and 1000 < session.registration_bytes < 2000


@within(10_000)
async def test_connections_and_sessions(autojump_clock: trio.testing.MockClock) -> None:
    async with iii_trio.open_engine(EngineConfig(limits=Limits(connections=1, sessions=1))) as engine:
        for _ in range(1000):
            async with connected(engine) as bare:
                assert bare.status == 101
            await trio.testing.wait_all_tasks_blocked()
        assert engine.statistics().connections == engine.statistics().sessions == 0
        assert engine._shell.memory.used_bytes == 0 and not engine._shell.memory_accounts


@pytest.mark.slow
def test_bindings_trigger_types_and_durable_bindings() -> None:
    """Each bound admits one at a time, and what is withdrawn makes room, also by a session's end."""
    limits = Limits(
        bindings_per_session=1, event_bindings_per_session=1, trigger_types_per_session=1, durable_bindings=1,
        registration_bytes=4000,
    )  # fmt: skip
    talk = Conversation(EngineConfig(limits=limits))
    peer = talk.join("peer")
    for n in range(TIMES):
        type_ = "engine::workers-available" if n % 2 else "tide"
        peer.say({"type": "registertriggertype", "id": f"t{n}", "description": "x" * 1000})
        peer.say({"type": "unregistertriggertype", "id": f"t{n}"})
        binding = {"id": f"b{n}", "trigger_type": type_, "function_id": "f", "config": "x" * 1000}
        peer.say({"type": "registertrigger", **binding})
        peer.say({"type": "unregistertrigger", "id": f"b{n}"})
        made = peer.ask("engine::register_trigger", {"trigger_type": type_, "function_id": "f", "config": "x" * 1000})
        assert peer.ask("engine::unregister_trigger", {"id": made["id"]}) == {"removed": True}
        if n % 100 == 0:
            peer.say({"type": "registertrigger", **binding})
            peer.leave()
            peer = talk.join("peer")
        talk.effects.clear()
    triggers = talk.hub.triggers
    assert not peer.hears() and len(triggers) == triggers.durable == triggers.durable_bytes == 0
    assert not triggers._counts and peer.session.registration_bytes == 0 and not talk.hub.state.events


def test_standbys_and_the_names_that_workers_wait_for() -> None:
    talk = Conversation(EngineConfig(limits=Limits(functions_per_session=1, registration_bytes=4000)))
    owner = talk.join("owner")
    owner.offer("f")
    for n in range(TIMES // 10):
        standby = talk.join(f"standby {n}")
        standby.say({"type": "registerfunction", "id": "f", "metadata": "x" * 1000})
        standby.say({"type": "unregisterfunction", "id": "f"})
        standby.say({"type": "registerfunction", "id": "f", "metadata": "x" * 1000})
        talk.silent.add(owner.session.id)
        newcomer = talk.connect()
        newcomer.register("owner")
        newcomer.leave()
        standby.leave()
        talk.act(talk.hub.sign_of_life_known(owner.session.id, False, talk.now))
        talk.effects.clear()
        talk.peers = {owner.session.id: owner}
    assert len(talk.hub.sessions) == 1 and not talk.hub.state.name_waiters.waiting
    function = talk.hub.registry.find("default", "f")
    assert function is not None and function.owner is owner.session and not talk.hub.registry.standbys(function)
