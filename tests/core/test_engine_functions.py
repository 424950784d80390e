"""The engine's own functions: each bound of their payloads on both sides, and each field of their answers."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from iii_trio.config import EngineConfig, Limits
from iii_trio.core.channel import ChannelEvent
from iii_trio.core.effects import AskRecording, EndChannel, Log
from iii_trio.wire import Direction
from tests.helpers.conversation import Conversation, Peer

CREATE = "engine::channels::create"


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("buffer_size", 0, None), ("buffer_size", -1, "must be at least 0, got -1"),
        ("max_bytes", 1, None), ("max_bytes", 0, "must be at least 1, got 0"),
        ("max_bytes", 5_000_000, None), ("max_bytes", 5_000_001, "at most 5000000 (limits.channel_bytes), got 5000001"),
        ("expires_after_ms", 1, None), ("expires_after_ms", 0.5, "must be at least 1, got 0.5"),
    ],
)  # fmt: skip
def test_the_bounds_of_a_channel_are_checked_by_name(field: str, value: float, problem: str | None) -> None:
    talk = Conversation(EngineConfig(limits=Limits(channel_bytes=5_000_000)))
    answer = talk.join().ask(CREATE, {field: value})
    if problem is None:
        assert answer["writer"]["direction"] == "write"
    else:
        assert answer["message"] == f"Failed to deserialize input for {CREATE}: {field}: {problem}"


def create(peer: Peer, **payload: Any) -> dict[str, Any]:
    refs: dict[str, Any] = peer.ask(CREATE, payload)
    return refs


def test_a_channel_is_listed_with_its_ages_and_the_names_of_its_three_workers() -> None:
    talk = Conversation()
    owner, writer, reader = (talk.join(name) for name in ("owner", "writer", "reader"))
    refs = create(owner, buffer_size=7, max_bytes=99, expires_after_ms=5000)
    talk.wait(2.0)
    for end, peer in (("writer", writer), ("reader", reader)):
        direction = Direction.WRITE if end == "writer" else Direction.READ
        talk.hub.attach(refs[end]["channel_id"], refs[end]["access_key"], direction, talk.now, peer.session)
    talk.wait(3.0)
    (row,) = owner.ask("engine::channels::list")["channels"]
    assert row == {
        "id": refs["writer"]["channel_id"], "phase": "flowing", "owner": owner.id, "owner_name": "owner",
        "writer": writer.id, "writer_name": "writer", "reader": reader.id, "reader_name": "reader", "age_seconds": 5.0,
        "idle_seconds": 3.0, "buffer_size": 7, "max_bytes": 99, "expires_after_seconds": 5.0, "invocations": [],
    }  # fmt: skip


def test_the_last_channels_that_ended_are_listed_the_latest_first_and_as_many_as_asked_for() -> None:
    talk = Conversation()
    peer = talk.join("peer")
    ids = [create(peer)["writer"]["channel_id"] for _ in range(3)]
    for channel_id in ids:
        talk.wait(1.0)
        talk.act(talk.hub.channel_event(channel_id, ChannelEvent.ENGINE_CLOSED, "over", talk.now, "C"))
    talk.wait(4.0)
    rows = peer.ask("engine::channels::ended")["channels"]
    assert [row["id"] for row in rows] == ids[::-1]
    assert [(row["lasted_seconds"], row["ended_seconds_ago"]) for row in rows] == [(3.0, 4.0), (2.0, 5.0), (1.0, 6.0)]
    assert [row["id"] for row in peer.ask("engine::channels::ended", {"limit": 2})["channels"]] == ids[:0:-1]
    assert peer.ask("engine::channels::ended", {"limit": 0}) == {"channels": []}


@pytest.mark.parametrize(
    ("end", "payload", "outcome"),
    [("reader", {}, "reader_cancelled"), ("writer", {"clean": False}, "aborted"), ("writer", {}, "aborted"),
     ("writer", {"clean": True}, None)],
)  # fmt: skip
def test_an_end_is_ended_without_attaching_it_once(end: str, payload: dict[str, Any], outcome: str | None) -> None:
    talk = Conversation()
    peer, other = talk.join("peer"), talk.join("other")
    given = {**create(peer)[end], "reason": "enough", "code": "C", **payload}
    assert other.ask("engine::channels::end", given) == {"ended": True}
    assert other.ask("engine::channels::end", given) == {"ended": False}
    ended = [(str(each.outcome), each.reason, each.code) for each in talk.effects if isinstance(each, EndChannel)]
    assert ended == ([] if outcome is None else [(outcome, "enough", "C")])


@pytest.mark.parametrize(
    ("baggage", "entries"),
    [
        (None, {}), ("", {}), ("a=1", {"a": "1"}), (" a = 1 ;p=2, b=x%20y ,c", {"a": "1", "b": "x y"}),
        ("=1,d=", {"d": ""}), ("a=1,a=2=3", {"a": "2=3"}),
    ],
)  # fmt: skip
def test_the_baggage_of_a_call_is_read_without_properties(baggage: str | None, entries: dict[str, str]) -> None:
    talk = Conversation()
    peer = talk.join()
    more = {} if baggage is None else {"baggage": baggage}
    assert peer.ask("engine::baggage::get_all", **more) == {"baggage": entries}
    for key in ("a", "b", "c", "d"):
        assert peer.ask("engine::baggage::get", {"key": key}, **more) == {"value": entries.get(key)}
    assert peer.ask("engine::baggage::set", {"key": "a", "value": "b"})["success"] is False


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("info", logging.INFO), ("warn", logging.WARNING), ("error", logging.ERROR), ("debug", logging.DEBUG),
        ("trace", logging.DEBUG),
    ],
)  # fmt: skip
def test_a_worker_may_write_a_line_of_the_log_of_bounded_length(name: str, level: int) -> None:
    talk = Conversation()
    peer = talk.join("peer")
    talk.effects.clear()
    payload = {"message": "\x1b" + "m" * 5000, "trace_id": "t" * 5000, "service_name": "s", "data": {"a": "d" * 5000}}
    assert peer.ask(f"engine::log::{name}", payload) is None
    (line,) = [effect for effect in talk.effects if isinstance(effect, Log)]
    assert (line.level, line.peer_controlled) == (level, True)
    assert line.message == f"{peer.session.label}: " + "m" * 4096
    assert line.fields["session"] == peer.id and line.fields["service_name"] == "s" and "span_id" not in line.fields
    assert (len(line.fields["trace_id"]), len(line.fields["data"])) == (4096, 4096)
    talk.effects.clear()
    peer.ask(f"engine::log::{name}", {"message": "short"})
    (line,) = [effect for effect in talk.effects if isinstance(effect, Log)]
    assert line.fields == {"session": peer.id}


@pytest.mark.parametrize(
    ("seconds", "fits"), [(None, True), (0, False), (0.001, True), (-1, False), (1e9, True), (1e9 + 1, False)]
)
def test_a_recording_is_of_a_number_of_seconds_above_0_into_a_writing_end(seconds: float | None, fits: bool) -> None:
    talk = Conversation()
    peer = talk.join()
    refs = create(peer)
    for end in ("writer", "reader", None):
        talk.effects.clear()
        writer = {} if end is None else {"writer": refs[end]}
        peer.call("engine::recorder::save", {"last_seconds": seconds, **writer}, number=9)
        asked = [effect for effect in talk.effects if isinstance(effect, AskRecording)]
        assert len(asked) == (fits and end == "writer")


@pytest.mark.parametrize(
    ("result", "error", "answer"),
    [
        ({"bytes": 9}, None, {"result": {"bytes": 9}}),
        (None, "the disk is full", {"error": {"code": "invocation_failed", "message": "the disk is full"}}),
    ],
)
def test_a_recording_is_answered_once_with_its_description_or_with_the_reason_why_there_is_none(
    result: dict[str, int] | None, error: str | None, answer: dict[str, Any]
) -> None:
    talk = Conversation()
    peer = talk.join()
    peer.call("engine::recorder::save", {"last_seconds": 1, "writer": create(peer)["writer"]}, number=9)
    (asked,) = [effect for effect in talk.effects if isinstance(effect, AskRecording)]
    peer.hears()
    for _ in range(2):
        talk.act(talk.hub.recording_known(asked.question, result, error))
    (frame,) = peer.hears()
    assert {key: frame[key] for key in ("result", "error") if key in frame} == answer
