"""A relay passes calls on to another engine: what it says of callers and errors is believed, and of nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from iii_trio.core.access import Access
from iii_trio.wire import FEATURE
from iii_trio.wire.codes import RELAY
from tests.helpers.conversation import Conversation, call_id

STOPPED = {"code": "invocation_stopped", "message": "Invocation stopped: the worker left: it closed"}
OTHER = {"code": "function_not_found", "message": "Function f not found in namespace default"}


@pytest.mark.parametrize(
    ("error", "relays", "by_engine", "understands", "answered"),
    [
        (STOPPED, True, True, True, {"error": STOPPED, "by_engine": True}),
        (STOPPED, True, True, False, {"error": {"code": STOPPED["code"], "message": "Invocation stopped"}}),
        (OTHER, True, True, True, {"error": OTHER, "by_engine": True}),
        (OTHER, True, True, False, {"error": OTHER}),
        (STOPPED, True, False, True, {"error": STOPPED}),
        (STOPPED, True, False, False, {"error": STOPPED}),
        (STOPPED, False, True, True, {"error": STOPPED}),
        (STOPPED, False, True, False, {"error": STOPPED}),
    ],
)
def test_an_error_of_the_other_engine_is_answered_as_one_of_this_engine(
    error: dict[str, str], relays: bool, by_engine: bool, understands: bool, answered: dict[str, Any]
) -> None:
    talk = Conversation()
    relay = talk.join("relay", features=[RELAY] if relays else [])
    caller = talk.join("caller", features=[FEATURE] if understands else [])
    relay.offer("f")
    caller.call("f", {"a": 1})
    relay.answer(call_id(1), error=error, **({"by_engine": True} if by_engine else {}))
    (heard,) = caller.hears()
    assert {key: heard[key] for key in heard if key not in ("type", "invocation_id", "function_id")} == answered


def test_the_payload_of_a_relay_keeps_the_caller_that_it_names() -> None:
    talk = Conversation()
    harbour = talk.join("harbour")
    harbour.offer("f")
    for number, features, expected in ((1, [RELAY], "theirs"), (2, [], None)):
        peer = talk.join(f"peer {number}", features=features)
        peer.call("f", {"_caller_worker_id": "theirs"}, number)
        assert harbour.hears()[-1]["data"] == {"_caller_worker_id": expected or peer.id}


def test_a_call_is_not_passed_from_one_relay_to_another() -> None:
    talk = Conversation()
    first, second = talk.join("first", features=[RELAY]), talk.join("second", features=[RELAY])
    first.offer("f")
    second.call("f")
    (heard,) = second.hears()
    assert heard["error"]["code"] == "function_not_found"
    assert heard["error"]["message"] == "Function f not found in namespace default: it has left for another node."
    assert first.hears() == []


def test_a_guarded_session_is_no_relay() -> None:
    talk = Conversation()
    harbour = talk.join("harbour")
    harbour.offer("f")
    guarded = talk.connect(access=Access(None))
    guarded.register("guarded", features=[RELAY])
    guarded.call("f", {"_caller_worker_id": "theirs"})
    assert harbour.hears()[-1]["data"] == {"_caller_worker_id": guarded.id}
