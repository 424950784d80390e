"""Every setting of an engine takes effect at a reload, both ways. A setting that is missing here fails the last test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import pytest
import trio
import trio.testing

from iii_trio import CallError, ChannelDefaults, Engine, EngineConfig, Limits, Timeouts, open_engine
from iii_trio.config import RbacConfig
from iii_trio.core.access import Access
from iii_trio.core.admission import Credentials
from iii_trio.core.channels import Refused
from iii_trio.core.effects import AskSignOfLife
from iii_trio.wire import Direction
from tests.helpers.bare import Bare, connected, within
from tests.helpers.conversation import Conversation, Peer

Probe = Callable[[Conversation], object]


# --- the core: each probe is a new worker, and returns whether it was refused, or what it was given


def registers(kind: str, count: int, **more: Any) -> Probe:
    """Register so many, and return whether the last one was refused."""

    def probe(talk: Conversation) -> bool:
        peer = talk.join(f"peer {len(talk.peers)}")
        refusals = 0
        for number in range(count):
            id_ = f"{peer.session.id}-{number}"
            match kind:
                case "function":
                    peer.say({"type": "registerfunction", "id": id_, **more})
                case "type":
                    before = len(peer.session.trigger_types)
                    peer.say({"type": "registertriggertype", "id": id_, "description": "d", **more})
                    refusals += len(peer.session.trigger_types) == before
                case _:
                    binding = {"trigger_type": "tide", "function_id": "f", **more}
                    peer.say({"type": "registertrigger", "id": id_, **binding})
        refusals += sum("reject" in each["type"] or "error" in each for each in peer.hears())
        peer.leave()
        return refusals > 0

    return probe


def durable(talk: Conversation) -> bool:
    peer = talk.join(f"peer {len(talk.peers)}")
    made = [
        peer.ask("engine::register_trigger", {"trigger_type": "tide", "function_id": "f"}, number=n) for n in (1, 2)
    ]
    for each in made:
        if "id" in each:
            peer.ask("engine::unregister_trigger", {"id": each["id"]}, number=3)
    peer.leave()
    return any("code" in each for each in made)


def makes_channels(**more: Any) -> Probe:
    def probe(talk: Conversation) -> bool:
        peer = talk.join(f"peer {len(talk.peers)}")
        made = [peer.ask("engine::channels::create", more, number=n) for n in (1, 2)]
        peer.leave()
        return any("code" in each for each in made)

    return probe


def channel_field(name: str) -> Probe:
    def probe(talk: Conversation) -> object:
        peer = talk.join(f"peer {len(talk.peers)}")
        peer.ask("engine::channels::create", {})
        (row,) = peer.ask("engine::channels::list", {}, number=2)["channels"]
        peer.leave()
        return row[name]

    return probe


def remembered(talk: Conversation) -> int:
    peer = talk.join(f"peer {len(talk.peers)}")
    for number in range(3):
        made = peer.ask("engine::channels::create", {}, number=number + 1)["writer"]
        channel = talk.hub.attach(made["channel_id"], made["access_key"], Direction.WRITE, talk.now, None)
        assert not isinstance(channel, Refused)
    peer.leave()
    return len(talk.hub.channels.ended())


def pending_calls(talk: Conversation) -> bool:
    peer = talk.join(f"peer {len(talk.peers)}")
    peer.offer(f"f{len(talk.peers)}")
    for number in range(3):
        peer.call(f"f{len(talk.peers)}", number=number + 1)
    stopped = [each for each in peer.hears() if each.get("error")]
    peer.leave()
    return bool(stopped)


def held_back(talk: Conversation) -> bool:
    peer = talk.connect()
    for number in range(3):
        peer.say({"type": "registerfunction", "id": f"{peer.session.id}-{number}"})
    closed = peer.session.id in talk.hung_up
    peer.leave()
    return closed


def grace(talk: Conversation) -> float:
    """The seconds until a function of a worker that does not name its namespace can be called."""
    peer = talk.connect()
    function_id = f"g{len(talk.peers)}"
    peer.say({"type": "registerfunction", "id": function_id})
    began = talk.now
    while talk.hub.registry.find("default", function_id) is None:
        talk.wait(0.5)
    peer.leave()
    return talk.now - began


def challenge(talk: Conversation) -> float:
    holder = talk.join("shared")
    talk.silent.add(holder.session.id)
    newcomer = talk.connect()
    newcomer.register("shared")
    (question,) = [each for each in talk.effects if isinstance(each, AskSignOfLife)]
    talk.effects.clear()
    for peer in (newcomer, holder):
        peer.leave()
    return question.seconds


def access(talk: Conversation) -> float:
    """The seconds that a connection waits for an auth function that does not answer."""
    guard = talk.join("guard")
    guard.offer("guard::auth")
    guarded = talk.connect(
        access=Access(RbacConfig(auth_function_id="guard::auth")), credentials=Credentials({}, {}, "")
    )
    began = talk.now
    while guarded.session.id not in talk.hung_up:
        talk.wait(0.5)
    guard.leave()
    return talk.now - began


def comes_back(talk: Conversation) -> bool:
    """Whether a lost worker's channel waits for it."""
    peer: Peer = talk.connect()
    peer.register(f"peer {len(talk.peers)}", features=["iii-trio.v1"])
    made = peer.ask("engine::channels::create", {})["writer"]
    talk.act(talk.hub.disconnected(peer.session, "lost", talk.now, may_come_back=True))
    waits = talk.hub.channels.get(made["channel_id"]) is not None
    talk.wait(1000)
    return waits


