"""The holders of ends at other engines are told how a channel ended, once, and nothing of it stays."""

from __future__ import annotations

import json
from typing import Any

from iii_trio.core.effects import Effect, Send
from iii_trio.core.ends_elsewhere import EndsElsewhere
from iii_trio.wire import FEATURE, Outcome
from tests.helpers.conversation import Conversation, Peer


def ledger() -> tuple[EndsElsewhere, list[Effect], list[Peer]]:
    talk, effects = Conversation(), []  # type: Conversation, list[Effect]
    peers = [talk.connect() for _ in range(3)]
    for peer, features in zip(peers, ([FEATURE], [FEATURE], []), strict=True):
        peer.register(None, features=features)
    return EndsElsewhere(effects.append), effects, peers


def told(effects: list[Effect]) -> list[tuple[str, dict[str, Any]]]:
    sent = [(each.session, json.loads(each.message)) for each in effects if isinstance(each, Send)]
    effects.clear()
    return sent


def test_all_holders_that_understand_it_are_told_once() -> None:
    ends, effects, (one, other, old) = ledger()
    for peer in (one, other, old):
        ends.add("c.home", peer.session)
    ends.add("d.home", one.session)
    ends.ended("c.home", Outcome.ABORTED, "enough", "CODE")
    message = {"type": "channelended", "channel_id": "c.home", "outcome": "aborted", "reason": "enough", "code": "CODE"}
    assert told(effects) == [(one.id, message), (other.id, message)]
    assert [peer.session.held_elsewhere for peer in (one, other, old)] == [{"d.home"}, set(), set()]
    ends.ended("c.home", Outcome.ABORTED, "again", None)
    assert told(effects) == [] and len(ends) == 1


def test_a_holder_that_is_refused_or_gone_is_told_nothing() -> None:
    ends, effects, (one, other, _) = ledger()
    for channel_id in ("c", "d", "e"):
        ends.add(channel_id, one.session)
    ends.add("d", other.session)
    ends.remove("c", one.session)
    assert len(ends) == 2 and one.session.held_elsewhere == {"d", "e"}
    ends.remove("unknown", one.session)
    ends.session_ended(one.session)
    assert len(ends) == 1 and one.session.held_elsewhere == set()
    ends.ended("d", Outcome.COMPLETED, "", None)
    assert [session for session, _ in told(effects)] == [other.id] and len(ends) == 0


def test_the_channels_of_an_engine_that_is_lost_have_lost_their_owner() -> None:
    ends, effects, (one, other, _) = ledger()
    for channel_id, peer in (("a.home", one), ("b.home", other), ("c.other", one), ("d.xhome", one)):
        ends.add(channel_id, peer.session)
    ends.engine_lost("home", "the link is gone")
    sent = [(session, message["channel_id"], message["outcome"]) for session, message in told(effects)]
    assert sent == [(one.id, "a.home", "owner_lost"), (other.id, "b.home", "owner_lost")]
    assert one.session.held_elsewhere == {"c.other", "d.xhome"}
