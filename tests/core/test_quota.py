"""What one session may register: beyond it, it alone is refused, clearly; what it gives back is free again."""

from __future__ import annotations

import itertools
import json
from collections import deque
from typing import Any

import pytest

from iii_trio.config import EngineConfig, Limits
from iii_trio.core.effects import Log
from iii_trio.core.quota import detach, size_of, why_no_room, why_not_deferred, why_not_held, why_too_many_listeners
from iii_trio.wire import FEATURE, Ping, decode
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


def test_functions_that_a_worker_stands_by_for_count_with_those_that_it_has() -> None:
    talk = talk_with(functions_per_session=4)
    first, peer = talk.join("first"), talk.join("peer")
    first.offer("x", "y")
    peer.offer("x", "a", "b", "c", "d")
    assert [frame["function_id"] for frame in peer.hears()] == ["x", "d"]
    assert len(peer.session.functions) == 3 and len(peer.session.standbys) == 1
    peer.offer("y")
    assert len(peer.session.standbys) == 1


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
    assert sum("may not provide" in line for line in lines(talk)) == 1, "describing one anew takes no room"
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


# --- the bounds by themselves, on both sides of each


class Kept:
    size = 300


def session_with(*, deferred: int = 0, held: int | None = None, bytes_: int = 0, in_process: bool = False) -> Any:
    session = Conversation().join("worker", in_process=in_process).session
    session.deferred_registrations.extend([Ping()] * deferred)
    session.held = None if held is None else deque([(Ping(), 0)] * held)
    session.registration_bytes = session.held_bytes = bytes_
    return session


SIDES = list(itertools.product(range(5), range(996, 1005), [False, True]))


@pytest.mark.parametrize("in_process", [False, True])
def test_a_registration_has_room_while_both_its_number_and_its_bytes_have(in_process: bool) -> None:
    limits = Limits(registration_bytes=1000)
    for held, bytes_, replaces in SIDES:
        session = session_with(bytes_=bytes_ - 500, in_process=in_process)
        problem = why_no_room(limits, session, "trigger types", held, 3, 500, Kept() if replaces else None)
        number, size = (held - 1, bytes_ - 300) if replaces else (held, bytes_)
        if in_process:
            assert problem is None
        elif number >= 3:
            text = f"it has {number} trigger types, as many as one worker may (limits.trigger_types_per_session)"
            assert problem == text
        elif size > 1000:
            assert problem == "its registrations would take more than 1000 bytes (limits.registration_bytes)"
        else:
            assert problem is None


def test_a_registration_can_be_deferred_while_both_its_number_and_its_bytes_have_room() -> None:
    limits = Limits(held_back_registrations=3, registration_bytes=1000)
    for deferred, bytes_, in_process in SIDES:
        problem = why_not_deferred(
            limits, session_with(deferred=deferred, bytes_=bytes_ - 500, in_process=in_process), 500
        )
        assert (problem is None) is (in_process or (deferred < 3 and bytes_ <= 1000))
        assert problem is None or ("held_back_registrations" in problem) is (deferred >= 3)


def test_a_message_can_be_held_while_both_its_number_and_its_bytes_have_room() -> None:
    limits = Limits(held_back_registrations=3, registration_bytes=1000)
    for held, bytes_, nothing in SIDES:
        problem = why_not_held(limits, session_with(held=None if nothing else held, bytes_=bytes_ - 500), 500)
        assert (problem is None) is ((nothing or held < 3) and bytes_ <= 1000)
        assert problem is None or ("held_back_registrations" in problem) is (held >= 3 and not nothing)


def test_a_registration_takes_its_texts_its_payloads_and_512_bytes() -> None:
    text = (
        b'{"type":"registertrigger","id":"four","trigger_type":"t","function_id":"f","config":{"a":1},"metadata":"x"}'
    )
    message: Any = decode(text)
    assert size_of(message) == 512 + 4 + 1 + 1 + 7 + 3
    assert detach(message) == size_of(message)


def test_a_durable_binding_takes_its_names_and_its_payloads() -> None:
    # No two of these numbers differ in all their bits, so that no other operator has the sum's value.
    wanted = {"trigger_type": "tides", "function_id": "fns", "config": "12345", "metadata": "123"}
    size = 5 + 3 + 7 + 5
    for max_bytes in (2 * size - 1, 2 * size):
        talk = talk_with(registration_bytes=max_bytes)
        peer = talk.join("peer")
        assert "id" in peer.ask("engine::register_trigger", wanted)
        assert talk.hub.triggers.durable_bytes == size
        assert ("id" in peer.ask("engine::register_trigger", wanted)) is (max_bytes == 2 * size)


def test_a_limit_of_durable_bindings_that_a_reload_lowered_holds() -> None:
    talk = talk_with(durable_bindings=9)
    peer = talk.join("peer")
    for _ in range(4):
        peer.ask("engine::register_trigger", {"trigger_type": "tide", "function_id": "f"})
    talk.hub.reconfigure(EngineConfig(limits=Limits(durable_bindings=2)))
    refused = peer.ask("engine::register_trigger", {"trigger_type": "tide", "function_id": "f"})
    assert refused["message"].startswith("there are 4 durable bindings, as many as there may be")


def test_an_event_has_room_for_exactly_as_many_bindings_as_the_limit_says() -> None:
    limits = Limits(event_bindings_per_session=3)
    assert [why_too_many_listeners(limits, held) is None for held in range(6)] == [True] * 3 + [False] * 3
