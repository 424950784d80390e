"""Who a worker is and what it offers, where the golden conversations do not reach."""

from __future__ import annotations

from typing import Any

import pytest

from iii_trio.config import EngineConfig, Limits, RbacConfig, Timeouts
from iii_trio.core.access import Access, Grants
from iii_trio.core.effects import AskSignOfLife, AskUnreadInput, HangUp, Log, Send
from iii_trio.core.session import SessionState
from iii_trio.wire import FEATURE
from iii_trio.wire.codes import RELAY, RELAY_NODE, RELAY_WORKER
from tests.helpers.conversation import Conversation, Peer, call_id


def owners(talk: Conversation) -> dict[tuple[str, str], str]:
    return {(each.namespace, each.id): each.owner.id for each in talk.hub.registry if each.owner is not None}


# --- the namespace


def test_what_waits_for_the_namespace_takes_effect_in_its_order() -> None:
    talk = Conversation()
    peer = talk.connect()
    peer.hears()
    peer.offer("a")
    peer.say({"type": "unregisterfunction", "id": "a"})
    peer.offer("b", "engine::mine")
    peer.say({"type": "registertriggertype", "id": "tide"})
    peer.say({"type": "registertrigger", "id": "b1", "trigger_type": "tide", "function_id": "b"})
    assert owners(talk) == {} and not peer.hears()
    peer.register("peer", namespace="fleet")
    assert owners(talk) == {("fleet", "b"): peer.id}
    assert [frame["type"] for frame in peer.hears()] == ["registrationrejected", "registertrigger"]
    assert talk.hub.triggers.provider("fleet", "tide") is not None


def test_calls_and_results_do_not_wait_for_the_namespace() -> None:
    talk = Conversation()
    harbour = talk.join("harbour")
    harbour.offer("tide::next")
    early = talk.connect()
    early.call("tide::next")
    assert len(harbour.hears()) == 1


@pytest.mark.parametrize("grace", [0.0, 2.5])
def test_the_grace_is_as_long_as_configured(grace: float) -> None:
    talk = Conversation(EngineConfig(timeouts=Timeouts(registration_grace_seconds=grace)))
    peer = talk.connect()
    peer.offer("a")
    if grace:
        talk.wait(grace - 0.1)
        assert owners(talk) == {}
        talk.wait(0.1)
    else:
        talk.wait(0.0)
    assert owners(talk) == {("default", "a"): peer.id}
    assert talk.hub.next_due() is None


def test_after_the_grace_the_namespace_stays_and_the_rest_is_taken() -> None:
    talk = Conversation()
    peer = talk.connect()
    talk.wait(5)
    peer.register("late", namespace="fleet")
    assert peer.session.namespace == "default" and peer.session.info.name == "late"
    assert any(isinstance(effect, Log) and "too late" in effect.message for effect in talk.effects)
    peer.offer("a")
    assert owners(talk) == {("default", "a"): peer.id}
    assert talk.hub.registry.worker("default", "late") is peer.session


def test_a_worker_that_leaves_before_its_namespace_is_known_leaves_nothing() -> None:
    talk = Conversation()
    peer = talk.connect()
    peer.offer("a")
    peer.leave()
    assert talk.hub.next_due() is None
    talk.wait(10)
    assert owners(talk) == {}


def test_a_worker_may_say_anew_who_it_is() -> None:
    talk = Conversation()
    peer = talk.join("one", namespace="fleet")
    peer.register("two", namespace="fleet", version="9", features=[FEATURE])
    assert (peer.session.info.name, peer.session.info.version, peer.session.namespace) == ("two", "9", "fleet")
    assert talk.hub.registry.worker("fleet", "one") is None
    assert talk.join("one", namespace="fleet").session.state.current is SessionState.SERVING
    peer.register(None)
    assert talk.hub.registry.worker("fleet", "two") is None


