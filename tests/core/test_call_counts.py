"""The numbers of calls and sessions, as `engine::statistics` gives them."""

from __future__ import annotations

from typing import Any

from iii_trio.core.call_counts import CallCounts
from tests.helpers.conversation import Conversation, call_id


def ended(counts: CallCounts) -> Any:
    return counts.to_json()["calls_ended"]


def test_calls_are_counted_altogether_and_by_function() -> None:
    counts = CallCounts()
    none = {"succeeded": 0, "failed": 0, "enqueued": 0, "by_function": {}, "sessions_started": 0, "sessions_ended": 0}
    assert ended(counts) == none
    for function_id, failed in [("a", False), ("a", True), ("b", False), ("a", False)]:
        counts.count(function_id, failed=failed)
    assert ended(counts) == {**none, "succeeded": 3, "failed": 1, "by_function": {"a": [3, 1], "b": [1, 0]}}


def test_a_thousand_functions_are_counted_apart_and_more_only_altogether() -> None:
    counts = CallCounts()
    for number in range(1001):
        counts.count(str(number), failed=False)
    counts.count("0", failed=True)
    assert len(counts.by_function) == 1000 and "1000" not in counts.by_function
    assert counts.by_function["0"] == [2, 1] and (counts.succeeded, counts.failed) == (1001, 1)


def test_the_calls_and_sessions_of_workers_are_counted() -> None:
    talk = Conversation()
    harbour, boats = talk.join("harbour"), talk.join("boats")
    harbour.offer("tide")
    for number, answer in enumerate([{"result": 1}, {"error": {"code": "c", "message": "m"}}]):
        boats.call("tide", number=number)
        harbour.answer(call_id(number), **answer)
    boats.call("missing")
    boats.leave()
    counts = ended(talk.hub.state.call_counts)
    assert counts == {
        "succeeded": 1, "failed": 1, "enqueued": 0, "by_function": {"tide": [2, 1]},
        "sessions_started": 2, "sessions_ended": 1,
    }  # fmt: skip
