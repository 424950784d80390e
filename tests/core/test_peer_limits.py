"""What a peer's SDK could not read is refused to whoever sent it, instead of being lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iii_trio.core.peer_limits import why_unfit
from iii_trio.wire import nests_deeper
from tests.helpers.conversation import Conversation, call_id

JSON = st.recursive(
    st.none() | st.text('[]{}"\\n:,é') | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\a'), inner, max_size=3),
    max_leaves=30,
)


def depth(value: Any) -> int:
    match value:
        case list():
            return 1 + max(map(depth, value), default=0)
        case dict():
            return 1 + max(map(depth, value.values()), default=0)
    return 0


def nested(levels: int) -> Any:
    value: Any = "[[["
    for _ in range(levels):
        value = [value]
    return value


@example("[" * 9, 8, True)
@example({"a": '[[["\\'}, 1, True)
@given(JSON, st.integers(0, 8), st.booleans())
def test_the_depth_of_a_text_is_that_of_its_value(value: Any, levels: int, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert nests_deeper(text, levels) is (depth(value) > levels)


@pytest.mark.parametrize(
    ("runtime", "levels", "fits"), [("rust", 126, True), ("rust", 127, False), ("node", 500, True)]
)
def test_a_call_or_a_result_too_deep_for_the_rust_sdk_is_an_error_and_not_lost(
    runtime: str, levels: int, fits: bool
) -> None:
    """It would drop the whole message, of which nobody is told: the call would never be answered."""
    talk = Conversation()
    peer, boats = talk.connect(), talk.join("boats")
    peer.register("peer", runtime=runtime)
    peer.hears()
    peer.offer("peer::echo")
    boats.offer("boats::echo")
    boats.call("peer::echo", nested(levels))
    assert len(peer.hears()) == fits
    assert [frame["error"]["code"] for frame in boats.hears()] == ([] if fits else ["serialization_error"])

    peer.call("boats::echo", 1, number=2)
    boats.answer(call_id(2), result=nested(levels))
    [answer] = peer.hears()
    assert ("result" in answer) is fits
    assert fits or answer["error"]["code"] == "serialization_error"


@pytest.mark.parametrize(
    ("size", "fits"), [(1_048_575, True), (1_048_576, True), (1_048_577, False), (2_000_000, False)]
)
def test_a_message_of_at_most_1_mib_is_sent_to_every_peer(size: int, fits: bool) -> None:
    for runtime in ("python", "node"):
        peer = Conversation().join("peer", runtime=runtime)
        unfit = why_unfit(peer.session, b'"' + b"x" * (size - 2) + b'"')
        assert (unfit is None) is (fits or runtime == "node")
        if unfit is not None:
            assert unfit.code == "payload_too_large"
            assert unfit.message == (
                f"The message is {size} bytes; {peer.session.label} takes at most 1048576. Use a channel."
            )


@pytest.mark.parametrize("levels", [127, 128])
def test_a_message_for_the_rust_sdk_has_at_most_127_levels_if_it_is_small_enough_to_be_looked_at(levels: int) -> None:
    peer = Conversation().join("peer", runtime="rust")
    text = b"[" * levels + b"]" * levels
    for size, is_read in ((300, True), (1_048_576, True), (1_048_577, False)):
        unfit = why_unfit(peer.session, b" " * (size - len(text)) + text)
        assert (unfit is None) is (levels == 127 or not is_read)
        assert unfit is None or unfit.code == "serialization_error"