# --- the name


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("  harbour  ", "harbour"),
        ("har\u202ebour\n\x00\x9f\u2066\u2028", "harbour"),
        ("x" * 300, "x" * 280),
        (" \t ", None),
        ("", None),
        (None, None),
    ],
)
def test_names_are_kept_as_a_reader_can_bear_them(said: str | None, kept: str | None) -> None:
    talk = Conversation()
    peer = talk.connect()
    peer.register(said, description=said)
    assert (peer.session.info.name, peer.session.info.description) == (kept, kept)
    assert peer.session.lease == (("default", kept) if kept else None)


def test_names_that_look_alike_when_cleaned_are_the_same_name() -> None:
    talk = Conversation()
    talk.join("harbour")
    other = talk.connect()
    other.hears()
    other.register("har\u202ebour ")
    assert [frame["code"] for frame in other.hears()] == ["WORKER_NAMESPACE_CONFLICT"]


def test_a_name_is_free_at_once_when_its_worker_has_gone() -> None:
    talk = Conversation()
    for _ in range(3):
        peer = talk.join("harbour")
        assert talk.hub.registry.worker("default", "harbour") is peer.session
        peer.leave()


def test_a_refused_worker_is_told_and_answered_before_it_is_hung_up_on_and_does_nothing_more() -> None:
    talk = Conversation()
    first = talk.join("harbour")
    second = talk.connect()
    second.offer("a")
    talk.effects.clear()
    second.call("engine::workers::register", {"name": "harbour"})
    ours = [type(effect) for effect in talk.effects if not isinstance(effect, Log | AskUnreadInput | AskSignOfLife)]
    assert ours == [Send, Send, HangUp]
    assert talk.hung_up[second.id].code == 1000
    second.offer("b")
    second.call("engine::channels::create", {}, 2)
    second.leave()
    talk.wait(10)
    assert owners(talk) == {} and len(talk.hub.channels) == 0
    assert set(talk.hub.sessions) == {first.id}
    assert talk.hub.registry.worker("default", "harbour") is first.session


def test_a_worker_that_takes_anothers_name_later_is_refused_with_all_it_has() -> None:
    talk = Conversation()
    talk.join("harbour")
    other = talk.join("other")
    other.offer("a")
    other.register("harbour")
    assert [frame["type"] for frame in other.hears()] == ["registrationrejected"]
    assert owners(talk) == {} and talk.hub.registry.worker("default", "other") is None


@pytest.mark.parametrize(
    "data",
    [{"pid": -1}, {"pid": 2**32}, {"pid": 1.5}, {"pid": "7"}, {"pid": True}, {"name": 7}, {"features": "x"},
     {"features": [1]}, {"isolation": {}}, [], 7, "x"],
)  # fmt: skip
def test_a_register_call_of_the_wrong_shape_is_an_error_and_changes_nothing(data: Any) -> None:
    talk = Conversation()
    peer = talk.connect()
    peer.hears()
    peer.call("engine::workers::register", data)
    (answer,) = peer.hears()
    assert answer["error"]["code"] == "deserialization_error"
    assert answer["error"]["message"].startswith("Failed to deserialize input for engine::workers::register: ")
    assert peer.session.state.current is SessionState.UNNAMED


# --- coming back


def test_C4_5_a_worker_that_comes_back_ends_its_old_connection_first() -> None:
    talk = Conversation()
    old = talk.join("harbour")
    old.offer("tide::next")
    channel = old.ask("engine::channels::create")["reader"]["channel_id"]
    new = talk.connect()
    new.say({"type": "reattach", "previous_worker_id": old.id, "reattach_token": old.session.reattach_token})
    assert talk.hung_up[old.id].code == 4010 and new.id in talk.hung_up[old.id].reason
    assert talk.hub.channels.get(channel) is None
    new.register("harbour")
    new.offer("tide::next")
    assert owners(talk) == {("default", "tide::next"): new.id}
    old.leave()
    assert owners(talk) == {("default", "tide::next"): new.id}
    assert talk.hub.registry.worker("default", "harbour") is new.session


