"""Every message type, every raw part, every bad value: its sender alone is told, and a bystander goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iii_trio.config import RbacConfig
from iii_trio.core.access import Access
from iii_trio.core.effects import Log
from iii_trio.wire import MAX_ENGINE_INPUT_BYTES, Undecodable
from tests.helpers.conversation import Conversation, Peer, call_id

BAD = {
    "range": '{"internal":true,"n":1e999}', "digits": '{"internal":true,"n":' + "9" * 5000 + "}",
    "depth": '{"internal":true,"n":' + "[" * 984 + "]" * 984 + "}", "surrogate": '{"internal":true,"n":"\\ud800"}',
    "nan": '{"internal":true,"n":NaN}',
}  # fmt: skip
FIELDS = [
    ("registerfunction", {"id": "evil::f"}, "request_format"),
    ("registerfunction", {"id": "evil::f"}, "response_format"),
    ("registerfunction", {"id": "evil::f"}, "metadata"),
    ("registerfunction", {"id": "evil::f"}, "invocation"),
    ("registertriggertype", {"id": "evil"}, "trigger_request_format"),
    ("registertriggertype", {"id": "evil"}, "call_request_format"),
    ("registertrigger", {"id": "b", "trigger_type": "tide", "function_id": "evil::g"}, "config"),
    ("registertrigger", {"id": "b", "trigger_type": "tide", "function_id": "evil::g"}, "metadata"),
    ("invokefunction", {"function_id": "engine::functions::list"}, "data"),
    ("invokefunction", {"function_id": "engine::register_trigger"}, "data"),
    ("invokefunction", {"function_id": "x", "action": {"type": "enqueue", "queue": "default"}}, "metadata"),
]
LISTS = [
    "engine::functions::list", "engine::triggers::list", "engine::registered-triggers::list", "engine::workers::list",
    "engine::channels::list",
]  # fmt: skip


def say(peer: Peer, kind: str, fields: dict[str, Any], field: str, value: str) -> None:
    text = json.dumps({"type": kind, **fields})
    peer.say(f'{text[:-1]},"{field}":{value}}}')


class Bystander:
    """A worker with a channel, which provides a trigger type, and one that calls it."""

    def __init__(self, talk: Conversation) -> None:
        self.caller, self.callee = talk.join("caller"), talk.join("callee")
        self.callee.offer("good::f")
        self.callee.say({"type": "registertriggertype", "id": "tide"})
        self.channel = self.caller.ask("engine::channels::create")["writer"]["channel_id"]
        self.caller.call("good::f", {"before": 1}, 7)
        self.waiting = self.callee.hears()[-1]

    def goes_on(self) -> None:
        self.callee.answer(call_id(7), result=1)
        self.caller.call("good::f", {}, 8)
        self.callee.answer(call_id(8), result=2)
        assert [frame["result"] for frame in self.caller.hears()] == [1, 2]
        for function_id in LISTS:
            shown = self.caller.ask(function_id, {"include_internal": True})
            assert "code" not in shown, (function_id, shown)
        channels = self.caller.ask("engine::channels::list")["channels"]
        assert [row["id"] for row in channels] == [self.channel]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("kind", "fields", "field"), FIELDS, ids=lambda part: part if isinstance(part, str) else "")
def test_only_the_sender_is_told(kind: str, fields: dict[str, Any], field: str, bad: str) -> None:
    talk = Conversation()
    bystander, evil = Bystander(talk), talk.join("evil")
    if kind == "invokefunction":
        fields = {"invocation_id": call_id(1), **fields}
    talk.effects.clear()
    say(evil, kind, fields, field, BAD[bad])
    told = evil.hears()
    if kind == "registertriggertype":  # there is no answer to it
        assert not told and any(isinstance(each, Log) and "evil" in each.message for each in talk.effects)
    else:
        (answer,) = told
        about = {"registerfunction": "function_id", "registertrigger": "id", "invokefunction": "invocation_id"}[kind]
        assert answer[about] == fields.get(about, "evil::f")
        if kind != "registerfunction":  # SDKs know one code for that, whatever the cause
            assert answer["error"]["code"] == "deserialization_error"
    assert not bystander.caller.inbox and not bystander.callee.inbox
    bystander.goes_on()
    assert evil.ask("engine::workers::list"), "the sender goes on, too"


@pytest.mark.parametrize("bad", BAD)
def test_the_worker_that_asked_for_a_binding_is_told_when_its_providers_answer_is_unreadable(bad: str) -> None:
    """A3: the error of the refusal cannot be read. The binder must not wait for ever."""
    talk = Conversation()
    bystander, provider, binder = Bystander(talk), talk.join("provider"), talk.join("binder")
    provider.say({"type": "registertriggertype", "id": "moon"})
    binder.say({"type": "registertrigger", "id": "b", "trigger_type": "moon", "function_id": "f"})
    binder.call("engine::register_trigger", {"trigger_type": "moon", "function_id": "f"}, 3)
    for offer in provider.hears():
        fields = {name: offer[name] for name in ("id", "trigger_type", "function_id")}
        say(provider, "triggerregistrationresult", fields, "error", BAD[bad])
    told = {frame["type"]: frame["error"] for frame in binder.hears()}
    assert told["triggerregistrationresult"]["code"] == "serialization_error"
    assert told["invocationresult"]["code"] == "trigger_registration_failed"
    assert "cannot be read" in told["invocationresult"]["message"]
    bystander.goes_on()


@pytest.mark.parametrize("field", ["result", "error"])
@pytest.mark.parametrize("bad", ["depth", "digits", "surrogate", "nan"])
def test_a_caller_is_told_when_the_answer_is_unreadable(bad: str, field: str) -> None:
    talk = Conversation()
    bystander, callee, caller = Bystander(talk), talk.join("callee 2"), talk.join("caller 2")
    callee.offer("f")
    caller.call("f", {}, 1)
    callee.hears()
    say(callee, "invocationresult", {"invocation_id": call_id(1)}, field, BAD[bad])
    (answer,) = caller.hears()
    assert answer["error"]["code"] == "serialization_error"
    pending = talk.hub.calls
    assert not pending.given_to(callee.session) and not pending.made_by(caller.session)
    bystander.goes_on()


@pytest.mark.parametrize("function_id", ["engine::functions::list", "engine::log::info", "engine::workers::register"])
def test_functions_of_the_engine_read_payloads_of_a_bounded_size(function_id: str) -> None:
    talk = Conversation()
    peer = talk.join("peer")
    room = MAX_ENGINE_INPUT_BYTES - len('{"message": "", "name": "peer"}')
    fits = {"message": "x" * room, "name": "peer"}
    assert "code" not in (peer.ask(function_id, fits) or {})
    error = peer.ask(function_id, {**fits, "more": 1})
    assert error["code"] == "payload_too_large" and str(MAX_ENGINE_INPUT_BYTES) in error["message"]


@pytest.mark.parametrize("field", ["name", "namespace"])
def test_the_names_of_a_worker_are_bounded(field: str) -> None:
    talk = Conversation()
    peer = talk.connect()
    peer.hears()
    error = peer.ask("engine::workers::register", {"name": "w", field: "x" * 1025})
    assert error["code"] == "deserialization_error" and f"`{field}` has 1025 characters" in error["message"]
    assert peer.ask("engine::workers::register", {"name": "w", field: "x" * 1024}) == {"success": True}


@pytest.mark.parametrize("field", ["trigger_type", "function_id", "trigger_namespace"])
def test_the_names_of_a_durable_binding_are_bounded(field: str) -> None:
    talk = Conversation()
    peer = talk.join("peer")
    names = {"trigger_type": "t", "function_id": "f"}
    error = peer.ask("engine::register_trigger", {**names, field: "x" * 1025})
    assert error["code"] == "deserialization_error" and f"`{field}`" in error["message"]
    assert peer.ask("engine::register_trigger", {**names, field: "x" * 1024}).keys() == {"id"}


def test_a_message_that_was_found_unreadable_before_is_answered_in_its_turn() -> None:
    talk = Conversation()
    gate = talk.join("gate")
    gate.offer("gate::hook", "gate::auth")
    problem = Undecodable("it is odd", "invokefunction", call_id(9))
    plain = talk.join("plain")
    talk.act(talk.hub.unreadable(plain.session, problem, talk.now))
    assert [frame["error"]["code"] for frame in plain.hears()] == ["deserialization_error"]

    ship = talk.connect(access=Access(RbacConfig(on_function_registration_function_id="gate::hook")))
    ship.register("ship")
    ship.hears()
    ship.offer("f")
    (asked,) = gate.hears()
    talk.act(talk.hub.unreadable(ship.session, problem, talk.now))
    assert ship.hears() == [] and ship.session.held is not None and len(ship.session.held) == 1
    gate.answer(asked["invocation_id"], result={})
    assert [frame["invocation_id"] for frame in ship.hears()] == [call_id(9)]

    waiting = talk.connect(access=Access(RbacConfig(auth_function_id="gate::auth")))
    plain.leave()
    for peer in (waiting, plain):
        assert talk.hub.unreadable(peer.session, problem, talk.now) == []
