"""A worker whose name is held by one that may be leaving waits a moment for that, instead of being refused for good."""

from __future__ import annotations

import pytest

from tests.helpers.conversation import Conversation, Peer, call_id

REJECTED = "registrationrejected"


def say_who(peer: Peer, name: str, number: int = 1, **more: object) -> None:
    peer.call("engine::workers::register", {"name": name, "pid": 1, **more}, number=number)


def kinds(peer: Peer) -> list[str]:
    return [frame["type"] for frame in peer.hears()]


def test_it_has_the_name_and_its_functions_as_soon_as_the_holder_is_gone() -> None:
    talk = Conversation()
    old, new = talk.join("harbour"), talk.connect()
    old.offer("tide::next")
    new.hears()
    talk.unread_input = {old.id}
    new.offer("tide::next")
    say_who(new, "harbour")
    assert new.hears() == [] and talk.hub.next_due() is not None
    old.leave()
    assert [frame["result"] for frame in new.hears()] == [{"success": True}]
    assert talk.hub.registry.worker("default", "harbour") is new.session
    found = talk.hub.registry.find("default", "tide::next")
    assert found is not None and found.owner is new.session
    assert talk.hub.next_due() is None, "no timer is left"


def test_one_whose_holder_stays_is_refused_after_the_moment_and_hung_up_on() -> None:
    talk = Conversation()
    old, new = talk.join("harbour"), talk.connect()
    new.hears()
    talk.unread_input = {old.id}
    say_who(new, "harbour")
    talk.wait(1.9)
    assert new.hears() == [] and new.id not in talk.hung_up
    talk.wait(0.2)
    assert kinds(new) == [REJECTED, "invocationresult"]
    assert talk.hung_up[new.id].code == 1000 and new.session.state.is_final
    assert talk.hub.registry.worker("default", "harbour") is old.session


def test_a_holder_that_has_nothing_left_to_say_is_not_waited_for() -> None:
    talk = Conversation()
    talk.join("harbour")
    new = talk.connect()
    new.hears()
    say_who(new, "harbour")
    assert kinds(new) == [REJECTED, "invocationresult"]


def test_of_several_the_first_one_has_the_name_and_the_others_are_refused_then() -> None:
    talk = Conversation()
    old = talk.join("harbour")
    talk.unread_input = {old.id}
    newcomers = [talk.connect() for _ in range(3)]
    for peer in newcomers:
        peer.hears()
        say_who(peer, "harbour")
    old.leave()
    assert [kinds(peer) for peer in newcomers] == [["invocationresult"], *[[REJECTED, "invocationresult"]] * 2]
    assert talk.hub.registry.worker("default", "harbour") is newcomers[0].session
    assert len(talk.hub.sessions) == 1


@pytest.mark.parametrize("who", ["newcomer", "then the holder"])
def test_a_newcomer_that_leaves_while_it_waits_leaves_nothing(who: str) -> None:
    talk = Conversation()
    old, new = talk.join("harbour"), talk.connect()
    talk.unread_input = {old.id}
    say_who(new, "harbour")
    new.leave()
    if who == "then the holder":
        old.leave()
        assert talk.hub.registry.worker("default", "harbour") is None
    talk.wait(10)
    assert new.id not in talk.hub.sessions and talk.hub.next_due() is None


def test_a_void_register_waits_as_well_and_the_grace_does_not_overtake_it() -> None:
    talk = Conversation()
    old, new = talk.join("harbour", namespace="fleet"), talk.connect()
    talk.unread_input = {old.id}
    talk.wait(4.5)
    new.register("harbour", namespace="fleet")
    new.offer("f")
    talk.wait(1)
    old.leave()
    assert new.session.info.name == "harbour"
    assert call_id(1) not in new.made