@pytest.mark.parametrize("token", ["", None, "wrong", "кто там"])
def test_nobody_comes_back_without_the_token(token: str | None) -> None:
    talk = Conversation()
    old = talk.join("harbour")
    new = talk.connect()
    new.say({"type": "reattach", "previous_worker_id": old.id, "reattach_token": token})
    new.say({"type": "reattach", "previous_worker_id": new.id, "reattach_token": new.session.reattach_token})
    new.say({"type": "reattach", "previous_worker_id": old.id, "reattach_token": old.session.channel_secret})
    assert set(talk.hub.sessions) == {old.id, new.id} and not talk.hung_up


# --- functions


def test_a_function_registered_anew_is_described_anew_and_its_calls_go_on() -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    harbour.say({"type": "registerfunction", "id": "a", "description": "old", "metadata": {"m": 1}})
    boats.call("a")
    harbour.say({"type": "registerfunction", "id": "a", "description": "new"})
    row = boats.ask("engine::functions::info", {"function_id": "a"}, 2)
    assert row["description"] == "new" and "metadata" not in row
    harbour.answer(call_id(1), result=1)
    assert [frame["result"] for frame in boats.hears()] == [1]


def test_a_worker_may_switch_a_function_between_http_and_itself() -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    over_http = {"type": "registerfunction", "id": "a", "invocation": {"url": "https://tides.example"}}
    harbour.say(over_http)
    boats.offer("a")
    assert [frame["owner_worker_id"] for frame in boats.hears()] == [harbour.id]
    boats.call("a")
    assert boats.hears()[0]["error"]["code"] == "function_not_invokable"
    harbour.say({**over_http, "invocation": None})
    boats.call("a")
    assert len(harbour.hears()) == 1


OVER_HTTP = {"type": "registerfunction", "id": "a", "invocation": {"url": "https://tides.example"}}


def _invoker(talk: Conversation) -> Peer:
    invoker = talk.join("invoker")
    invoker.offer("engine::external::check", "engine::external::invoke")
    return invoker


def test_a_call_of_a_function_with_an_invocation_goes_to_the_invoker() -> None:
    talk = Conversation()
    invoker, harbour, boats = _invoker(talk), talk.join("harbour"), talk.join("boats")
    harbour.say(OVER_HTTP)
    check = invoker.hears()[0]
    assert check["function_id"] == "engine::external::check"
    about = {"function_id": "a", "namespace": "default", "invocation": OVER_HTTP["invocation"], "guarded": False}
    assert check["data"] == about
    invoker.answer(check["invocation_id"], result=None)
    boats.call("a", {"n": 1})
    call = invoker.hears()[0]
    assert call["function_id"] == "engine::external::invoke"
    assert call["data"] == {**about, "data": {"n": 1, "_caller_worker_id": boats.id}}
    invoker.answer(call["invocation_id"], result=2)
    assert [(frame["function_id"], frame["result"]) for frame in boats.hears()] == [("a", 2)]
    assert not harbour.hears()


@pytest.mark.parametrize("verdict", [{"result": "dry: no water"}, {"error": {"code": "x", "message": "broken"}}])
def test_the_invoker_refuses_a_function_by_a_text_and_not_by_an_error(verdict: dict[str, Any]) -> None:
    talk = Conversation()
    invoker, harbour, boats = _invoker(talk), talk.join("harbour"), talk.join("boats")
    harbour.say(OVER_HTTP)
    boats.offer("a")
    boats.hears()
    invoker.answer(invoker.hears()[0]["invocation_id"], **verdict)
    refused = "result" in verdict
    assert [frame["type"] for frame in harbour.hears()] == ["registrationrejected"] * refused
    took_over = [each.fields for each in talk.effects if isinstance(each, Log) and "now serves a," in each.message]
    assert took_over == [{"session": boats.id, "function": "a"}] * refused
    # The worker that stood by has taken over.
    row = boats.ask("engine::functions::info", {"function_id": "a"}, 2)
    assert row["worker_name"] == ("boats" if refused else "harbour")