CORE: Final[dict[str, tuple[object, object, Probe, object, object]]] = {
    # field: a value, another value, the probe, and what it returns for each
    "limits.functions_per_session": (1, 9, registers("function", 2), True, False),
    "limits.trigger_types_per_session": (1, 9, registers("type", 2), True, False),
    "limits.bindings_per_session": (1, 9, registers("binding", 2), True, False),
    "limits.event_bindings_per_session": (
        1, 9, registers("binding", 2, trigger_type="engine::workers-available"), True, False),
    "limits.registration_bytes": (2000, 200_000, registers("function", 2, metadata="x" * 2000), True, False),
    "limits.held_back_registrations": (2, 9, held_back, True, False),
    "limits.durable_bindings": (1, 9, durable, True, False),
    "limits.channels": (1, 9, makes_channels(), True, False),
    "limits.channel_bytes": (2**20, 2**22, makes_channels(max_bytes=2**21), True, False),
    "limits.calls_per_session": (2, 9, pending_calls, True, False),
    "limits.channels_per_session": (1, 9, makes_channels(), True, False),
    "channels.buffer_size": (7, 9, channel_field("buffer_size"), 7, 9),
    "channels.max_bytes": (1000, 5000, channel_field("max_bytes"), 1000, 5000),
    "channels.expires_after_seconds": (None, 9.0, channel_field("expires_after_seconds"), None, 9.0),
    "channels.ended_remembered": (1, 0, remembered, 1, 0),
    "timeouts.registration_grace_seconds": (1.0, 3.0, grace, 1.0, 3.0),
    "timeouts.name_challenge_seconds": (1.0, 3.0, challenge, 1.0, 3.0),
    "timeouts.access_seconds": (1.0, 3.0, access, 1.0, 3.0),
    "timeouts.reattach_grace_seconds": (0.0, 30.0, comes_back, False, True),
}  # fmt: skip


def configured(field: str, value: object) -> EngineConfig:
    section, name = field.split(".")
    sections = {"limits": Limits, "channels": ChannelDefaults, "timeouts": Timeouts}
    # The reserve counts from here on.
    more = {"outbox_bytes": 1000} if name == "outbox_reserve_bytes" else {}
    return EngineConfig(**{section: sections[section](**{name: value, **more})})


@pytest.mark.parametrize("field", CORE)
def test_a_setting_of_the_core_is_changed_by_a_reload_and_back(field: str) -> None:
    one, other, probe, of_one, of_other = CORE[field]
    talk = Conversation(configured(field, one))
    assert probe(talk) == of_one
    for value, expected in ((other, of_other), (one, of_one), (other, of_other)):
        talk.hub.reconfigure(configured(field, value))
        assert probe(talk) == expected, f"{field} of {value}"


# --- the shell: each probe is a new connection


async def upgrade_head(engine: Engine) -> object:
    """The status for a head of some 900 bytes."""
    async with connected(engine, X_Long="x" * 700) as bare:
        return bare.status


async def two_connections(engine: Engine) -> object:
    async with connected(engine), connected(engine) as second:
        return second.status


async def silent_handshake(engine: Engine) -> object:
    """The seconds after which a connection that says nothing is dropped."""
    near, far = trio.testing.memory_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.serve_stream, far)
        await near.receive_some()
        nursery.cancel_scope.cancel()
    return round(trio.current_time() - began)


async def large_message(engine: Engine) -> object:
    """The close code for a message of 2,000 bytes, or None."""
    async with connected(engine) as bare:
        await bare.message()
        await bare.say(1, b'{"type":"ping","x":"' + b"x" * 2000 + b'"}')
        frame = await bare.frame()
        assert frame is not None
        return int.from_bytes(frame[1][:2], "big") if frame[0] == 8 else None


async def unanswered_close(engine: Engine) -> object:
    """The seconds from a Close of the engine until it drops the connection."""
    async with connected(engine) as bare:
        await bare.message()
        (session,) = [each for each in engine._shell.hub.sessions.values() if not each.in_process]
        engine._shell.close_session(session.id, 1000, "bye")
        began = trio.current_time()
        while await bare.frame() is not None:
            pass
        return round(trio.current_time() - began)


