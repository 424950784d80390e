"""A session: its life, and the one step in which it ends."""

from __future__ import annotations

import logging

import pytest

from iii_trio.config import EngineConfig
from iii_trio.core.effects import EndChannel, HangUp, Log, Send
from iii_trio.core.hub import Hub
from iii_trio.core.request import Request
from iii_trio.core.session import SessionState, sanitised
from iii_trio.errors import CallError
from iii_trio.wire import FEATURE, InvokeFunction
from tests.helpers.conversation import Conversation, call_id, counted_ids


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


def test_a_session_is_named_by_its_worker_or_by_its_id() -> None:
    talk = Conversation()
    named, nameless = talk.join("w" * 50).session, talk.connect().session
    assert named.label == f"worker '{'w' * 50}' ({named.id})" and nameless.label == f"worker {nameless.id}"
    assert named.short_label == f"worker '{'w' * 40}'" and nameless.short_label == f"worker {nameless.id}"


def test_a_name_has_at_most_280_characters_and_none_that_could_fool_a_reader() -> None:
    assert sanitised("x" * 281) == "x" * 280 and sanitised(" a\x00b\u202e ") == "ab"
    assert sanitised(None) is sanitised("") is sanitised(" \x1b ") is None


def test_the_engines_own_modules_are_no_external_sessions() -> None:
    talk = Conversation()
    talk.join("worker")
    talk.join("other")
    for modules in (1, 2):
        session, effects = talk.hub.connected(0.0, 0, peer=None, in_process=True, internal=True)
        assert (talk.hub.external_sessions, len(talk.hub.sessions)) == (2, 2 + modules)
    assert [effect.level for effect in effects if isinstance(effect, Log)] == [logging.DEBUG]
    talk.hub.disconnected(session, "it ended", 0.0)
    assert (talk.hub.external_sessions, len(talk.hub.sessions)) == (2, 3)


def test_the_comings_and_goings_of_the_engines_own_modules_are_logged_for_debugging_only() -> None:
    for internal, level in ((True, logging.DEBUG), (False, logging.INFO)):
        talk = Conversation()
        peer = talk.connect(in_process=True, internal=internal)
        peer.register("peer")
        peer.leave()
        logged = {each.message.partition(")")[2][:7]: each.level for each in talk.effects if isinstance(each, Log)}
        assert logged[" serves"] == level


def test_a_request_is_answered_once() -> None:
    talk = Conversation()
    peer = talk.connect()
    peer.hears()
    for first, then in (("reply", "fail"), ("fail", "reply"), ("reply", "reply"), ("fail", "fail")):
        message = InvokeFunction("f", call_id(1))
        request = Request(peer.session, message, call_id(1), lambda effect: talk.act([effect]), 0.0)
        for how in (first, then):
            if how == "reply":
                request.reply(how)
            else:
                request.fail(CallError("c", "m"))
        (heard,) = peer.hears()
        assert ("error" in heard) is (first == "fail")


def test_an_engine_without_a_time_of_its_start_says_0() -> None:
    hub = Hub(EngineConfig(), counted_ids())
    assert (hub.state.started_at_ms, hub.state.version) == (0, None)
