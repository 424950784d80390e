"""Everything that falls due does so at its own time, whatever else waits: the clock wakes for the earliest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from iii_trio.config import EngineConfig, RbacConfig, Timeouts
from iii_trio.core.access import Access
from iii_trio.core.durable_triggers import PROVIDER_SECONDS
from iii_trio.wire import Direction
from tests.helpers.conversation import Conversation, Peer, call_id

GRACE = 10.0
TIMEOUTS = Timeouts(reattach_grace_seconds=GRACE, registration_grace_seconds=GRACE, access_seconds=GRACE)
Ended: TypeAlias = Callable[[], bool]
Begin: TypeAlias = Callable[[Conversation, Peer], Ended]


def half_attached(talk: Conversation, peer: Peer) -> Ended:
    """A channel whose reader never comes."""
    refs = peer.ask("engine::channels::create", {"expires_after_ms": GRACE * 1000})["writer"]
    talk.hub.attach(refs["channel_id"], refs["access_key"], Direction.WRITE, talk.now, None)
    return lambda: talk.hub.channels.get(refs["channel_id"]) is None


def lost(talk: Conversation, peer: Peer) -> Ended:
    """A lost worker's channel."""
    channel_id = peer.ask("engine::channels::create")["writer"]["channel_id"]
    talk.act(talk.hub.disconnected(peer.session, "reset", talk.now, may_come_back=True))
    return lambda: talk.hub.channels.get(channel_id) is None


def nameless(talk: Conversation, peer: Peer) -> Ended:
    """A worker that does not name its namespace."""
    late = talk.connect()
    late.offer(late.id)
    return lambda: bool(late.session.functions)


def not_admitted(talk: Conversation, peer: Peer) -> Ended:
    """A connection for which the auth function does not answer."""
    peer.offer("gate")
    late = talk.connect(access=Access(RbacConfig(auth_function_id="gate")))
    return lambda: late.id in talk.hung_up


def not_refused(talk: Conversation, peer: Peer) -> Ended:
    """A durable binding to which its provider says nothing."""
    assert PROVIDER_SECONDS == GRACE
    peer.say({"type": "registertriggertype", "id": peer.id})
    maker = talk.join()
    maker.call("engine::register_trigger", {"trigger_type": peer.id, "function_id": "f"})
    return lambda: any(frame.get("invocation_id") == call_id(1) for frame in maker.inbox)


KINDS = [half_attached, lost, nameless, not_admitted, not_refused]


@pytest.mark.parametrize("begin", KINDS)
@pytest.mark.parametrize("times", [(0.0, 1.0, 2.0, 3.0), (0.0, 0.0, 5.0, 5.0)])
def test_each_falls_due_at_its_own_time(begin: Begin, times: tuple[float, ...]) -> None:
    talk = Conversation(EngineConfig(timeouts=TIMEOUTS))
    waiting: list[tuple[float, Ended]] = []
    workers = [talk.join(f"worker {number}") for number in range(len(times))]
    for begun, worker in zip(times, workers, strict=True):
        talk.wait(begun - talk.now)
        waiting.append((begun + GRACE, begin(talk, worker)))
        assert talk.hub.next_due() == waiting[0][0]
    for due in sorted({due for due, _ in waiting}):
        talk.wait(due - talk.now - 0.001)
        assert [ended() for _, ended in waiting] == [until < due for until, _ in waiting]
        assert talk.hub.next_due() == due
        talk.wait(due - talk.now)
        assert [ended() for _, ended in waiting] == [until <= due for until, _ in waiting]


@pytest.mark.parametrize("begin", KINDS)
def test_nothing_is_due_for_those_that_are_gone_before(begin: Begin) -> None:
    talk = Conversation(EngineConfig(timeouts=TIMEOUTS))
    worker = talk.join("worker")
    begin(talk, worker)
    for peer in list(talk.peers.values()):
        talk.act(talk.hub.disconnected(peer.session, "gone", talk.now))
        if begin is lost:
            talk.wait(GRACE)
    assert talk.hub.next_due() is None or begin is half_attached
    talk.wait(2 * GRACE)
    assert talk.hub.next_due() is None and not len(talk.hub.channels)


def test_an_earlier_expiry_is_not_hidden_by_later_ones() -> None:
    talk = Conversation()
    worker = talk.join("worker")
    ended: dict[int, Ended] = {}
    for seconds in (10, 30, 20, 5):
        refs = worker.ask("engine::channels::create", {"expires_after_ms": seconds * 1000})["reader"]
        talk.hub.attach(refs["channel_id"], refs["access_key"], Direction.READ, talk.now, None)
        ended[seconds] = lambda channel_id=refs["channel_id"]: talk.hub.channels.get(channel_id) is None  # type: ignore[misc]
    for now in (5, 10, 20, 30):
        talk.wait(now - talk.now)
        assert {seconds for seconds, is_over in ended.items() if is_over()} == {each for each in ended if each <= now}


@pytest.mark.parametrize("begin", KINDS)
def test_a_clock_that_wakes_late_does_all_that_is_due_at_once(begin: Begin) -> None:
    talk = Conversation(EngineConfig(timeouts=TIMEOUTS))
    waiting = []
    for begun in range(3):
        talk.now = float(begun)
        waiting.append(begin(talk, talk.join(f"worker {begun}")))
    talk.now = GRACE + 1.5
    talk.act(talk.hub.tick(talk.now))
    assert [ended() for ended in waiting] == [True, True, False]
    assert talk.hub.next_due() == GRACE + 2


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_the_clock_wakes_for_the_earlier_of_two_whatever_they_are(first: Begin, second: Begin) -> None:
    talk = Conversation(EngineConfig(timeouts=TIMEOUTS))
    workers = [talk.join("first"), talk.join("second")]
    ended = [first(talk, workers[0])]
    talk.wait(1.0)
    ended.append(second(talk, workers[1]))
    for due, expected in ((GRACE, [True, False]), (GRACE + 1, [True, True])):
        assert talk.hub.next_due() == due
        talk.wait(due - talk.now)
        assert [each() for each in ended] == expected
