"""A worker whose name is held by one that may be leaving waits a moment for that, instead of being refused for good."""

from __future__ import annotations

import pytest

from iii_trio.core.name_waiters import WAIT_SECONDS, NameWaiters
from iii_trio.core.request import Request
from iii_trio.core.session import SessionEvent, WorkerSession
from iii_trio.wire import RELAY, InvokeFunction
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


# --- the ledger of those that wait


def waiters(*holders: WorkerSession) -> tuple[NameWaiters, list[WorkerSession]]:
    """A ledger in which a new session waits for each of these holders, one second after the other."""
    ledger, sessions = NameWaiters(), []
    for begun, holder in enumerate(holders):
        session = Conversation().connect().session
        message = InvokeFunction("engine::workers::register")
        ledger.add(Request(session, message, None, lambda effect: None, float(begun)), holder)
        sessions.append(session)
    return ledger, sessions


def sessions(count: int) -> list[WorkerSession]:
    talk = Conversation()
    return [talk.connect().session for _ in range(count)]


def waiting_for(ledger: NameWaiters) -> list[tuple[str, str]]:
    return [(waiter.holder.id, waiter.state.current.name) for waiter in ledger.waiting]


def test_a_holder_without_unread_input_is_pinged_once_for_all_its_waiters() -> None:
    one, other = sessions(2)
    ledger, _ = waiters(one, other, one)
    assert ledger.next_due() == WAIT_SECONDS
    assert ledger.input_known(one.id, False) is True
    assert waiting_for(ledger) == [(one.id, "CHALLENGED"), (other.id, "WAITING"), (one.id, "CHALLENGED")]
    assert ledger.input_known(one.id, False) is False and ledger.input_known(one.id, True) is False
    assert ledger.next_due() == 1 + WAIT_SECONDS, "the shell keeps the time of a ping"
    assert ledger.input_known(other.id, False) is True and ledger.next_due() is None


def test_a_holder_with_unread_input_is_pinged_if_it_has_not_left_in_time() -> None:
    one, other = sessions(2)
    ledger, _ = waiters(one, other, one)
    assert ledger.input_known(one.id, True) is False and ledger.input_known(one.id, False) is False
    assert waiting_for(ledger)[0] == (one.id, "LEAVING")
    assert ledger.did_not_leave(WAIT_SECONDS - 0.001) == []
    assert ledger.did_not_leave(WAIT_SECONDS) == [one]
    assert waiting_for(ledger) == [(one.id, "CHALLENGED"), (other.id, "WAITING"), (one.id, "LEAVING")]
    assert ledger.did_not_leave(9 * WAIT_SECONDS) == [one], "the one that only waits is asked about"


def test_a_name_is_claimed_while_a_worker_that_is_still_connected_waits_for_its_pinged_holder() -> None:
    one, other = sessions(2)
    ledger, (waiter, _) = waiters(one, other)
    assert not ledger.is_claimed(one.id)
    ledger.input_known(one.id, False)
    assert ledger.is_claimed(one.id) and not ledger.is_claimed(other.id)
    waiter.state.advance(SessionEvent.LEFT)
    assert not ledger.is_claimed(one.id)


def test_waiters_are_taken_out_when_their_holder_answers_or_is_gone() -> None:
    one, other, third = sessions(3)
    ledger, _ = waiters(one, other, one, third)
    ledger.input_known(one.id, False)
    assert ledger.take_refused(other.id) == [] and ledger.take_freed() == []
    assert [waiter.holder for waiter in ledger.take_refused(one.id)] == [one, one]
    other.state.advance(SessionEvent.LEFT)
    assert [waiter.holder for waiter in ledger.take_freed()] == [other]
    assert waiting_for(ledger) == [(third.id, "WAITING")]


def test_what_is_known_of_a_holder_is_of_no_holder_before_or_after_it() -> None:
    first, middle, last = sorted(sessions(3), key=lambda each: each.id)
    ledger, _ = waiters(first, middle, last)
    assert ledger.input_known(middle.id, False) is True
    assert waiting_for(ledger) == [(first.id, "WAITING"), (middle.id, "CHALLENGED"), (last.id, "WAITING")]
    assert [ledger.is_claimed(each.id) for each in (first, middle, last)] == [False, True, False]
    assert ledger.take_refused(first.id) == ledger.take_refused(last.id) == []
    ledger.input_known(first.id, False)
    ledger.input_known(last.id, False)
    assert [waiter.holder for waiter in ledger.take_refused(middle.id)] == [middle]
    assert waiting_for(ledger) == [(first.id, "CHALLENGED"), (last.id, "CHALLENGED")]


def test_a_relay_asks_for_the_holder_of_a_name_and_takes_none() -> None:
    talk = Conversation()
    relay = talk.join("harbour", features=[RELAY])
    assert talk.hub.registry.worker("default", "harbour") is None
    worker = talk.join("harbour")
    assert talk.hub.registry.worker("default", "harbour") is worker.session
    relay.leave()
    asking = talk.connect()
    asking.hears()
    say_who(asking, "harbour", features=[RELAY])
    assert kinds(asking) == [REJECTED, "invocationresult"]
    assert talk.hub.registry.worker("default", "harbour") is worker.session


def test_a_worker_whose_name_another_engine_had_before_is_refused() -> None:
    talk = Conversation()
    worker, other = talk.join("harbour"), talk.join("other")
    worker.hears()
    talk.act(talk.hub.refuse_name("default", "harbour", "w1", "five", talk.now))
    (said,) = worker.hears()
    assert said == {
        "type": REJECTED, "code": "WORKER_NAMESPACE_CONFLICT", "namespace": "default", "owner_worker_id": "w1",
        "worker_name": "harbour",
    }  # fmt: skip
    assert talk.hung_up[worker.id].code == 1000 and worker.session.state.is_final
    assert talk.hub.registry.worker("default", "harbour") is None and not other.session.state.is_final


def test_no_worker_of_a_module_is_refused_for_another_engine_and_neither_is_one_that_has_left() -> None:
    talk = Conversation()
    module = talk.connect(in_process=True, internal=True)
    module.register("harbour")
    for name in ("harbour", "nobody"):
        talk.act(talk.hub.refuse_name("default", name, "w1", "five", talk.now))
    assert not module.session.state.is_final
