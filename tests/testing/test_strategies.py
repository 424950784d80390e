"""What the strategies draw is what they say, and whatever they draw, the promises hold."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iii_trio.testing import Conversation, simulate_conversation, strategies
from iii_trio.testing.conversations import Fault, Mishap, Stream
from iii_trio.transport.frames import BatchScanner
from iii_trio.wire import Ref, find_refs
from iii_trio.wire.json import JsonValue, to_json

RARE = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@given(conversation=strategies.conversations(), seed=st.integers(0, 1_000))
@RARE
def test_the_promises_hold_in_any_conversation(conversation: Conversation, seed: int) -> None:
    simulate_conversation(conversation, seed)


def test_a_worker_that_crashes_twice_at_once_is_started_once() -> None:
    crash = Fault(at=0.0, mishap=Mishap.CRASH, worker=0, lasts=0.0)
    simulate_conversation(Conversation(("memory",), (Stream(()),), (crash, crash)), 0)


@given(strategies.json_values())
def test_payloads_can_be_written(value: JsonValue) -> None:
    assert to_json(value)


@given(strategies.refs())
def test_refs_are_found_where_they_are(ref: Ref) -> None:
    assert list(find_refs({"a": [ref.to_json()]})) == [("a.0", ref)]


@given(st.data())
def test_pieces_make_the_whole(data: st.DataObject) -> None:
    whole = data.draw(st.binary(max_size=100))
    assert b"".join(data.draw(strategies.splits(whole))) == whole


@given(st.binary(min_size=4, max_size=4).flatmap(lambda mask: st.lists(strategies.frames(mask), max_size=5)))
def test_frames_are_valid(frames: list[bytes]) -> None:
    scanner = BatchScanner(1_000_000)
    scanner.scan(memoryview(b"".join(frames)))
    assert scanner.error is None
