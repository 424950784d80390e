"""What a session of a guarded listener may do: every row of the decision, and the readings of grants and filters."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from iii_trio.config import EngineConfig, FunctionFilter, Limits, RbacConfig
from iii_trio.core.access import ALWAYS_ALLOWED, WITHOUT_AUTH, Access, Decision, Grants, Target, matches, read_grants
from iii_trio.core.admission import Credentials
from iii_trio.core.effects import Log
from iii_trio.structure import BadShape
from tests.helpers.conversation import Conversation, call_id

ALLOWED, FORBIDDEN, NOT_EXPOSED = Decision.ALLOWED, Decision.FORBIDDEN, Decision.NOT_EXPOSED
EXPOSES_SVC = RbacConfig(expose_functions=[FunctionFilter("svc::*"), FunctionFilter("b::*", namespace="fleet")])


def decide(
    namespace: str, function_id: str, *, rules: RbacConfig | None = EXPOSES_SVC, metadata: Any = None, **grants: Any
) -> Decision:
    raw = Raw(b"" if metadata is None else json.dumps(metadata).encode())
    return Access(rules, grants=Grants(**grants)).decide(Target(namespace, function_id, raw))


@pytest.mark.parametrize(
    ("expected", "namespace", "function_id", "grants"),
    [
        (FORBIDDEN, "default", "svc::a", {"forbidden_functions": ["svc::a"]}),
        (FORBIDDEN, "fleet", "svc::a", {"forbidden_functions": ["svc::a"], "namespaces": {"fleet": ["*"]}}),
        (FORBIDDEN, "default", "a", {"forbidden_functions": ["a"], "allowed_functions": ["a"]}),
        (FORBIDDEN, "default", "engine::log::info", {"forbidden_functions": ["engine::log::info"]}),
        (ALLOWED, "fleet", "boats::go", {"namespaces": {"fleet": ["boats::*"]}}),
        (ALLOWED, "fleet", "boats::go", {"namespaces": {"fleet": ['match("boats::*")']}}),
        (ALLOWED, "fleet", "boats::go", {"namespaces": {"fleet": ["boats::go"]}}),
        (NOT_EXPOSED, "default", "boats::go", {"namespaces": {"fleet": ["boats::*"]}}),
        (ALLOWED, "default", "exact", {"allowed_functions": ["exact"]}),
        (NOT_EXPOSED, "fleet", "exact", {"allowed_functions": ["exact"]}),
        (NOT_EXPOSED, "attic", "exact", {"allowed_functions": ["exact"]}),
        (NOT_EXPOSED, "default", "exact2", {"allowed_functions": ["exact*"]}),
        (ALLOWED, "default", "svc::a", {}),
        (NOT_EXPOSED, "fleet", "svc::a", {}),
        (ALLOWED, "fleet", "b::a", {}),
        (NOT_EXPOSED, "default", "b::a", {}),
        (NOT_EXPOSED, "default", "engine::functions::list", {}),
    ],
)
def test_the_first_rule_that_applies_decides(
    expected: Decision, namespace: str, function_id: str, grants: dict[str, Any]
) -> None:
    assert decide(namespace, function_id, **grants) is expected


@pytest.mark.parametrize("function_id", sorted(ALWAYS_ALLOWED))
def test_every_session_may_call_these_functions(function_id: str) -> None:
    assert decide("default", function_id, rules=RbacConfig()) is ALLOWED


def test_rules_without_filters_expose_nothing_and_no_rules_expose_everything() -> None:
    assert decide("default", "svc::a", rules=RbacConfig()) is NOT_EXPOSED
    assert decide("other", "svc::a", rules=None) is ALLOWED
    assert decide("other", "svc::a", rules=None, forbidden_functions=["svc::a"]) is FORBIDDEN


@pytest.mark.parametrize(
    ("wanted", "metadata", "expected"),
    [
        ({"v": "public"}, {"v": "public", "more": 1}, ALLOWED),
        ({"v": "public"}, {"v": "private"}, NOT_EXPOSED),
        ({"v": "public", "w": 1}, {"v": "public"}, NOT_EXPOSED),
        ({"v": 'match("pub*")'}, {"v": "public"}, ALLOWED),
        ({"v": "match('pub*')"}, {"v": 7}, NOT_EXPOSED),
        ({"v": 1}, {"v": True}, NOT_EXPOSED),
        ({"v": True}, {"v": 1}, NOT_EXPOSED),
        ({"v": 2}, {"v": 1}, NOT_EXPOSED),
        ({"v": 1}, {"v": 2}, NOT_EXPOSED),
        ({"v": [1, {"a": 2}]}, {"v": [1, {"a": 2}]}, ALLOWED),
        ({"v": 1}, [1], NOT_EXPOSED),
        ({"v": 1}, None, NOT_EXPOSED),
    ],
)
def test_metadata_has_to_match_in_every_key(wanted: dict[str, Any], metadata: Any, expected: Decision) -> None:
    rules = RbacConfig(expose_functions=[FunctionFilter(metadata=wanted)])
    assert decide("default", "any", rules=rules, metadata=metadata) is expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "", True),
        ("a*", "a", True),
        ("*b", "ab", True),
        ("a*a", "a", False),
        ("a*b*c", "axbyc", True),
        ("a*b*c", "acb", False),
        ("svc::*", "xsvc::a", False),
        ("a.c", "abc", False),
        ("*x*", "\nx\n", True),
    ],
)
def test_a_star_stands_for_any_characters(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


def test_every_short_pattern_fits_the_texts_that_a_regular_expression_fits() -> None:
    texts = ["".join(letters) for length in range(5) for letters in itertools.product("ab", repeat=length)]
    for length in range(1, 6):
        for letters in itertools.product("ab*", repeat=length):
            pattern = "".join(letters)
            expected = re.compile(pattern.replace("*", ".*"))
            for text in texts:
                assert matches(pattern, text) is (expected.fullmatch(text) is not None), (pattern, text)


@given(st.lists(st.text("ab", max_size=3), min_size=1, max_size=4), st.data())
def test_a_text_made_from_a_pattern_matches_it(parts: list[str], data: st.DataObject) -> None:
    text = parts[0] + "".join(data.draw(st.text("abc", max_size=3)) + part for part in parts[1:])
    assert matches("*".join(parts), text)


# --- grants


def test_absent_keys_have_their_defaults_and_those_without_an_auth_function_differ() -> None:
    assert read_grants({"unknown": 1}) == Grants()
    assert not Grants().allow_trigger_type_registration and Grants().allow_function_registration
    assert WITHOUT_AUTH.allow_trigger_type_registration and WITHOUT_AUTH.context == {}


@pytest.mark.parametrize("key", ["allowed_trigger_types", "function_registration_prefix", "context"])
def test_null_is_a_value_of_these_keys(key: str) -> None:
    assert getattr(read_grants({key: None}), key) is None


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (None, "auth function returned no result"),
        ([], "expected an object, got a list"),
        *(({key: None}, f"{key}: expected") for key in ("namespaces", "allowed_functions", "forbidden_functions")),
        ({"allow_function_registration": None}, "allow_function_registration: expected true or false, got null"),
        ({"allow_trigger_type_registration": 1}, "allow_trigger_type_registration: expected true or false"),
        ({"allowed_functions": "svc"}, "allowed_functions: expected a list"),
        ({"namespaces": {"fleet": [1]}}, "namespaces.fleet[0]: expected a string"),
        ({"function_registration_prefix": ""}, "function_registration_prefix: expected a string of 1 to 256"),
        (
            {"function_registration_prefix": "x" * 257},
            "function_registration_prefix: expected a string of 1 to 256 characters, got 257",
        ),
    ],
)
def test_a_result_of_another_shape_is_refused_and_names_the_field(result: Any, problem: str) -> None:
    with pytest.raises(BadShape) as raised:
        read_grants(result)
    assert str(raised.value).startswith(problem)


@pytest.mark.parametrize("length", [1, 256])
def test_a_prefix_has_1_to_256_characters(length: int) -> None:
    assert read_grants({"function_registration_prefix": "x" * length}).function_registration_prefix == "x" * length


RULES = RbacConfig("auth", [], "on_function", "on_trigger", "on_type")


@pytest.mark.parametrize(
    ("access", "guards"),
    [
        (Access(None, "middleware"), {"middleware"}),
        (Access(RULES, "middleware"), {"middleware", "auth", "on_function", "on_trigger", "on_type"}),
        (Access(RULES), {"auth", "on_function", "on_trigger", "on_type"}),
    ],
)
def test_the_functions_that_guard_a_listener_are_those_that_its_rules_name(access: Access, guards: set[str]) -> None:
    named = {"middleware", "auth", "on_function", "on_trigger", "on_type", "other"}
    assert {function_id for function_id in named if access.guards_with(function_id)} == guards


def test_a_filter_has_one_of_match_and_metadata() -> None:
    for wrong in ({}, {"match": "a", "metadata": {}}, {"match": " "}, {"match": "a", "namespace": ""}):
        with pytest.raises(ValueError, match="filter"):
            FunctionFilter(**wrong)  # type: ignore[arg-type]


# --- bounds


def test_a_connection_that_was_not_admitted_cannot_make_the_engine_hold_more_than_it_may() -> None:
    talk = Conversation(EngineConfig(limits=Limits(held_back_registrations=3)))
    gate = talk.join("gate")
    gate.offer("gate::auth")
    ship = talk.connect(access=Access(RbacConfig(auth_function_id="gate::auth")))
    for _ in range(3):
        ship.say({"type": "ping"})
    assert ship.session.held is not None and ship.id not in talk.hung_up
    ship.say({"type": "ping"})
    assert talk.hung_up[ship.id].code == 1008
    assert ship.session.held is None and ship.session.held_bytes == 0
    # The auth function's answer finds nothing, and the gate goes on.
    (call,) = gate.hears()
    gate.answer(call["invocation_id"], result={})
    assert ship.hears() == [] and gate.ask("engine::baggage::get_all") == {"baggage": {}}


def test_messages_that_waited_are_no_longer_counted_once_they_are_handled() -> None:
    talk = Conversation()
    gate = talk.join("gate")
    gate.offer("gate::auth")
    ship = talk.connect(access=Access(RbacConfig(auth_function_id="gate::auth")))
    ship.register("ship")
    ship.say({"type": "registerfunction", "id": "a"})
    assert ship.session.held_bytes > 0
    (call,) = gate.hears()
    gate.answer(call["invocation_id"], result={"allowed_functions": []})
    assert ship.session.held_bytes == 0 and ("default", "a") in ship.session.functions


def test_registrations_that_waited_for_the_namespace_and_then_for_a_hook_are_counted_once() -> None:
    talk = Conversation()
    gate = talk.join("gate")
    gate.offer("gate::fn")
    ship = talk.connect(access=Access(RbacConfig(on_function_registration_function_id="gate::fn")))
    ship.offer("a", "b", "c")
    ship.register("ship")
    for _ in range(3):
        (call,) = gate.hears()
        gate.answer(call["invocation_id"], result={})
        assert ship.session.held_bytes == 0
    assert ship.session.functions == {("default", each) for each in "abc"} and ship.session.held is None


def test_a_call_is_refused_whose_listener_names_a_middleware_that_nobody_has() -> None:
    talk = Conversation()
    talk.join("harbour").offer("svc::a")
    ship = talk.connect(access=Access(None, "gate::mid"))
    ship.register("ship")
    ship.hears()
    ship.call("svc::a")
    (answer,) = ship.hears()
    assert answer["error"]["code"] == "function_not_found"
    assert "gate::mid" in answer["error"]["message"] and answer["error"]["message"].endswith(".")


def test_what_a_connection_shows_is_in_no_log_line_and_no_representation() -> None:
    talk = Conversation()
    gate = talk.join("gate")
    gate.offer("gate::auth")
    shown = Credentials({"authorization": "Bearer sesame"}, {"token": ["sesame"]}, "127.0.0.1")
    talk.connect(access=Access(RbacConfig(auth_function_id="gate::auth")), credentials=shown)
    (call,) = gate.hears()
    gate.answer(call["invocation_id"], error={"code": "no", "message": "refused"})
    assert "sesame" not in repr(shown)
    assert "sesame" not in repr([effect for effect in talk.effects if isinstance(effect, Log)])


@pytest.mark.parametrize(
    ("answer", "said", "code"),
    [
        ({"result": None}, "auth function returned no result", 1008),
        ({"result": []}, "invalid auth result: expected an object, got a list", 1008),
        ({"result": {"namespaces": 1}}, "invalid auth result: namespaces: expected an object, got an integer", 1008),
        ({"error": {"code": "no", "message": "not today"}}, "not today", 1008),
    ],
)
@pytest.mark.parametrize("shown", [None, Credentials({"a": "b"}, {"c": ["d"]}, "10.0.0.1")])
def test_a_refused_connection_is_told_why_and_the_log_names_its_address(
    answer: dict[str, Any], said: str, code: int, shown: Credentials | None
) -> None:
    talk = Conversation()
    gate = talk.join("gate")
    gate.offer("gate::auth")
    ship = talk.connect(access=Access(RbacConfig(auth_function_id="gate::auth")), credentials=shown)
    (call,) = gate.hears()
    assert call["data"] == {
        "headers": {"a": "b"} if shown else {},
        "query_params": {"c": ["d"]} if shown else {},
        "ip_address": "10.0.0.1" if shown else "",
    }
    gate.answer(call["invocation_id"], **answer)
    assert ship.hears() == [{"type": "error", "error": {"code": "AUTH_ERROR", "message": said}}]
    assert (talk.hung_up[ship.id].code, talk.hung_up[ship.id].reason) == (code, f"the auth function refused: {said}")
    (line,) = [each for each in talk.effects if isinstance(each, Log) and "refused by its auth" in each.message]
    assert line.fields == {"session": ship.id, "peer": "127.0.0.1"}


def test_a_session_that_leaves_while_it_waits_cancels_the_auth_function() -> None:
    talk = Conversation()
    gate = talk.connect()
    gate.register("gate", features=["iii-trio.v1"])
    gate.offer("gate::auth")
    gate.hears()
    ship = talk.connect(access=Access(RbacConfig(auth_function_id="gate::auth")))
    (call,) = gate.hears()
    ship.leave()
    (cancelled,) = gate.hears()
    assert cancelled["type"] == "cancelinvocation" and cancelled["invocation_id"] == call["invocation_id"]
    assert not gate.answering and talk.hub.state.engine_calls.next_due() is None


def test_an_auth_function_with_a_full_outbox_refuses_its_session_only() -> None:
    talk = Conversation()
    gate = talk.join("gate")
    gate.offer("gate::auth")
    talk.full.add(gate.id)
    ship = talk.connect(access=Access(RbacConfig(auth_function_id="gate::auth")))
    assert [frame["error"]["code"] for frame in ship.hears()] == ["AUTH_ERROR"]
    assert talk.hung_up[ship.id].code == 1013 and gate.id not in talk.hung_up


def test_R7_a_connection_is_refused_at_once_if_its_auth_function_loses_its_name_to_another_worker() -> None:
    talk = Conversation()
    gate = talk.join("gate")
    gate.offer("gate::auth")
    ship = talk.connect(access=Access(RbacConfig(auth_function_id="gate::auth")))
    talk.silent.add(gate.id)
    talk.connect().register("gate")
    talk.act(talk.hub.sign_of_life_known(gate.id, False, talk.now))
    assert [frame["error"]["code"] for frame in ship.hears()] == ["AUTH_ERROR"]
    assert ship.id in talk.hung_up


def test_a_guarded_session_cannot_take_the_place_of_a_function_that_guards_it() -> None:
    talk = Conversation()
    rules = RbacConfig(on_function_registration_function_id="gate::fn", expose_functions=[FunctionFilter("*")])
    ship = talk.connect(access=Access(RbacConfig(), "gate::fn"))
    ship.register("ship")
    ship.offer("gate::fn", "other")
    assert ship.session.functions == {("default", "other")}
    # Another guarded listener does not name the function, so it can be registered there. It is not called.
    thief = talk.connect(access=Access(RbacConfig()))
    thief.register("thief")
    thief.offer("gate::fn")
    guarded = talk.connect(access=Access(rules, "gate::fn"))
    guarded.register("guarded")
    guarded.offer("a")
    assert not guarded.session.functions
    guarded.hears()
    guarded.call("other")
    assert guarded.hears()[0]["error"]["code"] == "function_not_invokable"
    assert all(frame["type"] != "invokefunction" for frame in thief.hears())


def test_a_guarded_listener_of_changes_is_told_of_the_functions_that_it_may_call() -> None:
    talk = Conversation()
    ship = talk.connect(access=Access(RbacConfig(expose_functions=[FunctionFilter("open::*")])))
    ship.register("ship")
    ship.offer("open::changed")
    binding = {"type": "registertrigger", "id": "f", "trigger_type": "engine::functions-available"}
    ship.say({**binding, "function_id": "open::changed"})
    talk.join("harbour").offer("open::a", "hidden")
    ship.hears()
    talk.wait(1)
    (event,) = [frame for frame in ship.hears() if frame["type"] == "invokefunction"]
    told = {row["function_id"] for row in event["data"]["functions"]}
    assert told == {*ALWAYS_ALLOWED, "open::a", "open::changed"}


def test_a_durable_binding_of_a_guarded_session_follows_the_same_rules() -> None:
    talk = Conversation()
    rules = RbacConfig(auth_function_id="gate::auth", expose_functions=[FunctionFilter("*")])
    gate = talk.join("gate")
    gate.offer("gate::auth")
    gate.say({"type": "registertriggertype", "id": "tide"})
    ship = talk.connect(access=Access(rules))
    (call,) = gate.hears()
    grants = {
        "allowed_trigger_types": ["tide"], "function_registration_prefix": "u1", "forbidden_functions": ["u1::no"]
    }  # fmt: skip
    gate.answer(call["invocation_id"], result=grants)
    ship.hears()
    register = "engine::register_trigger"
    refused = ship.ask(register, {"trigger_type": "cron", "function_id": "a"})
    assert refused == {"code": "FORBIDDEN", "message": "Trigger type 'cron' is not allowed for this session."}
    refused = ship.ask(register, {"trigger_type": "tide", "function_id": "no"})
    assert refused == {"code": "FORBIDDEN", "message": "function 'u1::no' not allowed in namespace 'default'"}
    ship.call(register, {"trigger_type": "tide", "function_id": "a"})
    (offer,) = gate.hears()
    assert offer["function_id"] == "u1::a"


def test_a_guarded_session_ends_the_durable_bindings_of_targets_that_it_may_call_and_no_others() -> None:
    talk = Conversation()
    peer = talk.join("peer")
    rules = RbacConfig(expose_functions=[FunctionFilter("open::*")])
    guarded = talk.connect(access=Access(rules, grants=WITHOUT_AUTH))
    guarded.register("guarded")
    guarded.hears()
    made = {
        target: peer.ask("engine::register_trigger", {"trigger_type": "tide", "function_id": target})["id"]
        for target in ("open::a", "closed::a")
    }
    allowed = Access(rules, grants=Grants(allowed_functions=["engine::unregister_trigger"]))
    guarded.session.access = allowed
    assert guarded.ask("engine::unregister_trigger", {"id": made["closed::a"]}) == {"removed": False}
    assert guarded.ask("engine::unregister_trigger", {"id": made["open::a"]}) == {"removed": True}
    assert guarded.ask("engine::unregister_trigger", {"id": "nothing"}) == {"removed": False}
    assert talk.hub.triggers.durable == 1


def test_a_session_that_waits_for_a_hook_still_answers_calls_but_is_heard_on_nothing_else() -> None:
    talk = Conversation()
    gate, boats = talk.join("gate"), talk.join("boats")
    gate.offer("gate::hook")
    rules = RbacConfig(on_function_registration_function_id="gate::hook")
    ship = talk.connect(access=Access(rules))
    ship.register("ship")
    ship.hears()
    ship.offer("first")
    (asked,) = gate.hears()
    gate.answer(asked["invocation_id"], result={})
    boats.call("first", number=1)
    ship.offer("second")
    ship.say({"type": "ping"})
    ship.answer(call_id(1), result="in time")
    assert [frame["result"] for frame in boats.hears()] == ["in time"]
    assert [frame["type"] for frame in ship.hears()] == ["invokefunction"]
    (asked,) = gate.hears()
    gate.answer(asked["invocation_id"], result={})
    assert ship.session.functions == {("default", "first"), ("default", "second")}
    assert [frame["type"] for frame in ship.hears()] == ["pong"]


def test_a_connection_that_was_not_admitted_answers_nothing() -> None:
    talk = Conversation()
    gate = talk.join("gate")
    gate.offer("gate::auth")
    ship = talk.connect(access=Access(RbacConfig(auth_function_id="gate::auth")))
    ship.answer(call_id(1), result="early")
    assert ship.session.held is not None and len(ship.session.held) == 1
