"""Functions that change hands (docs/names.md): a later worker stands by, and takes over when the earlier one goes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii_trio.config import EngineConfig, Limits
from iii_trio.core.effects import Log
from iii_trio.core.registry import FUNCTION, MAX_STANDBYS, FunctionEvent, FunctionState
from iii_trio.testing import check_lifecycle
from tests.helpers.conversation import Conversation, Peer


def serves(talk: Conversation, peer: Peer, function_id: str = "svc::x") -> bool:
    """Return whether a call of the function reaches this worker."""
    caller = talk.join()
    caller.call(function_id)
    reached = [frame for frame in peer.hears() if frame["type"] == "invokefunction"]
    caller.leave()
    return bool(reached)


def test_the_table_is_sound() -> None:
    check_lifecycle(FUNCTION, FunctionState.STANDBY, FunctionState.REMOVED, {FunctionEvent.PROMOTED})


def test_R1_a_later_worker_is_told_and_stands_by() -> None:
    talk = Conversation()
    first, second = talk.join("first"), talk.join("second")
    first.offer("svc::x")
    second.offer("svc::x")
    (told,) = second.hears()
    assert told["type"] == "registrationrejected" and told["owner_worker_id"] == first.id
    assert serves(talk, first) and not serves(talk, second)


@pytest.mark.parametrize("way", ["leaves", "is lost", "unregisters", "is closed by the engine"])
def test_R2_the_standby_takes_over_in_the_step_in_which_the_function_is_freed(way: str) -> None:
    talk = Conversation()
    first, second = talk.join("first"), talk.join("second")
    first.offer("svc::x")
    second.offer("svc::x")
    second.hears()
    match way:
        case "leaves":
            first.leave()
        case "is lost":
            talk.act(talk.hub.disconnected(first.session, "the connection ended", talk.now, may_come_back=True))
        case "unregisters":
            first.say({"type": "unregisterfunction", "id": "svc::x"})
        case _:
            talk.act(talk.hub.close_session(first.session, 4010, "silent", talk.now))
    assert serves(talk, second)
    assert any(isinstance(effect, Log) and "now serves svc::x" in effect.message for effect in talk.effects)


def test_R3_the_oldest_standby_comes_first_and_keeps_its_place_when_it_describes_itself_again() -> None:
    talk = Conversation()
    first, second, third = talk.join("1"), talk.join("2"), talk.join("3")
    for peer in first, second, third, second:
        peer.offer("svc::x")
    first.leave()
    assert serves(talk, second)
    second.leave()
    assert serves(talk, third)
    third.leave()
    caller = talk.join()
    caller.call("svc::x")
    assert caller.hears()[0]["error"]["code"] == "function_not_found"
    assert not talk.hub.registry._standbys


@pytest.mark.parametrize("way", ["leaves", "unregisters"])
def test_R3_a_standby_that_goes_is_forgotten(way: str) -> None:
    talk = Conversation()
    first, second, third = talk.join("1"), talk.join("2"), talk.join("3")
    for peer in first, second, third:
        peer.offer("svc::x")
    if way == "leaves":
        second.leave()
    else:
        second.say({"type": "unregisterfunction", "id": "svc::x"})
        assert second.session.registration_bytes == 0
    first.leave()
    assert serves(talk, third)


def test_R3_the_owner_that_unregisters_and_comes_again_stands_behind_the_others() -> None:
    talk = Conversation()
    first, second = talk.join("1"), talk.join("2")
    first.offer("svc::x")
    second.offer("svc::x")
    first.say({"type": "unregisterfunction", "id": "svc::x"})
    first.offer("svc::x")
    assert serves(talk, second) and not serves(talk, first)


def test_R4_lists_show_who_stands_by() -> None:
    talk = Conversation()
    first, second = talk.join("first"), talk.join("second")
    first.offer("svc::x", "svc::alone")
    second.offer("svc::x")
    second.hears()
    rows = {row["function_id"]: row for row in first.ask("engine::functions::list")["functions"]}
    assert rows["svc::x"]["worker_name"] == "first" and rows["svc::x"]["standby_workers"] == ["second"]
    assert "standby_workers" not in rows["svc::alone"]


def test_R1_standbys_count_against_their_workers_limit_and_are_bounded_for_each_function() -> None:
    talk = Conversation(EngineConfig(limits=Limits(functions_per_session=2)))
    first, second = talk.join("first"), talk.join("second")
    first.offer("a", "b", "svc::x")
    second.offer("a", "b", "svc::x")
    assert len(first.session.functions) == 2 and len(second.session.standbys) == 2
    talk = Conversation()
    talk.join("first").offer("svc::x")
    others = [talk.join(f"other-{number}") for number in range(MAX_STANDBYS + 1)]
    for peer in others:
        peer.offer("svc::x")
    assert [bool(peer.session.standbys) for peer in others] == [True] * MAX_STANDBYS + [False]


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["offer", "withdraw", "leave"]), st.integers(0, 3), st.sampled_from(["x", "y"])),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(ACTIONS)
def test_R2_whenever_a_connected_worker_offers_a_function_exactly_one_is_active(
    actions: list[tuple[str, int, str]],
) -> None:
    talk = Conversation()
    peers: dict[int, Peer] = {}
    order: dict[str, list[int]] = {"x": [], "y": []}
    for action, number, function_id in actions:
        peer = peers.get(number) or peers.setdefault(number, talk.join(f"w{number}"))
        waiting = order[function_id]
        if action == "offer":
            peer.offer(function_id)
            if number not in waiting:
                waiting.append(number)
        elif action == "withdraw":
            peer.say({"type": "unregisterfunction", "id": function_id})
            if number in waiting:
                waiting.remove(number)
        else:
            peers.pop(number).leave()
            for each in order.values():
                if number in each:
                    each.remove(number)
        for id_, expected in order.items():
            active = talk.hub.registry.find("default", id_)
            owner = active.owner if active is not None else None
            assert owner is (peers[expected[0]].session if expected else None)
    for peer in peers.values():
        peer.leave()
        assert peer.session.registration_bytes == 0
    assert not talk.hub.registry._standbys
