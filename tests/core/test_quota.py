"""What one session may register: beyond it, it alone is refused, clearly; what it gives back is free again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iii_trio.config import EngineConfig, Limits
from iii_trio.core.effects import Log
from iii_trio.wire import FEATURE
from tests.helpers.conversation import Conversation, Peer


def talk_with(**limits: int) -> Conversation:
    return Conversation(EngineConfig(limits=Limits(**limits)))


def bind(peer: Peer, id_: str, config: Any = None) -> None:
    peer.say({"type": "registertrigger", "id": id_, "trigger_type": "tide", "function_id": "f", "config": config})


def lines(talk: Conversation) -> list[str]:
    return [effect.message for effect in talk.effects if isinstance(effect, Log)]


def test_one_function_too_many_is_refused_and_a_withdrawn_one_makes_room() -> None:
    talk = talk_with(functions_per_session=2)
    greedy, other = talk.join("greedy"), talk.join("other")
    greedy.offer("a", "b", "c")
    (refused,) = greedy.hears()
    assert refused == {
        "type": "registrationrejected", "code": "FUNCTION_NAMESPACE_CONFLICT", "namespace": "default",
        "function_id": "c", "owner_worker_id": "",
    }  # fmt: skip
    assert "it has 2 functions, as many as one worker may (limits.functions_per_session)" in lines(talk)[-1]
    other.offer("c", "d")
    assert not other.hears(), "the bound is each worker's own"
    greedy.offer("a")
    assert not greedy.hears(), "describing one anew takes no room"
    greedy.say({"type": "unregisterfunction", "id": "a"})
    greedy.offer("e")
    assert not greedy.hears() and greedy.session.functions == {("default", "b"), ("default", "e")}


def test_a_worker_of_ours_is_told_why() -> None:
    talk = talk_with(functions_per_session=1)
    ours = talk.connect()
    ours.register("ours", features=[FEATURE])
    ours.hears()
    ours.offer("a", "b")
    assert "as many as one worker may" in ours.hears()[0]["reason"]


def test_one_binding_too_many_is_an_error_to_its_binder_and_a_withdrawn_one_makes_room() -> None:
    talk = talk_with(bindings_per_session=1)
    peer = talk.join("peer")
    bind(peer, "one")
    bind(peer, "two")
    (result,) = peer.hears()
    assert (result["type"], result["id"]) == ("triggerregistrationresult", "two")
    assert result["error"]["code"] == "registration_limit_reached"
    assert "it has 1 bindings, as many as one worker may (limits.bindings_per_session)" in result["error"]["message"]
    bind(peer, "one", {"anew": True})
    peer.say({"type": "unregistertrigger", "id": "one", "trigger_type": "tide"})
    bind(peer, "three")
    assert not peer.hears() and peer.session.bindings == {"three"}


def test_one_trigger_type_too_many_is_a_line_in_the_log() -> None:
    talk = talk_with(trigger_types_per_session=1)
    peer = talk.join("peer")
    for type_ in ("tide", "wind", "tide"):
        peer.say({"type": "registertriggertype", "id": type_})
    assert [each.type for each in talk.hub.triggers.providers() if each.session is peer.session] == ["tide"]
    assert sum("may not provide wind: it has 1 trigger types" in line for line in lines(talk)) == 1
    peer.say({"type": "unregistertriggertype", "id": "tide"})
    peer.say({"type": "registertriggertype", "id": "wind"})
    assert talk.hub.triggers.provider("default", "wind") is not None


@pytest.mark.parametrize("what", ["functions", "bindings", "types"])
def test_all_that_a_session_registers_together_has_a_bound_of_bytes(what: str) -> None:
    talk = talk_with(registration_bytes=10_000)
    peer = talk.join("peer")
    large = {"description": "x" * 4_000}
    for number in range(3):
        if what == "functions":
            peer.say({"type": "registerfunction", "id": f"f{number}", "request_format": large})
        elif what == "types":
            peer.say({"type": "registertriggertype", "id": f"t{number}", "call_request_format": large})
        else:
            bind(peer, f"b{number}", large)
    assert "its registrations would take more than 10000 bytes (limits.registration_bytes)" in lines(talk)[-1]
    assert 8_000 < peer.session.registration_bytes <= 10_000
    assert len(peer.session.functions | peer.session.bindings | peer.session.trigger_types) == 2


def test_what_is_withdrawn_takes_no_bytes_any_more() -> None:
    talk = talk_with(registration_bytes=100_000)
    peer, other = talk.join("peer"), talk.join("other")
    for _ in range(50):
        peer.say({"type": "registerfunction", "id": "f", "metadata": "x" * 4_000})
        peer.say({"type": "registertriggertype", "id": "tide", "description": "x" * 4_000})
        bind(peer, "b", "x" * 4_000)
    assert {frame["type"] for frame in peer.hears()} == {"registertrigger"}, "its own binding, offered to itself"
    other.say({"type": "registertriggertype", "id": "tide"})
    bind(other, "b")
    peer.say({"type": "unregisterfunction", "id": "f"})
    assert peer.session.registration_bytes == 0
    other.leave()
    assert not talk.hub.triggers.durable


def test_a_payload_does_not_keep_the_message_that_it_came_in() -> None:
    talk = Conversation()
    peer = talk.join("peer")
    padding = json.dumps("x" * 100_000)
    peer.say(f'{{"type":"registerfunction","id":"f","metadata":{{"a":1}},"unknown":{padding}}}')
    function = talk.hub.registry.find("default", "f")
    assert function is not None and bytes(function.metadata) == b'{"a":1}'
    assert peer.session.registration_bytes < 1_000
    kept = memoryview(function.metadata)
    assert kept.nbytes == len(b'{"a":1}')


@pytest.mark.parametrize(
    ("limits", "cause"),
    [
        ({"held_back_registrations": 3}, "more than 3 registrations before engine::workers::register"),
        ({"registration_bytes": 4_000}, "its registrations would take more than 4000 bytes"),
    ],
)
def test_who_registers_more_than_can_be_held_back_is_sent_away_with_the_cause(
    limits: dict[str, int], cause: str
) -> None:
    talk = talk_with(**limits)
    flood, other = talk.connect(), talk.join("other")
    other.offer("mine")
    for number in range(10):
        flood.offer(f"f{number}" + "x" * 600)
    hung_up = talk.hung_up[flood.id]
    assert hung_up.code == 1008 and cause in hung_up.reason
    assert flood.session.state.is_final and not flood.session.deferred_registrations
    assert sum(cause in line for line in lines(talk)) == 1, "once: what it says after that is not heard"
    assert other.session.functions == {("default", "mine")} and other.id not in talk.hung_up
    talk.wait(10)
    assert len(talk.hub.sessions) == 1


def test_what_was_held_back_counts_once() -> None:
    talk = talk_with(registration_bytes=3_000)
    peer = talk.connect()
    peer.offer("a", "b", "c")
    before = peer.session.registration_bytes
    peer.register("peer")
    assert len(peer.session.functions) == 3 and peer.session.registration_bytes == before


def test_workers_of_the_same_process_have_no_bound() -> None:
    talk = talk_with(functions_per_session=1, held_back_registrations=1)
    module = talk.connect(in_process=True)
    module.offer("a", "b")
    module.register("module")
    assert len(module.session.functions) == 2


def test_durable_bindings_are_bounded_together_and_one_that_ends_makes_room() -> None:
    talk = talk_with(durable_bindings=1, registration_bytes=5_000)
    peer, other = talk.join("peer"), talk.join("other")
    wanted = {"trigger_type": "tide", "function_id": "f"}
    made = peer.ask("engine::register_trigger", wanted)
    refused = other.ask("engine::register_trigger", wanted)
    assert refused["code"] == "registration_limit_reached"
    assert "there are 1 durable bindings, as many as there may be (limits.durable_bindings)" in refused["message"]
    assert other.ask("engine::unregister_trigger", {"id": made["id"]}) == {"removed": True}
    refused = other.ask("engine::register_trigger", wanted | {"config": "x" * 6_000})
    assert "would take more than 5000 bytes" in refused["message"]
    assert "id" in other.ask("engine::register_trigger", wanted)
