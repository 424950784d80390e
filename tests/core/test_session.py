"""A session: its life, and the one step in which it ends."""

from __future__ import annotations

import logging

import pytest

from iii_trio.core.effects import EndChannel, HangUp, Log, Send
from iii_trio.core.session import SessionState
from iii_trio.wire import FEATURE
from tests.helpers.conversation import Conversation, call_id


def test_a_worker_is_greeted_with_its_id_and_secrets_of_its_own() -> None:
    talk = Conversation()
    one, two = talk.connect(), talk.connect()
    (hello,), (other,) = one.hears(), two.hears()
    assert hello["type"] == "workerregistered" and hello["worker_id"] == one.id
    assert hello["features"] == [FEATURE]
    secrets = {hello["reattach_token"], hello["channel_secret"], other["reattach_token"], other["channel_secret"]}
    assert len(secrets | {one.id, two.id}) == 6


def test_secrets_are_not_in_what_a_session_looks_like() -> None:
    session = Conversation().connect().session
    assert session.reattach_token not in repr(session) and session.channel_secret not in repr(session)


def test_C4_5_a_session_ends_in_one_step_and_in_its_order() -> None:
    talk = Conversation()
    provider = talk.join("provider")
    provider.say({"type": "registertriggertype", "id": "tide"})
    watch = talk.join("watch")
    watch.offer("watch::workers")
    watch.say(
        {
            "type": "registertrigger",
            "id": "w",
            "trigger_type": "engine::workers-available",
            "function_id": "watch::workers",
        }
    )
    harbour = talk.connect()
    harbour.register("harbour", features=[FEATURE])
    harbour.offer("tide::next")
    harbour.ask("engine::channels::create")
    harbour.say({"type": "registertrigger", "id": "b", "trigger_type": "tide", "function_id": "tide::next"})
    ours = talk.connect()
    ours.register("ours", features=[FEATURE])
    ours.offer("ours::it")
    ours.call("tide::next", number=1)
    harbour.call("ours::it", number=2)
    for peer in talk.peers.values():
        peer.hears()
    talk.effects.clear()
    harbour.leave("the cable was cut")
    told = [(type(effect).__name__, getattr(effect, "session", "")) for effect in talk.effects]
    assert told == [
        ("EndChannel", ""),  # what it owned
        ("Send", ours.id),  # the call that it was answering fails
        ("Send", ours.id),  # the handler of its own call is cancelled
        ("Send", provider.id),  # its binding is withdrawn
        ("Deliver", watch.id),  # listeners are told
        ("Log", ""),
    ]
    answer, cancelled = ours.hears()
    why = f"worker 'harbour' ({harbour.id}) is gone: the cable was cut"
    assert answer["error"] == {"code": "invocation_stopped", "message": f"Invocation stopped: {why}"}
    assert cancelled["invocation_id"] == call_id(2) and "the cable was cut" in cancelled["reason"]
    assert harbour.hears() == []


def test_a_session_ends_once() -> None:
    talk = Conversation()
    harbour = talk.join("harbour")
    assert talk.hub.disconnected(harbour.session, "first", 0.0)
    assert talk.hub.disconnected(harbour.session, "second", 0.0) == []
    assert harbour.session.state.current is SessionState.GONE


def test_what_a_session_says_after_its_end_is_not_heard() -> None:
    talk = Conversation()
    harbour = talk.join("harbour")
    harbour.leave()
    harbour.offer("late")
    harbour.say({"type": "ping"})
    assert harbour.hears() == [] and talk.hub.registry.find("default", "late") is None


def test_an_engine_that_closes_hangs_up_on_everybody_so_that_they_try_again() -> None:
    talk = Conversation()
    peers = [talk.join("one"), talk.join("two"), talk.connect()]
    peers[0].ask("engine::channels::create")
    talk.effects.clear()
    talk.act(talk.hub.close("the engine was closed", 1.0))
    assert isinstance(talk.effects[0], EndChannel)
    assert {(effect.session, effect.code) for effect in talk.effects if isinstance(effect, HangUp)} == {
        (peer.id, 1012) for peer in peers
    }
    assert not talk.hub.sessions and talk.hub.next_due() is None
    assert talk.hub.close("again", 2.0) == []


@pytest.mark.parametrize("said", [{"runtime": "python"}, {"runtime": "node", "namespace": "fleet"}, {}])
def test_every_line_of_the_log_names_the_session(said: dict[str, str]) -> None:
    talk = Conversation()
    peer = talk.connect()
    peer.register("harbour", **said)
    peer.offer("engine::workers::list")
    peer.say("nonsense")
    peer.leave()
    lines = [effect for effect in talk.effects if isinstance(effect, Log)]
    assert len(lines) >= 4 and all(effect.fields["session"] == peer.id for effect in lines)
    assert [effect for effect in talk.effects if isinstance(effect, Send)]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_blank_message_is_passed_over_and_nothing_else_is(text: str) -> None:
    talk = Conversation()
    worker = talk.join("worker")
    talk.effects.clear()
    worker.say(text)
    assert talk.effects == []
    worker.say("otlp{}")
    assert [effect.level for effect in talk.effects if isinstance(effect, Log)] == [logging.WARNING]
