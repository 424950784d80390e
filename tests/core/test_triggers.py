"""Trigger types and bindings, where the golden conversations do not reach: durable ones, the engine's own, their time."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from iii_trio.config import EngineConfig
from iii_trio.core import function_changes
from iii_trio.core.binding import BindingState
from iii_trio.core.effects import Log
from iii_trio.core.engine_events import FUNCTIONS, WORKERS
from iii_trio.core.function_changes import SETTLING_SECONDS
from tests.helpers.conversation import Conversation, Peer, call_id

TIDE = {"type": "registertriggertype", "id": "tide", "description": "fires at high water"}


def bind(peer: Peer, type_: str, function_id: str = "watch::it", id_: str = "b1", **more: Any) -> None:
    peer.say({"type": "registertrigger", "id": id_, "trigger_type": type_, "function_id": function_id, **more})


def watcher(talk: Conversation, type_: str) -> Peer:
    peer = talk.join("watch")
    peer.offer("watch::it")
    bind(peer, type_)
    assert peer.hears() == []
    if type_ == FUNCTIONS:
        talk.wait(SETTLING_SECONDS)
        assert len(peer.hears()) == 1, "it is told of its own function, which it registered in the same burst"
    return peer


# --- functions-available


def test_the_functions_that_came_in_a_moment_are_one_event() -> None:
    talk = Conversation()
    watch = watcher(talk, FUNCTIONS)
    harbour = talk.join("harbour")
    harbour.offer("tide::next", "tide::last")
    assert watch.hears() == []
    talk.wait(SETTLING_SECONDS)
    (fired,) = watch.hears()
    assert fired["data"]["event"] == "functions_changed"
    rows = fired["data"]["functions"]
    assert [row["function_id"] for row in rows] == sorted(row["function_id"] for row in rows)
    assert {"function_id": "tide::next", "namespace": "default", "worker_name": "harbour"} in rows
    assert any(row["function_id"] == "engine::channels::create" for row in rows)
    assert "_caller_worker_id" not in fired["data"]
    talk.wait(100)
    assert watch.hears() == []


def test_a_removal_is_a_change_too_also_by_a_disconnect() -> None:
    talk = Conversation()
    harbour = talk.join("harbour")
    harbour.offer("tide::next", "tide::last")
    watch = watcher(talk, FUNCTIONS)
    talk.wait(10)
    assert watch.hears() == []  # what there was before is the baseline
    harbour.say({"type": "unregisterfunction", "id": "tide::last"})
    talk.wait(10)
    assert len(watch.hears()) == 1
    harbour.leave()
    talk.wait(10)
    assert len(watch.hears()) == 1


def test_functions_that_are_as_they_were_are_no_event() -> None:
    talk = Conversation()
    watch = watcher(talk, FUNCTIONS)
    harbour = talk.join("harbour")
    harbour.offer("tide::next")
    harbour.say({"type": "unregisterfunction", "id": "tide::next"})
    talk.wait(10)
    watch.say({"type": "registerfunction", "id": "watch::it", "description": "anew"})
    talk.wait(10)
    assert watch.hears() == []


def test_functions_that_never_settle_are_told_of_all_the_same() -> None:
    talk = Conversation()
    watch = watcher(talk, FUNCTIONS)
    harbour = talk.join("harbour")
    for number in range(10):
        harbour.offer(f"tide::{number}")
        talk.wait(SETTLING_SECONDS / 2)
    assert len(watch.hears()) >= 4


def test_no_timer_runs_while_nobody_listens() -> None:
    talk = Conversation()
    harbour = talk.join("harbour")
    talk.wait(10)  # the grace of the registration is over
    harbour.offer("tide::next")
    assert talk.hub.next_due() is None
    watch = watcher(talk, FUNCTIONS)
    harbour.offer("tide::last")
    assert talk.hub.next_due() == talk.now + SETTLING_SECONDS
    watch.say({"type": "unregistertrigger", "id": "b1"})
    assert talk.hub.next_due() is None
    talk.wait(10)
    assert watch.hears() == [] and talk.hub.next_due() is None


def told(peer: Peer) -> list[set[str]]:
    """Return the functions of workers in each event that a peer has heard."""
    rows = [frame["data"]["functions"] for frame in peer.hears() if frame["type"] == "invokefunction"]
    return [{row["function_id"] for row in each if not row["function_id"].startswith("engine::")} for each in rows]


def test_functions_that_came_just_before_the_binding_are_told() -> None:
    talk = Conversation()
    watch = talk.connect()
    watch.register("watch")
    watch.offer("watch::it", "watch::other")
    bind(watch, FUNCTIONS)
    talk.wait(SETTLING_SECONDS)
    assert told(watch) == [{"watch::it", "watch::other"}]
    talk.wait(100)
    assert told(watch) == []


def test_functions_before_and_after_the_binding_are_one_event() -> None:
    talk = Conversation()
    watch = talk.join("watch")
    watch.offer("watch::it")
    bind(watch, FUNCTIONS)
    watch.offer("watch::other")
    talk.wait(100)
    assert told(watch) == [{"watch::it", "watch::other"}]


def test_a_listener_without_functions_of_its_own_is_not_told_of_old_ones() -> None:
    talk = Conversation()
    watch, boats = talk.join("watch"), talk.join("boats")
    watch.offer("watch::it")
    bind(boats, FUNCTIONS)
    watch.ask("engine::register_trigger", {"trigger_type": FUNCTIONS, "function_id": "watch::it"})
    talk.wait(100)
    assert told(watch) == []
    boats.offer("boats::launch")
    talk.wait(100)
    assert told(watch) == [{"watch::it", "boats::launch"}] * 2


def test_a_second_listener_is_told_of_its_own_functions_and_the_first_one_only_of_changes() -> None:
    talk = Conversation()
    watch, boats = watcher(talk, FUNCTIONS), talk.join("boats")
    boats.offer("boats::it")
    talk.wait(100)
    assert told(watch) == [{"watch::it", "boats::it"}]
    bind(boats, FUNCTIONS, "boats::it", "b2")
    talk.wait(100)
    assert told(watch) == [] and told(boats) == [{"watch::it", "boats::it"}]


@pytest.mark.parametrize("changed", [False, True])
def test_a_listener_that_comes_back_is_told_if_something_has_changed_meanwhile(changed: bool) -> None:
    talk = Conversation()
    harbour, watch = talk.join("harbour"), watcher(talk, FUNCTIONS)
    watch.leave("the cable was cut")
    if changed:
        harbour.offer("tide::next")
    talk.wait(100)
    back = talk.join("watch")
    back.offer("watch::it")
    bind(back, FUNCTIONS)
    talk.wait(100)
    assert told(back) == [{"watch::it", "tide::next"}] * changed


def test_a_listener_that_was_withdrawn_is_a_new_one_when_it_binds_again() -> None:
    talk = Conversation()
    watch = watcher(talk, FUNCTIONS)
    watch.say({"type": "unregistertrigger", "id": "b1"})
    assert talk.hub.state.function_changes.next_due() is None
    bind(watch, FUNCTIONS)
    talk.wait(100)
    assert told(watch) == [{"watch::it"}]
    bind(watch, WORKERS)  # takes the id of the first binding
    watch.offer("watch::more")
    talk.wait(100)
    assert told(watch) == [] and talk.hub.next_due() is None


def test_lost_listeners_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_changes, "_MAX_REMEMBERED", 2)
    talk = Conversation()
    for number in range(5):
        watch = talk.join("watch")
        bind(watch, FUNCTIONS, id_=f"b{number}")
        watch.leave()
    assert list(talk.hub.state.function_changes._remembered) == ["b3", "b4"]


# --- workers-available


def test_every_listener_hears_of_a_worker_except_the_one_that_has_gone() -> None:
    talk = Conversation()
    watch = watcher(talk, WORKERS)
    other = talk.join("other")
    other.offer("other::it")
    watch.hears()
    bind(other, WORKERS, "other::it", "b2")
    watch.leave()
    (fired,) = other.hears()
    assert fired["data"] == {"event": "worker_disconnected", "worker_id": watch.id}


def test_a_target_that_is_not_there_or_in_another_namespace_is_not_called() -> None:
    talk = Conversation()
    watch = talk.join("watch", namespace="fleet")
    watch.offer("watch::it")
    bind(watch, WORKERS)
    bind(watch, WORKERS, "watch::missing", "b2", namespace="fleet")
    bind(watch, WORKERS, "engine::log::info", "b3")
    talk.connect()
    assert watch.hears() == []
    bind(watch, WORKERS, id_="b4", namespace="fleet")
    talk.connect()
    assert len(watch.hears()) == 1


def test_what_the_engine_fires_is_a_call_that_nobody_waits_for() -> None:
    talk = Conversation()
    watch = watcher(talk, WORKERS)
    talk.connect()
    (fired,) = watch.hears()
    assert talk.hub.calls.given_to(watch.session).keys() == {fired["invocation_id"]}
    watch.answer(fired["invocation_id"], error={"code": "no", "message": "no"})
    assert not talk.hub.calls.given_to(watch.session)
    talk.full.add(watch.id)
    talk.connect()
    assert not talk.hub.calls.given_to(watch.session)


def test_an_engines_own_type_cannot_be_taken_but_has_namesakes_elsewhere() -> None:
    talk = Conversation()
    thief = talk.join("thief")
    thief.say({"type": "registertriggertype", "id": WORKERS, "description": "mine"})
    watch = watcher(talk, WORKERS)
    assert thief.hears() == []
    near = talk.join("near", namespace="fleet")
    watch.hears()
    near.say({"type": "registertriggertype", "id": WORKERS, "description": "mine"})
    boats = talk.join("boats", namespace="fleet")
    watch.hears()
    boats.offer("boats::it")
    bind(boats, WORKERS, "boats::it", "b2", namespace="fleet")
    assert [frame["type"] for frame in near.hears()] == ["registertrigger"]
    talk.connect()
    assert len(watch.hears()) == 1 and boats.hears() == []


# --- durable bindings


def ask_for_tide(peer: Peer, number: int = 1) -> None:
    peer.call("engine::register_trigger", {"trigger_type": "tide", "function_id": "boats::launch"}, number)


def test_a_durable_binding_is_answered_when_its_provider_accepts() -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    harbour.say(TIDE)
    ask_for_tide(boats)
    (offered,) = harbour.hears()
    assert boats.hears() == []
    harbour.say({**offered, "type": "triggerregistrationresult"})
    (answer,) = boats.hears()
    assert answer["result"] == {"id": offered["id"]}
    talk.wait(100)
    assert boats.hears() == [] and talk.hub.next_due() is None


def test_a_durable_binding_that_is_refused_is_an_error_and_leaves_nothing() -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    harbour.say(TIDE)
    ask_for_tide(boats)
    (offered,) = harbour.hears()
    harbour.say({**offered, "type": "triggerregistrationresult", "error": {"code": "no", "message": "ebb"}})
    (answer,) = boats.hears()
    assert answer["error"] == {"code": "trigger_registration_failed", "message": "no: ebb"}
    assert len(talk.hub.triggers) == 0
    harbour.say(TIDE)
    assert harbour.hears() == []


def test_a_durable_bindings_maker_is_answered_if_the_provider_leaves_and_forgotten_if_it_leaves_itself() -> None:
    talk = Conversation()
    harbour, boats, other = talk.join("harbour"), talk.join("boats"), talk.join("other")
    harbour.say(TIDE)
    ask_for_tide(boats, 1)
    ask_for_tide(other, 2)
    other.leave()
    harbour.leave()
    assert [frame["invocation_id"] for frame in boats.hears()] == [call_id(1)]
    assert other.hears() == []
    assert [binding.state.current for binding in talk.hub.triggers] == [BindingState.PARKED, BindingState.PARKED]
    talk.wait(100)
    assert boats.hears() == []


def test_a_durable_binding_looks_in_default_only_unless_told() -> None:
    talk = Conversation()
    near, boats = talk.join("near", namespace="fleet"), talk.join("boats", namespace="fleet")
    near.say(TIDE)
    ask_for_tide(boats)
    assert near.hears() == [] and "result" in boats.hears()[0]
    wanted = {"trigger_type": "tide", "function_id": "boats::launch", "trigger_namespace": "fleet"}
    boats.call("engine::register_trigger", wanted)
    assert [frame["trigger_namespace"] for frame in near.hears()] == ["fleet"]


def test_a_durable_binding_is_ended_by_anybody_once() -> None:
    talk = Conversation()
    harbour, boats, other = talk.join("harbour"), talk.join("boats"), talk.join("other")
    id_ = boats.ask("engine::register_trigger", {"trigger_type": "tide", "function_id": "boats::launch"})["id"]
    harbour.say(TIDE)
    harbour.hears()
    assert other.ask("engine::unregister_trigger", {"id": id_, "trigger_type": "tide"}) == {"removed": True}
    assert harbour.hears() == [{"type": "unregistertrigger", "id": id_, "trigger_type": "tide"}]
    assert other.ask("engine::unregister_trigger", {"id": id_}) == {"removed": False}


def test_a_void_call_for_a_durable_binding_is_not_answered() -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    harbour.say(TIDE)
    data = {"trigger_type": "tide", "function_id": "boats::launch"}
    boats.call("engine::register_trigger", data, action={"type": "void"})
    talk.wait(20)
    assert len(talk.hub.triggers) == 1 and boats.hears() == []


# --- waiting for a provider


def warnings(talk: Conversation) -> list[Log]:
    return [effect for effect in talk.effects if isinstance(effect, Log) and effect.level == logging.WARNING]


def listed(peer: Peer, **params: Any) -> dict[str, Any]:
    rows = peer.ask("engine::registered-triggers::list", params, 50)["registered_triggers"]
    return {row["id"]: row.get("waiting") for row in rows}


def test_a_binding_without_a_provider_is_listed_as_waiting_if_that_is_asked_for() -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    bind(boats, "tide", id_="b1")
    bind(boats, "ebb", id_="b2")
    harbour.say({**TIDE, "id": "ebb"})
    assert listed(boats) == {"b2": None}
    assert listed(boats, include_waiting=True) == {"b1": "no worker provides this trigger type", "b2": None}
    (offered,) = harbour.hears()
    harbour.say({**offered, "type": "triggerregistrationresult", "error": {"code": "no", "message": "x"}})
    boats.hears()
    assert listed(boats) == {}
    assert listed(boats, include_waiting=True, trigger_type="ebb") == {"b2": "its provider refused it"}
    harbour.say(TIDE)
    assert listed(boats) == {"b1": None}


def test_a_binding_to_a_type_that_iii_has_built_in_is_warned_of_once_if_it_waits() -> None:
    talk = Conversation()
    boats, other = talk.join("boats"), talk.join("other")
    talk.effects.clear()
    bind(boats, "http", id_="b1")
    bind(other, "http", id_="b2")
    bind(boats, "tide", id_="b3")
    [warning] = warnings(talk)
    assert "'http', which no worker provides" in warning.message and "'iii-http'" in warning.message
    assert warning.fields == {"session": boats.id, "trigger_type": "http", "function": "watch::it"}
    other.ask("engine::register_trigger", {"trigger_type": "cron", "function_id": "watch::it"})
    assert [each.fields["trigger_type"] for each in warnings(talk)] == ["http", "cron"]


def test_a_binding_to_a_type_that_has_a_provider_is_not_warned_of() -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    harbour.say({"type": "registertriggertype", "id": "http"})
    bind(boats, "http")
    assert not warnings(talk)


# --- cascades


def test_C4_5_a_sessions_bindings_end_before_listeners_are_told() -> None:
    talk = Conversation()
    watch = watcher(talk, WORKERS)
    watch.say(TIDE)
    boats = talk.join("boats")
    bind(boats, "tide", id_="b2")
    watch.hears()
    boats.leave()
    assert [frame["type"] for frame in watch.hears()] == ["unregistertrigger", "invokefunction"]


def test_a_worker_that_binds_to_its_own_type_leaves_nothing() -> None:
    talk = Conversation()
    harbour = talk.join("harbour")
    harbour.say(TIDE)
    bind(harbour, "tide")
    harbour.hears()
    harbour.leave()
    assert harbour.hears() == []
    assert len(talk.hub.triggers) == 0 and talk.hub.triggers.of_type("tide") == []


def test_another_workers_use_of_a_binding_id_takes_it_from_the_first() -> None:
    talk = Conversation()
    harbour, boats, other = talk.join("harbour"), talk.join("boats"), talk.join("other")
    harbour.say(TIDE)
    bind(boats, "tide", "boats::launch")
    bind(other, "tide", "other::launch")
    assert [frame["function_id"] for frame in harbour.hears()] == ["boats::launch", "other::launch"]
    boats.leave()
    assert harbour.hears() == []
    other.leave()
    assert [frame["type"] for frame in harbour.hears()] == ["unregistertrigger"]


def test_an_error_of_no_known_shape_reaches_the_binder_as_one_that_sdks_can_read() -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    harbour.say(TIDE)
    bind(boats, "tide")
    (offered,) = harbour.hears()
    harbour.say({**offered, "type": "triggerregistrationresult", "error": {"why": 1}})
    (told,) = boats.hears()
    assert told["error"]["code"] == "invocation_failed" and isinstance(told["error"]["message"], str)


def test_a_line_of_a_worker_reaches_the_log_with_its_level_and_nothing_that_fools_a_reader() -> None:
    talk = Conversation(EngineConfig())
    boats = talk.join("boats")
    boats.ask("engine::log::warn", {"message": "a\n\x1b[31mb", "trace_id": "t1", "data": {"x": "\u202e"}})
    lines = [effect for effect in talk.effects if isinstance(effect, Log) and "a" in effect.message.split(": ")[-1]]
    assert lines[-1].level == logging.WARNING
    assert lines[-1].message == f"worker 'boats' ({boats.id}): a[31mb"
    assert lines[-1].fields == {"session": boats.id, "trace_id": "t1", "data": '{"x":""}'}


def test_what_has_gone_and_come_back_is_news() -> None:
    """Whoever was told meanwhile that a function is not there waits to hear of it."""
    talk = Conversation()
    harbour = talk.join("harbour")
    harbour.offer("tide::next")
    watch = watcher(talk, FUNCTIONS)
    talk.wait(10)
    harbour.say({"type": "unregisterfunction", "id": "tide::next"})
    harbour.offer("tide::next")
    talk.wait(10)
    assert len(watch.hears()) == 1
    talk.wait(10)
    assert watch.hears() == []
    harbour.leave()
    talk.join("harbour").offer("tide::next")
    talk.wait(10)
    assert len(watch.hears()) == 1


def test_the_trigger_types_of_workers_are_listed_and_those_of_the_engine_if_asked_for() -> None:
    talk = Conversation()
    peer = talk.join("peer")
    peer.say({"type": "registertriggertype", "id": "wind", "description": "blows"})
    peer.say(TIDE)
    for more, expected in (
        ({}, {"tide", "wind"}), ({"include_internal": True}, {"tide", "wind", FUNCTIONS, WORKERS}),
        ({"prefix": "ti"}, {"tide"}), ({"worker": "peer"}, {"tide", "wind"}), ({"worker": "other"}, set()),
        ({"search": "blow"}, {"wind"}), ({"include_internal": True, "prefix": "engine::"}, {FUNCTIONS, WORKERS}),
    ):  # fmt: skip
        assert {row["id"] for row in peer.ask("engine::triggers::list", more)["triggers"]} == expected, more


def test_a_session_without_bindings_has_none_of_any_type() -> None:
    talk = Conversation()
    peer = talk.join("peer")
    assert talk.hub.triggers.count(peer.id, WORKERS) == talk.hub.triggers.count("", WORKERS) == 0
    bind(peer, WORKERS, id_="b1")
    bind(peer, WORKERS, id_="b2")
    assert talk.hub.triggers.count(peer.id, WORKERS) == 2
    peer.say({"type": "unregistertrigger", "id": "b1"})
    assert talk.hub.triggers.count(peer.id, WORKERS) == 1