def test_the_verdict_about_an_earlier_registration_is_void() -> None:
    talk = Conversation()
    invoker, harbour = _invoker(talk), talk.join("harbour")
    harbour.say(OVER_HTTP)
    check = invoker.hears()[0]
    harbour.offer("a")
    invoker.answer(check["invocation_id"], result="dry: no water")
    assert not harbour.hears() and talk.hub.registry.find("default", "a") is not None


def test_the_end_of_the_invoker_is_no_verdict() -> None:
    talk = Conversation()
    invoker, harbour, boats = _invoker(talk), talk.join("harbour"), talk.join("boats")
    harbour.say(OVER_HTTP)
    invoker.leave()
    assert not harbour.hears()
    boats.call("a")
    assert boats.hears()[0]["error"]["code"] == "function_not_invokable"


def test_the_engines_own_functions_cannot_be_withdrawn() -> None:
    talk = Conversation()
    harbour = talk.join("harbour")
    harbour.say({"type": "unregisterfunction", "id": "engine::channels::create"})
    assert "reader" in harbour.ask("engine::channels::create")


@pytest.mark.parametrize(
    ("namespaces", "warned"),
    [(["fleet"], 0), (["fleet", "fleet"], 0), (["fleet", None], 0), ([None, "default"], 0), ([None, "fleet"], 1),
     (["fleet", "default"], 1), (["fleet", "attic"], 1)],
)  # fmt: skip
def test_a_worker_that_names_another_namespace_later_is_warned_of(namespaces: list[str | None], warned: int) -> None:
    talk = Conversation()
    peer = talk.connect()
    for namespace in namespaces:
        peer.register("peer", namespace=namespace)
    assert peer.session.namespace == (namespaces[0] or "default")
    assert (
        sum("names its namespace too late" in each.message for each in talk.effects if isinstance(each, Log)) == warned
    )


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537])
def test_a_blank_text_is_passed_over_up_to_64_kib(size: int) -> None:
    talk = Conversation()
    peer = talk.join("peer")
    talk.effects.clear()
    peer.say(" " * size)
    assert len(talk.effects) == (size > 65_536)


@pytest.mark.parametrize("access", [Access(None, "middleware"), Access(RbacConfig())])
def test_a_guarded_session_without_hooks_registers_as_its_grants_allow(access: Access) -> None:
    talk = Conversation()
    peer = talk.connect(access=access)
    peer.register("guarded")
    peer.offer("f")
    peer.say({"type": "registertriggertype", "id": "t"})
    peer.say({"type": "registertrigger", "id": "b", "trigger_type": "t", "function_id": "engine::log::info"})
    assert peer.session.functions == {("default", "f")} and peer.session.trigger_types == {("default", "t")}
    assert peer.session.bindings == {"b"}
    peer.say({"type": "unregistertrigger", "id": "b"})
    peer.say({"type": "unregisterfunction", "id": "f"})
    assert not peer.session.bindings and not peer.session.functions


@pytest.mark.parametrize("length", [1021, 1022])
def test_the_prefixed_target_of_a_binding_has_at_most_1024_characters(length: int) -> None:
    talk = Conversation()
    grants = Grants(function_registration_prefix="p", allowed_functions=["p::" + "f" * length])
    peer = talk.connect(access=Access(None, "middleware", grants))
    peer.register("guarded", features=[FEATURE])
    peer.say({"type": "registertrigger", "id": "b", "trigger_type": "t", "function_id": "f" * length})
    assert peer.session.bindings == ({"b"} if length == 1021 else set())


# --- the reasons of a refusal


