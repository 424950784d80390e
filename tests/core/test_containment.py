"""An error of the engine's own code is answered, logged once, and ends only the message that led to it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from iii_trio.core import calls, engine_functions, hub, registration, routing, trigger_handlers
from iii_trio.core.effects import Log
from iii_trio.wire import RegisterFunction, RegisterTrigger, TriggerRegistrationResult

from ..helpers.conversation import Conversation, Peer, call_id

UNDECODABLE = Raw(b'{"internal":true,"n":1e999}')


def handle(talk: Conversation, handler: Callable[..., None], peer: Peer, message: object) -> None:
    """Give a message to its handler, past the checks that refuse JSON that cannot be decoded."""
    handler(talk.hub.state, peer.session, message, talk.now)
    talk.act(talk.hub.state.take_effects())


def raising(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("a bug of ours")


def faults(talk: Conversation) -> list[Log]:
    return [effect for effect in talk.effects if isinstance(effect, Log) and effect.level >= logging.ERROR]


def still_works(talk: Conversation, peer: Peer) -> None:
    assert peer.id in talk.hub.sessions and peer.id not in talk.hung_up
    assert peer.ask("engine::channels::ended", number=99) == {"channels": []}


def test_an_engine_function_that_raises_is_an_error_to_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation()
    boats, other = talk.join("boats"), talk.join("other")
    monkeypatch.setitem(engine_functions.ENGINE_FUNCTIONS, "engine::functions::list", (raising, ""))
    error = boats.ask("engine::functions::list")
    assert error["code"] == "invocation_error" and "RuntimeError" in error["message"]
    [line] = faults(talk)
    assert isinstance(line.error, RuntimeError) and line.error.__traceback__ is not None
    assert line.fields == {"session": boats.id, "function": "engine::functions::list"} and line.peer_controlled
    boats.call("engine::functions::list", action={"type": "void"}, number=2)
    assert boats.hears() == [] and len(faults(talk)) == 2
    still_works(talk, boats)
    still_works(talk, other)


def test_a_result_that_json_cannot_hold_is_an_error_to_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation()
    boats = talk.join("boats")
    reply = (lambda state, request: request.reply({"bad": object()}), "")
    monkeypatch.setitem(engine_functions.ENGINE_FUNCTIONS, "engine::functions::list", reply)
    assert boats.ask("engine::functions::list")["code"] == "invocation_error"
    assert len(faults(talk)) == 1
    still_works(talk, boats)


def test_a_call_that_cannot_be_delivered_for_a_bug_is_answered_and_not_entered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    harbour.offer("tide::next")
    monkeypatch.setattr(routing, "with_caller", raising)
    boats.call("tide::next")
    assert [frame["error"]["code"] for frame in boats.hears()] == ["invocation_error"]
    assert not harbour.hears() and not talk.hub.calls
    assert len(faults(talk)) == 1


def test_a_result_that_cannot_be_passed_on_for_a_bug_fails_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    harbour.offer("tide::next")
    boats.call("tide::next")
    harbour.hears()
    monkeypatch.setattr(calls, "result_text", raising)
    harbour.answer(call_id(1), result=7)
    [answer] = boats.hears()
    assert answer["error"]["code"] == "serialization_error" and "RuntimeError" in answer["error"]["message"]
    assert not talk.hub.calls and len(faults(talk)) == 1
    still_works(talk, harbour)
    still_works(talk, boats)


def test_one_registration_that_fails_for_a_bug_is_refused_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talk = Conversation()
    peer = talk.connect()
    peer.hears()
    real = registration.size_of
    monkeypatch.setattr(registration, "size_of", lambda message: raising() if message.id == "b" else real(message))
    peer.offer("a", "b", "c")
    peer.call("engine::workers::register", {"name": "peer"})
    rejected, answer = peer.hears()
    assert rejected["function_id"] == "b" and answer["result"] == {"success": True}
    assert peer.session.functions == {("default", "a"), ("default", "c")} and len(faults(talk)) == 1


def test_a_binding_that_fails_for_a_bug_is_refused_to_its_binder(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation()
    peer = talk.join("peer")
    monkeypatch.setattr(trigger_handlers, "size_of", raising)
    peer.say({"type": "registertrigger", "id": "b", "trigger_type": "tide", "function_id": "f", "config": None})
    [result] = peer.hears()
    assert (result["type"], result["id"], result["error"]["code"]) == (
        "triggerregistrationresult", "b", "invocation_error",
    )  # fmt: skip
    assert not len(talk.hub.triggers) and len(faults(talk)) == 1


def test_the_maker_of_a_durable_binding_is_answered_if_the_providers_word_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    harbour.say({"type": "registertriggertype", "id": "tide"})
    boats.call("engine::register_trigger", {"trigger_type": "tide", "function_id": "f"})
    (offered,) = harbour.hears()
    monkeypatch.setattr(trigger_handlers, "is_error", raising)
    harbour.say({**offered, "type": "triggerregistrationresult", "error": {"code": "no", "message": "x"}})
    assert [frame["error"]["code"] for frame in boats.hears()] == ["trigger_registration_failed"]
    still_works(talk, harbour)


@pytest.mark.parametrize("about", ["anothers", "nothing"])
def test_a_word_about_a_binding_that_cannot_be_read_answers_no_maker_unless_it_is_its_providers(
    about: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Conversation()
    harbour, boats, other = talk.join("harbour"), talk.join("boats"), talk.join("other")
    harbour.say({"type": "registertriggertype", "id": "tide"})
    boats.call("engine::register_trigger", {"trigger_type": "tide", "function_id": "f"})
    (offered,) = harbour.hears()
    monkeypatch.setattr(hub, "_HANDLERS", {**hub._HANDLERS, TriggerRegistrationResult: raising})
    id_ = offered["id"] if about == "anothers" else "nothing"
    other.say({**offered, "id": id_, "type": "triggerregistrationresult", "error": {"code": "no", "message": "x"}})
    assert len(faults(talk)) == 1 and boats.hears() == [] == other.hears()
    monkeypatch.undo()
    harbour.say({**offered, "type": "triggerregistrationresult", "error": {"code": "no", "message": "ebb"}})
    assert [frame["error"]["message"] for frame in boats.hears()] == ["no: ebb"]
    still_works(talk, other)


@pytest.mark.parametrize("error", ['{"code":"no","message":"ebb","n":1e999}', '{"code":1e999}', '"' + "[" * 2000 + '"'])
def test_a_refusal_that_cannot_be_decoded_whole_still_answers(error: str) -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    harbour.say({"type": "registertriggertype", "id": "tide"})
    boats.call("engine::register_trigger", {"trigger_type": "tide", "function_id": "f"})
    (offered,) = harbour.hears()
    message = TriggerRegistrationResult(offered["id"], "tide", "f", Raw(error.encode()))
    handle(talk, trigger_handlers.provider_answered, harbour, message)
    assert [frame["error"]["code"] for frame in boats.hears()] == ["trigger_registration_failed"]
    assert not len(talk.hub.triggers) and not faults(talk)


def test_metadata_that_cannot_be_decoded_is_shown_as_such_and_spoils_no_list() -> None:
    talk = Conversation()
    peer, other = talk.join("peer"), talk.join("other")
    message = RegisterFunction("f", metadata=UNDECODABLE)
    handle(talk, registration.register_function, peer, message)
    listed = other.ask("engine::functions::list", {"include_internal": True})["functions"]
    [row] = [row for row in listed if row["function_id"] == "f"]
    assert "out of range" in row["metadata"]["undecodable"]
    assert other.ask("engine::functions::info", {"function_id": "f"})["metadata"] == row["metadata"]
    assert other.ask("engine::workers::info", {"name": "peer"})["functions"] == [row]
    assert not faults(talk)


def test_a_configuration_that_cannot_be_decoded_is_shown_as_such_and_spoils_no_list() -> None:
    talk = Conversation()
    peer, other = talk.join("peer"), talk.join("other")
    peer.offer("f")
    peer.say({"type": "registertriggertype", "id": "tide"})
    for id_, config in (("good", Raw(b'{"a":1}')), ("bad", UNDECODABLE)):
        handle(talk, trigger_handlers.register, peer, RegisterTrigger(id_, "tide", "f", config, config))
    bad, good = other.ask("engine::registered-triggers::list")["registered_triggers"]
    assert good["config"] == {"a": 1} and good["config_summary"] == '{"a":1}'
    assert "out of range" in bad["config"]["undecodable"] and "cannot be decoded" in bad["config_summary"]
    detail = other.ask("engine::registered-triggers::info", {"id": "bad"})
    assert "out of range" in detail["metadata"]["undecodable"]
    [first, _] = other.ask("engine::functions::info", {"function_id": "f"})["registered_triggers"]
    assert "undecodable" in first["config"]
    assert not faults(talk)
