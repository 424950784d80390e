"""Functions that change hands (docs/names.md): a later worker stands by, and takes over when the earlier one goes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii_trio.config import EngineConfig, Limits
from iii_trio.core.effects import AskSignOfLife, Log
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


# --- names


def answer_of(peer: Peer) -> list[str]:
    """Return the types of the messages that a worker has heard."""
    return [frame["type"] for frame in peer.hears()]


def claim(talk: Conversation, name: str) -> Peer:
    """Connect a worker that claims a name by a call that is answered."""
    peer = talk.connect()
    peer.hears()
    peer.offer("svc::early")
    peer.call("engine::workers::register", {"name": name}, number=77)
    return peer


def test_R5_a_newcomer_waits_while_the_holder_is_pinged() -> None:
    talk = Conversation()
    holder = talk.join("n")
    talk.silent.add(holder.id)
    newcomer = claim(talk, "n")
    assert [effect.session for effect in talk.effects if isinstance(effect, AskSignOfLife)] == [holder.id]
    assert answer_of(newcomer) == [] and newcomer.id not in talk.hung_up and talk.hub.next_due() is not None


def test_R6_a_holder_that_answers_keeps_its_name() -> None:
    talk = Conversation()
    holder = talk.join("n")
    talk.silent.add(holder.id)
    newcomer = claim(talk, "n")
    talk.act(talk.hub.sign_of_life_known(holder.id, True, 1.0))
    assert answer_of(newcomer) == ["registrationrejected", "invocationresult"] and newcomer.id in talk.hung_up
    assert holder.id in talk.hub.sessions


def test_R7_a_holder_that_does_not_answer_loses_its_name_and_all_else_in_the_same_step() -> None:
    talk = Conversation()
    holder = talk.join("n")
    holder.offer("svc::x")
    talk.silent.add(holder.id)
    newcomer, other = claim(talk, "n"), claim(talk, "n")
    newcomer.offer("svc::x")
    talk.silent.add(newcomer.id)
    talk.act(talk.hub.sign_of_life_known(holder.id, False, 5.0))
    assert holder.id in talk.hung_up and holder.id not in talk.hub.sessions
    assert answer_of(newcomer) == ["invocationresult"] and newcomer.session.info.name == "n"
    assert serves(talk, newcomer) and serves(talk, newcomer, "svc::early")
    assert answer_of(other) == []  # it waits for the new holder now
    talk.act(talk.hub.sign_of_life_known(newcomer.id, True, 6.0))
    assert answer_of(other) == ["registrationrejected", "invocationresult"]


def test_R8_a_holder_that_is_leaving_gets_a_moment_and_is_pinged_when_it_stays() -> None:
    talk = Conversation()
    holder = talk.join("n")
    talk.unread_input.add(holder.id)
    leaving = claim(talk, "n")
    holder.leave()
    assert leaving.session.info.name == "n"
    talk.unread_input.add(leaving.id)
    newcomer = claim(talk, "n")
    talk.wait(1.9)
    assert newcomer.id not in talk.hung_up
    talk.wait(0.2)
    assert newcomer.id in talk.hung_up and leaving.id in talk.hub.sessions  # it stayed, and answered its ping


def test_R7_a_newcomer_that_leaves_while_it_waits_is_forgotten() -> None:
    talk = Conversation()
    holder = talk.join("n")
    talk.silent.add(holder.id)
    newcomer = claim(talk, "n")
    newcomer.leave()
    talk.act(talk.hub.sign_of_life_known(holder.id, True, 1.0))
    assert not talk.hub.state.name_waiters.waiting and holder.id in talk.hub.sessions


def test_R7_a_slow_holder_stays_if_the_newcomer_has_left() -> None:
    talk = Conversation()
    holder = talk.join("n")
    talk.silent.add(holder.id)
    claim(talk, "n").leave()
    talk.act(talk.hub.sign_of_life_known(holder.id, False, 5.0))
    assert holder.id in talk.hub.sessions
    assert claim(talk, "n").id not in talk.hung_up  # the next one waits for a ping of its own
