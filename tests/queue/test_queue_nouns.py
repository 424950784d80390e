"""The small parts of the queue that only compute: texts, baggage, the names of lanes, rates, unique keys."""

from __future__ import annotations

import math

import pytest

import iii_trio.triggers.queue
from iii_trio import QueueConfig, QueueSettings
from iii_trio.triggers.queue import baggage
from iii_trio.triggers.queue.lane import Job, Rate
from iii_trio.triggers.queue.lane_key import LaneKey
from iii_trio.triggers.queue.ledger import Ledger
from iii_trio.triggers.queue.protocol import JobOptions
from iii_trio.triggers.queue.record import Timestamp
from iii_trio.triggers.queue.texts import cut, is_json
from tests.helpers.objects import unruly_classes


def test_an_object_of_the_queue_is_a_value_or_a_thing_but_for_what_is_filled_in_or_counted() -> None:
    assert unruly_classes(iii_trio.triggers.queue) == {"EnqueueInput", "JobOptions", "PublishInput", "Record"}


# --- texts


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("", ""),
        ("abcd", "abcd"),
        ("abcde", "abcd… (5 bytes in all)"),
        ("éé", "éé"),
        ("ééé", "éé… (6 bytes in all)"),
        ("aéé", "aé… (5 bytes in all)"),
        ("\ud800", "?"),
    ],
)
def test_a_text_is_cut_to_whole_characters_of_so_many_bytes(text: str, short: str) -> None:
    assert cut(text, 4) == short


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"null", True), (b'{"a":[1e999]}', True), (b"", False), (b"{", False), (b'"\xff"', False), (b"NaN", False)],
)
def test_json_is_known_by_its_structure(data: bytes, expected: bool) -> None:
    assert is_json(data) is expected
    assert not is_json(b"[" * 100_000 + b"]" * 100_000)


# --- baggage


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        (None, "iii.function.id=a::b%2Fc"),
        ("", "iii.function.id=a::b%2Fc"),
        (" lane=3 ,, x=1;p", "lane=3,x=1;p,iii.function.id=a::b%2Fc"),
        ("iii.function.id=old,iii.tag.kind = k,y=2", "y=2,iii.function.id=a::b%2Fc"),
        ("iii.tag.display_name=n,iii.tag.hidden=1,iii.tag.other=2", "iii.tag.other=2,iii.function.id=a::b%2Fc"),
    ],
)
def test_a_jobs_baggage_names_its_own_function_and_keeps_what_is_not_about_the_call(
    sent: str | None, passed_on: str
) -> None:
    assert baggage.for_job(sent, "a::b/c") == passed_on


# --- the names of lanes


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (LaneKey("queue", 'a"b'), '["queue","a\\"b"]'),
        (LaneKey("topic", "t", "n", "f"), '["topic","t","n","f"]'),
    ],
)
def test_a_lanes_name_is_read_as_it_was_written(key: LaneKey, text: str) -> None:
    assert key.text == text and LaneKey.parse(text) == key


@pytest.mark.parametrize("text", ['["queue"]', '["queue",1]', '["topic","t","n"]', '["other","a"]', "{}", "["])
def test_another_text_is_no_name_of_a_lane(text: str) -> None:
    with pytest.raises(ValueError):
        LaneKey.parse(text)


# --- rates


def test_a_rate_is_weighted_towards_the_last_ten_seconds() -> None:
    rate = Rate()
    assert rate.at(0.0) == rate.at(1e9) == 0.0
    rate.count(100.0)
    assert rate.at(100.0) == pytest.approx(0.1) and rate.at(110.0) == pytest.approx(0.1 / math.e)
    assert rate.at(90.0) == pytest.approx(0.1), "a clock that is set back makes it no higher"
    rate.count(110.0)
    assert rate.at(110.0) == pytest.approx((1 / math.e + 1) / 10)
    for tick in range(2000):
        rate.count(200 + tick / 10)
    assert rate.at(400.0) == pytest.approx(10, rel=0.02)


# --- unique keys


def keyed(ledger: Ledger, key: str, unique_seconds: float | None = None, now: float = 0.0) -> Job:
    lane = ledger.lanes.queue("mail")
    assert lane is not None
    options = JobOptions(unique_key=key, unique_seconds=unique_seconds)
    return ledger.admit(lane, f"job {key} {now}", ("default", "f"), b"{}", Timestamp(now, 0), options=options)


def test_a_unique_key_is_taken_until_its_job_is_over_and_for_its_time() -> None:
    ledger = Ledger(QueueConfig({"mail": QueueSettings()}), lambda: 1.0)
    job, timed = keyed(ledger, "a"), keyed(ledger, "b", 5)
    holder = ledger.unique.holder
    text = job.lane.text
    assert (holder(text, "a", 1e9), holder(text, "b", 1e9)) == (job.record.id, timed.record.id)
    assert holder(text, "c", 0.0) is None and holder("other", "a", 0.0) is None
    ledger.refused(job)
    ledger.refused(timed)
    assert holder(text, "a", 0.0) is None
    assert holder(text, "b", 4.999) == timed.record.id and holder(text, "b", 5.0) is None


def test_a_key_of_a_job_that_came_earlier_is_taken_for_the_rest_of_its_time() -> None:
    ledger = Ledger(QueueConfig({"mail": QueueSettings()}), lambda: 1.0)
    job = keyed(ledger, "a", 5)
    ledger.refused(job)
    ledger.unique.take(job, now=100.0, age=3.0)
    text = job.lane.text
    assert ledger.unique.holder(text, "a", 101.9) == job.record.id
    assert ledger.unique.holder(text, "a", 102.0) is None


def test_keys_that_are_free_again_are_forgotten() -> None:
    ledger = Ledger(QueueConfig({"mail": QueueSettings()}), lambda: 1.0)
    waiting = keyed(ledger, "waiting")
    for number in range(5000):
        ledger.refused(keyed(ledger, str(number)))
        assert len(ledger.unique._taken) <= 1000
    assert ledger.unique.holder(waiting.lane.text, "waiting", 0.0) == waiting.record.id