def refused(peer: Peer) -> list[tuple[str, str, str]]:
    frames = [frame for frame in peer.hears() if frame["type"] == "registrationrejected"]
    return [(frame["function_id"], frame["owner_worker_id"], frame["reason"]) for frame in frames]


def extended(talk: Conversation, name: str, *features: str, namespace: str | None = None) -> Peer:
    return talk.join(name, features=[FEATURE, *features], namespace=namespace)


@pytest.mark.parametrize("namespace", ["attic", "default", "fleet"])
def test_ids_of_the_engine_are_reserved_in_every_namespace(namespace: str) -> None:
    talk = Conversation()
    peer = extended(talk, "peer", namespace=namespace)
    peer.offer("engine::log::info", "engine::mine", "engines::mine")
    own = [("engine::log::info", "", "the id is the engine's own")]
    if namespace != "default":
        own.append(("engine::mine", "", "the id is the engine's own"))
    assert refused(peer) == own and (namespace, "engines::mine") in peer.session.functions


def test_a_worker_whose_function_another_one_has_is_told_whether_it_stands_by() -> None:
    talk = Conversation(EngineConfig(limits=Limits(functions_per_session=2)))
    first, full = extended(talk, "first"), extended(talk, "full")
    first.offer("f")
    full.offer("a", "b", "f")
    limit = "it has 2 functions, as many as one worker may (limits.functions_per_session)"
    assert refused(full) == [("f", first.id, f"worker {first.id} has it, and this one may not stand by: {limit}")]
    for number in range(65):
        peer = extended(talk, f"standby {number}")
        peer.offer("f")
        then = "and this one takes over when it goes" if number < 64 else "and too many others stand by for it"
        assert refused(peer) == [("f", first.id, f"worker {first.id} has it, {then}")]


def test_only_a_relay_says_to_which_engine_and_worker_a_function_belongs() -> None:
    talk = Conversation()
    for peer, believed in ((extended(talk, "relay", RELAY), True), (extended(talk, "other"), False)):
        for node in ("n", 7):
            function_id = f"{peer.id}::{node}"
            metadata = {RELAY_NODE: node, RELAY_WORKER: node, "internal": node == 7}
            peer.say({"type": "registerfunction", "id": function_id, "metadata": metadata})
            function = talk.hub.registry.find("default", function_id)
            assert function is not None
            expected = "n" if believed and node == "n" else None
            assert (function.node, function.worker_name, function.marked_internal) == (expected, expected, node == 7)


@pytest.mark.parametrize("invoker", [None, "guarded", "worker"])
@pytest.mark.parametrize(
    "answer", [{"result": None}, {"result": "no such host"}, {"error": {"code": "c", "message": "m"}}]
)
def test_a_function_to_be_invoked_elsewhere_is_checked_by_its_invoker(
    invoker: str | None, answer: dict[str, Any]
) -> None:
    talk = Conversation()
    peer = extended(talk, "peer")
    helper = talk.connect(access=Access(None, "middleware") if invoker == "guarded" else None)
    helper.register("helper")
    if invoker is not None:
        helper.offer("engine::external::check")
    helper.hears()
    peer.say({"type": "registerfunction", "id": "f", "invocation": {"url": "http://x/"}})
    warnings = [
        each.message for each in talk.effects if isinstance(each, Log) and "calls of which are refused" in each.message
    ]
    calls = helper.hears()
    assert (len(warnings), len(calls)) == ((0, 1) if invoker == "worker" else (1, 0))
    if calls:
        assert calls[0]["data"]["function_id"] == "f" and calls[0]["data"]["invocation"] == {"url": "http://x/"}
        helper.answer(calls[0]["invocation_id"], **answer)
    is_refused = invoker == "worker" and answer == {"result": "no such host"}
    assert refused(peer) == ([("f", "", "no such host")] if is_refused else [])
    assert (("default", "f") in peer.session.functions) is not is_refused
    assert not [each for each in talk.effects if isinstance(each, Log) and each.error is not None]