async def silence(engine: Engine) -> object:
    """Whether a worker that answers no ping is cut off, within a quarter more than 40 seconds."""
    async with connected(engine) as bare:
        await bare.message()
        began = trio.current_time()
        with trio.move_on_after(1000):
            while (frame := await bare.frame()) is not None and frame[0] != 8:
                pass
            return 40 <= trio.current_time() - began <= 50
        return False


@asynccontextmanager
async def clogged(engine: Engine) -> AsyncIterator[Bare]:
    """A worker that offers `slow`, and takes nothing more."""
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.serve_stream, far)
        bare = Bare(near)
        await bare.ask("/")
        await bare.message()
        for frame in (
            {
                "type": "invokefunction",
                "function_id": "engine::workers::register",
                "data": {},
                "action": {"type": "void"},
            },
            {"type": "registerfunction", "id": "slow"},
        ):
            await bare.tell(**frame)
        await trio.testing.wait_all_tasks_blocked()
        yield bare
        await trio.aclose_forcefully(near)
        nursery.cancel_scope.cancel()


async def stalled(engine: Engine) -> object:
    """The seconds until a worker that takes nothing is cut off."""
    async with clogged(engine), engine.open_worker() as caller:
        began = trio.current_time()
        with pytest.raises(CallError, match="invocation_stopped"):
            await caller.trigger("slow")
        return round(trio.current_time() - began)


async def refused_call(engine: Engine) -> object:
    """Whether a third call of 4,000 bytes to a worker that takes nothing is refused."""
    async with clogged(engine), engine.open_worker() as caller:
        codes: list[str] = []

        async def call() -> None:
            try:
                await caller.trigger("slow", "x" * 4_000)
            except CallError as error:
                codes.append(error.code)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        return "channel_send_failed" in codes


async def cut_off(engine: Engine) -> object:
    """Whether a worker that does not take 200 lists is cut off."""
    async with clogged(engine) as bare:
        (session,) = [each for each in engine._shell.hub.sessions.values() if not each.in_process]
        for number in range(200):
            if session.state.is_final:
                break
            id_ = f"0b7f1a36-6a53-4d0e-9d8b-{number:012}"
            await bare.tell(type="invokefunction", invocation_id=id_, function_id="engine::baggage::get_all", data={})
        return session.state.is_final


async def memory_limit(engine: Engine) -> object:
    return engine._shell.memory.limit_bytes


SHELL: Final[dict[str, tuple[object, object, Callable[[Engine], Awaitable[object]], object, object]]] = {
    "limits.head_bytes": (500, 5000, upgrade_head, 431, 101),
    "limits.connections": (1, 9, two_connections, 503, 101),
    "limits.sessions": (1, 9, two_connections, 503, 101),
    "limits.handshake_seconds": (3.0, 20.0, silent_handshake, 3, 20),
    "limits.message_bytes": (1000, 100_000, large_message, 1009, None),
    "limits.memory_bytes": (1_000_000, 2_000_000, memory_limit, 1_000_000, 2_000_000),
    "timeouts.goodbye_seconds": (2.0, 9.0, unanswered_close, 2, 9),
    "timeouts.silent_worker_seconds": (None, 40.0, silence, False, True),
    "timeouts.stalled_session_seconds": (20.0, 45.0, stalled, 20, 45),
    "limits.outbox_bytes": (5_000, 50_000, refused_call, True, False),
    "limits.outbox_reserve_bytes": (5_000, 500_000, cut_off, True, False),
}

ELSEWHERE: Final = {
    "timeouts.dead_peer_seconds": "an option of each socket (tests/transport/test_silence.py)",
}
"""Settings that have no effect in memory, and the tests that are about them."""


@pytest.mark.parametrize("field", SHELL)
@within(100_000)
async def test_a_setting_of_the_shell_is_changed_by_a_reload_and_back(
    field: str, autojump_clock: trio.testing.MockClock
) -> None:
    one, other, probe, of_one, of_other = SHELL[field]
    async with open_engine(attrs.evolve(configured(field, one), listeners=())) as engine:
        assert await probe(engine) == of_one
        for value, expected in ((other, of_other), (one, of_one), (other, of_other)):
            await engine.reload(attrs.evolve(configured(field, value), listeners=()))
            await trio.testing.wait_all_tasks_blocked()
            assert await probe(engine) == expected, f"{field} of {value}"


def test_no_setting_is_forgotten_here() -> None:
    fields = {
        f"{section}.{field.name}"
        for section, kind in (("limits", Limits), ("channels", ChannelDefaults), ("timeouts", Timeouts))
        for field in attrs.fields(kind)
    }
    assert fields == {*CORE, *SHELL, *ELSEWHERE}
