"""Lists of the engine: in pages that lose nothing, and refused in time where they are too large."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.core import paging
from iii_trio.core.request import Request
from iii_trio.errors import CallError
from iii_trio.wire import InvokeFunction
from tests.helpers.conversation import Conversation, Peer, call_id


def node(talk: Conversation, name: str) -> Peer:
    return talk.join(name, runtime="node", version="0.25.0", pid=1)


def pages(peer: Peer, function_id: str, name: str, limit: int, **more: Any) -> list[list[Any]]:
    """Ask for a list page by page."""
    found, after = [], None
    while True:
        answer = peer.ask(function_id, {"limit": limit, "after": after, **more})
        found.append(answer[name])
        after = answer["after"]
        if after is None:
            return found


LISTS = {
    "engine::functions::list": ("functions", {"include_internal": True}),
    "engine::workers::list": ("workers", {"include_internal": True}),
    "engine::triggers::list": ("triggers", {"include_internal": True}),
    "engine::registered-triggers::list": ("registered_triggers", {"include_waiting": True}),
}


def crowd() -> tuple[Conversation, Peer]:
    talk = Conversation()
    for number in range(7):
        peer = node(talk, f"worker-{number % 3}" if number < 3 else f"w{number}")
        peer.offer(f"f{number}", f"shared::{number}")
        peer.say({"type": "registertriggertype", "id": f"tide{number}"})
        peer.say(
            {"type": "registertrigger", "id": f"b{number}", "trigger_type": f"tide{6 - number}", "function_id": "f1"}
        )
    return talk, node(talk, "asker")


@pytest.mark.parametrize("function_id", LISTS)
@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_the_pages_of_a_list_are_the_list(function_id: str, limit: int) -> None:
    _, asker = crowd()
    name, more = LISTS[function_id]
    whole = asker.ask(function_id, more)
    assert set(whole) == {name} and len(whole[name]) >= 7
    found = pages(asker, function_id, name, limit, **more)
    assert [row for page in found for row in page] == whole[name]
    assert all(len(page) == limit for page in found[:-1]) and 1 <= len(found[-1]) <= limit


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=12), st.integers(1, 3))
def test_a_row_that_stays_is_in_exactly_one_page_whatever_comes_and_goes(
    changes: list[tuple[bool, int]], limit: int
) -> None:
    talk = Conversation()
    steady, moving, asker = node(talk, "steady"), node(talk, "moving"), node(talk, "asker")
    steady.offer("f2", "f4", "f6")
    found, after, left = [], None, iter(changes)
    while True:
        answer = asker.ask("engine::functions::list", {"limit": limit, "after": after})
        found += [row["function_id"] for row in answer["functions"]]
        after = answer["after"]
        if after is None:
            break
        comes, number = next(left, (True, 1))
        if comes:
            moving.offer(f"f{number}")
        else:
            moving.say({"type": "unregisterfunction", "id": f"f{number}"})
    assert [found.count(each) for each in ("f2", "f4", "f6")] == [1, 1, 1]
    assert found == sorted(set(found))


def test_a_page_ends_at_a_size_and_has_one_row_in_any_case() -> None:
    talk = Conversation()
    peer = node(talk, "peer")
    for number in range(5):
        peer.say({"type": "registerfunction", "id": f"f{number}", "metadata": {"x": "x" * 600_000}})
    found = pages(peer, "engine::functions::list", "functions", 100)
    assert [len(page) for page in found] == [1, 1, 1, 1, 1]


def test_a_list_that_is_too_large_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """B9 of the faults of 28 November: the engine built 50 MB, and refused them then."""
    talk = Conversation()
    hoarder, asker = node(talk, "hoarder"), node(talk, "asker")
    for number in range(1000):
        hoarder.say({"type": "registerfunction", "id": f"f{number:04}", "description": "x" * 50_000})
    built = []
    encode = paging.to_json
    monkeypatch.setattr(paging, "to_json", lambda row: built.append(text := encode(row)) or text)
    error = asker.ask("engine::functions::list", {})
    assert error["code"] == "payload_too_large" and "in pages" in error["message"] and "1000 rows" in error["message"]
    assert sum(map(len, built)) <= 4 * 1024 * 1024 + 100_000
    first = asker.ask("engine::functions::list", {"limit": 3})
    assert [row["function_id"] for row in first["functions"]] == ["f0000", "f0001", "f0002"]


NUMBERED = ("engine::functions::list", "engine::channels::list")
"""The lists whose keys begin with a number."""


@pytest.mark.parametrize(
    "payload",
    [{"limit": 0}, {"limit": -1}, {"limit": "3"}, {"after": "f1"}, {"after": [[]]}, {"after": "another kind"}],
)
@pytest.mark.parametrize("function_id", [*LISTS, "engine::channels::list"])
def test_a_page_that_cannot_be_meant_is_refused(payload: dict[str, Any], function_id: str) -> None:
    _, asker = crowd()
    asker.ask("engine::channels::create", {})
    if payload == {"after": "another kind"}:
        payload = {"after": ["x"] if function_id in NUMBERED else [1]}
    error = asker.ask(function_id, payload)
    assert error["code"] == "deserialization_error" and ("limit" in error["message"] or "after" in error["message"])


def test_channels_are_listed_in_pages_oldest_first() -> None:
    talk = Conversation()
    peer = node(talk, "peer")
    made = []
    for _ in range(5):
        made.append(peer.ask("engine::channels::create", {})["reader"]["channel_id"])
        talk.wait(1)
    found = pages(peer, "engine::channels::list", "channels", 2)
    assert [[row["id"] for row in page] for page in found] == [made[:2], made[2:4], made[4:]]


@pytest.mark.parametrize(
    ("runtime", "limit", "bound"),
    [
        ("node", 10, 524_288),
        ("python", 10, 524_288),
        ("node", None, 4_194_304 - 4096),
        ("python", None, 1_048_576 - 4096),
    ],
)
@pytest.mark.parametrize("over", [0, 1])
def test_the_rows_of_a_page_or_of_a_list_have_so_many_bytes(
    runtime: str, limit: int | None, bound: int, over: int
) -> None:
    talk = Conversation()
    peer = talk.join("peer", runtime=runtime)
    message = InvokeFunction("rows", call_id(1))
    request = Request(peer.session, message, call_id(1), lambda effect: talk.act([effect]), 0.0)
    # Each row takes its quotes and a comma besides.
    sizes = [100, 200, bound - 300 - 9 + over]
    page = paging.Paged(limit=limit)

    def answer() -> None:
        paging.reply_with_list(request, "rows", sizes, lambda size: (size,), lambda size: "x" * size, page)

    if limit is None and over:
        with pytest.raises(CallError, match=r"The list has 3 rows; .* Ask for it in pages"):
            answer()
        return
    answer()
    (result,) = [frame["result"] for frame in peer.hears()]
    assert [len(row) for row in result["rows"]] == sizes[: 3 - over]
    assert result.get("after") == ([200] if over else None) and ("after" in result) is (limit is not None)
