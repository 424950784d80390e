"""Each bound of the queue's settings, payloads, rows and room, on both sides of it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest

from iii_trio import QueueConfig, QueueSettings
from iii_trio.errors import CallError
from iii_trio.triggers.queue import job_rows
from iii_trio.triggers.queue.lane import Job, Lane, depths
from iii_trio.triggers.queue.lane_key import LaneKey
from iii_trio.triggers.queue.ledger import Ledger
from iii_trio.triggers.queue.protocol import (
    JobOptions,
    check_id,
    group_of,
    namespace_of,
    read_subscriber,
    trace_headers,
)
from iii_trio.triggers.queue.record import Timestamp
from iii_trio.triggers.queue.room import on_disk
from iii_trio.triggers.queue.settings import DEFAULT_QUEUE

# --- settings

YEAR = 366 * 86_400.0
DEFAULTS = {
    "max_attempts": 3, "concurrency": 10, "fifo": False, "group_by": None, "backoff_seconds": 1.0,
    "backoff": "exponential", "max_backoff_seconds": 3600.0, "visibility_timeout_seconds": None, "delay_seconds": 0.0,
    "max_lost_deliveries": 3, "missing_function_seconds": None, "max_jobs": None, "overrun_factor": 10.0,
    "dead_letters": 10_000,
}  # fmt: skip
SMALLEST = {
    "max_attempts": (0, 1), "concurrency": (0, 1), "backoff_seconds": (-0.001, 0.0), "max_backoff_seconds": (0.0, 0.001),
    "visibility_timeout_seconds": (0.0, 0.001), "delay_seconds": (-0.001, 0.0), "max_lost_deliveries": (0, 1),
    "missing_function_seconds": (0.0, 0.001), "max_jobs": (0, 1), "overrun_factor": (0.999, 1.0), "dead_letters": (-1, 0),
}  # fmt: skip


def test_a_queue_without_settings_has_these() -> None:
    settings = QueueSettings()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS
    config = QueueConfig()
    assert dict(config.queues) == {DEFAULT_QUEUE: settings} and config.directory is None
    assert (config.synchronous, config.jobs, config.disk_bytes) == ("full", 1_000_000, None)
    assert (config.max_away_seconds, config.max_away_jobs) == (2_678_400.0, None)
    assert config.memory_bytes == 67_108_864


@pytest.mark.parametrize("name", SMALLEST)
def test_a_setting_has_a_smallest_value(name: str) -> None:
    too_small, smallest = SMALLEST[name]
    assert getattr(QueueSettings(**{name: smallest}), name) == smallest  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=name):
        QueueSettings(**{name: too_small})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "too_small", "smallest"),
    [
        ("jobs", 0, 1),
        ("disk_bytes", 0, 1),
        ("max_away_seconds", 0.0, 0.001),
        ("max_away_jobs", 0, 1),
        ("memory_bytes", -1, 0),
    ],
)
def test_a_setting_of_all_queues_has_a_smallest_value(name: str, too_small: float, smallest: float) -> None:
    assert getattr(QueueConfig(**{name: smallest}), name) == smallest  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=name):
        QueueConfig(**{name: too_small})  # type: ignore[arg-type]


def test_a_pause_doubles_up_to_the_longest() -> None:
    settings = QueueSettings(backoff_seconds=2, max_backoff_seconds=10)
    assert [settings.pause_seconds(failures) for failures in range(1, 6)] == [2, 4, 8, 10, 10]
    assert [settings.pause_seconds(failures, 1.1) for failures in (1, 3)] == [2.2, 8.8]
    assert settings.pause_seconds(5000) == 10 and settings.longest_pause_seconds == 10
    fixed = QueueSettings(backoff_seconds=2, backoff="fixed")
    assert [fixed.pause_seconds(failures, 1.5) for failures in (1, 9)] == [3, 3]
    slow = QueueSettings(backoff_seconds=20, max_backoff_seconds=10)
    assert slow.pause_seconds(1) == slow.pause_seconds(9) == slow.longest_pause_seconds == 20
    tiny = QueueSettings(backoff_seconds=1e-18, max_backoff_seconds=YEAR)
    assert tiny.pause_seconds(61) == tiny.pause_seconds(99) == pytest.approx(1e-18 * 2**60)


# --- payloads


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"priority": 0}, True), ({"priority": 3}, True), ({"priority": 4}, False), ({"priority": -1}, False),
        ({"unique_key": "x"}, True), ({"unique_key": ""}, False), ({"unique_key": "x" * 256}, True),
        ({"unique_key": "x" * 257}, False), ({"delay_seconds": 0}, True), ({"delay_seconds": -0.001}, False),
        ({"keep_result_seconds": 0}, True), ({"unique_seconds": -1}, False), ({"other": 1}, False),
    ],
)  # fmt: skip
def test_the_options_of_a_job_have_bounds(options: dict[str, Any], fits: bool) -> None:
    try:
        msgspec.json.decode(json.dumps(options), type=JobOptions)
    except msgspec.ValidationError:
        assert not fits
    else:
        assert fits


@pytest.mark.parametrize(
    ("options", "delay"),
    [
        ({}, None), ({"delay_seconds": 2.5}, 2.5), ({"at_ms": 3500}, 2.5), ({"at_ms": 1000}, 0.0), ({"at_ms": 0}, 0.0),
        ({"at_ms": 3500, "delay_seconds": 9}, 2.5),
    ],
)  # fmt: skip
def test_a_job_is_delayed_by_seconds_or_until_a_time(options: dict[str, Any], delay: float | None) -> None:
    assert JobOptions(**options).delay_from(1000) == delay
    assert JobOptions(at_ms=10**18).delay_from(0) == JobOptions(at_ms=10**19).delay_from(0) is not None


def test_texts_that_stay_in_memory_are_bounded() -> None:
    check_id("f", "queue", "é" * 512)
    with pytest.raises(CallError, match="`queue` is 1025 bytes, and may be at most 1024"):
        check_id("f", "queue", "é" * 512 + "x")
    assert trace_headers("x" * 256, "é" * 4096) == ("x" * 256, "é" * 4096)
    assert trace_headers("x" * 257, "é" * 4096 + "x") == (None, None)
    assert trace_headers(None, None) == (None, None)


@pytest.mark.parametrize(("given", "namespace"), [(None, "default"), ("fleet", "fleet"), ("", None), (" ", None)])
def test_a_namespace_is_not_empty(given: str | None, namespace: str | None) -> None:
    if namespace is not None:
        assert namespace_of(given) == namespace
        return
    with pytest.raises(CallError) as caught:
        namespace_of(given)
    assert caught.value.code == "INVALID_NAMESPACE"


def fifo(kind: Any = "queue", group_by: str | None = "g", *, is_fifo: bool = True) -> Lane:
    settings = QueueSettings(fifo=is_fifo, group_by=group_by if is_fifo else None)
    return Lane(LaneKey(kind, "orders", "n", "f"), settings)


def test_the_group_of_a_job_is_a_field_of_its_data() -> None:
    assert group_of(fifo(is_fifo=False), b'{"g":1}') is None
    assert group_of(fifo(), b'{"g": {"a":1,  "b":"\\u0078"}}') == '{"a":1,"b":"x"}'
    longest = "x" * 254
    assert group_of(fifo(), json.dumps({"g": longest}).encode()) == f'"{longest}"'
    longer = json.dumps("x" * 255)
    assert group_of(fifo(), f'{{"g":{longer}}}'.encode()) == hashlib.sha256(longer.encode()).hexdigest()
    for data in (b"{}", b'{"g":null}', b"[]"):
        assert group_of(fifo("topic"), data) == ""
    assert group_of(fifo("topic", None), b'{"g":1}') == ""
    for lane, data, code, said in (
        (fifo(group_by=None), b'{"g":1}', "fifo_group_not_configured", "requires 'message_group_field'"),
        (fifo(), b"{}", "fifo_group_missing", "but it was not found"),
        (fifo(), b"[1]", "fifo_group_missing", "but it was not found"),
        (fifo(), b'{"g":null}', "fifo_group_missing", "must not be null"),
        (fifo(), b'{"g":1e999}', "deserialization_error", "cannot be decoded"),
    ):
        with pytest.raises(CallError, match=said) as caught:
            group_of(lane, data)
        assert caught.value.code == code


SUBSCRIBER = {"missing_function_seconds": None, "max_jobs": 100_000}


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"maxJobs": 1}, {"max_jobs": 1}), ({"maxJobs": 0}, {}), ({"maxJobs": 1.5}, {}), ({"maxJobs": True}, {}),
        ({"maxJobs": 10**9}, {}), ({"maxJobs": 10**9 - 1}, {"max_jobs": 10**9 - 1}),
        ({"maxRetries": 0}, {"max_attempts": 1}),
        ({"maxRetries": 4}, {"max_attempts": 5}), ({"maxRetries": -1}, {}), ({"concurrency": 1}, {"concurrency": 1}),
        ({"concurrency": 0}, {}), ({"type": "fifo"}, {"fifo": True}), ({"type": "standard", "messageGroupField": "g"}, {}),
        ({"type": "fifo", "messageGroupField": "g"}, {"fifo": True, "group_by": "g"}),
        ({"type": "fifo", "messageGroupField": ""}, {"fifo": True}),
        ({"type": "fifo", "messageGroupField": 7}, {"fifo": True}),
        ({"backoffDelayMs": 1500}, {"backoff_seconds": 1.5}), ({"backoffDelayMs": 0}, {"backoff_seconds": 0.0}),
        ({"backoffDelayMs": -1}, {}), ({"backoffType": "fixed"}, {"backoff": "fixed"}), ({"backoffType": "odd"}, {}),
        ({"visibilityTimeout": 0}, {}), ({"visibilityTimeout": 0.5}, {"visibility_timeout_seconds": 0.5}),
        ({"visibilityTimeout": "5"}, {}), ({"delaySeconds": 0}, {"delay_seconds": 0.0}), ({"delaySeconds": -1}, {}),
        ({"delaySeconds": 2}, {"delay_seconds": 2.0}), ({"maxLostDeliveries": 1}, {"max_lost_deliveries": 1}),
        ({"maxLostDeliveries": 0}, {}), (None, {}), ([], {}),
    ],
)  # fmt: skip
def test_the_config_of_a_subscriber_is_read_one_value_after_the_other(given: Any, settings: dict[str, Any]) -> None:
    read = read_subscriber(json.dumps({"topic": "t", "queue_config": given}).encode())
    assert read.topic == "t" and read.condition is None
    assert read.settings == QueueSettings(**{**SUBSCRIBER, **settings})


@pytest.mark.parametrize(
    ("config", "topic", "condition"),
    [
        ({"topic": "a", "queue": "b"}, "a", None), ({"topic": "", "queue": "b"}, "b", None), ({"topic": 7}, "", None),
        ({"topic": "a", "condition_function_id": "c"}, "a", "c"), ({"topic": "a", "condition_function_id": ""}, "a", None),
        ({"topic": "a", "condition_function_id": 7}, "a", None), ([], "", None),
    ],
)  # fmt: skip
def test_the_topic_and_the_condition_of_a_subscriber_are_texts(config: Any, topic: str, condition: str | None) -> None:
    read = read_subscriber(json.dumps(config).encode())
    assert (read.topic, read.condition) == (topic, condition)


# --- room

SIZES = [(0, 256), (3839, 4095), (3840, 4096), (3841, 8192), (8192 - 256, 8192), (8192 - 255, 12288)]


@pytest.mark.parametrize(("size", "expected"), SIZES)
def test_a_small_job_takes_its_row_on_disk_and_a_large_one_whole_pages(size: int, expected: int) -> None:
    assert on_disk(size) == expected


def ledger_of(settings: QueueSettings | None = None, **config: Any) -> Ledger:
    return Ledger(QueueConfig({"mail": settings or QueueSettings(max_jobs=None)}, **config), lambda: 1.0)


def mail(ledger: Ledger) -> Lane:
    lane = ledger.lanes.queue("mail")
    assert lane is not None
    return lane


def admit(ledger: Ledger, job_id: str = "j", wall_ms: int = 0, *, data: bytes = b"{}", **more: Any) -> Job:
    at = Timestamp(wall_ms / 1000, wall_ms)
    job = ledger.admit(mail(ledger), job_id, ("default", "f"), data, at, **more)
    ledger.stored(job, at)
    return job


@pytest.mark.parametrize("bound", ["jobs", "max_jobs", "disk_bytes"])
def test_there_is_room_for_exactly_as_many_jobs_as_the_bound_says(bound: str) -> None:
    if bound == "max_jobs":
        ledger = ledger_of(QueueSettings(max_jobs=3))
    else:
        ledger = ledger_of(**{bound: 3 if bound == "jobs" else 3 * on_disk(2)})
    jobs = []
    for number in range(3):
        assert ledger.room.problem([mail(ledger)], 2) is None
        jobs.append(admit(ledger, str(number)))
    problem = ledger.room.problem([mail(ledger)], 2)
    assert problem is not None and "at most" in problem
    (first, *_) = ledger.lease(Timestamp(0, 0))
    ledger.succeeded(first, Timestamp(0, 0))
    ledger.erased(first)
    assert ledger.room.problem([mail(ledger)], 2) is None
    assert ledger.room.problem([mail(ledger)] * 2, 2) is not None or bound == "max_jobs"


def test_the_room_counts_bytes_in_memory_and_on_disk() -> None:
    ledger = ledger_of()
    job = admit(ledger, data=b'"12345678"', metadata=b"12")
    room = ledger.room
    assert (room.kept_bytes, room.memory_bytes, room.disk_bytes, room.unfinished) == (12, 12 + 128, 12 + 256, 1)
    room.release_payload(job, unless_room=True)
    assert room.kept_bytes == 12
    room.release_payload(job)
    room.release_payload(job)
    assert (room.kept_bytes, room.memory_bytes, room.disk_bytes) == (0, 0, 12 + 256) and job.record.data is None
    assert room.jobs == 999_999 and room.in_lane(mail(ledger)) == 999_999


# --- rows


def test_a_row_says_how_old_a_job_is_and_when_it_is_due() -> None:
    ledger = ledger_of(QueueSettings(delay_seconds=5))
    job = admit(ledger, wall_ms=1000, traceparent="00-trace-span-01")
    row = job_rows.row(job, Timestamp(2.5, 3500))
    assert (row["state"], row["age_seconds"], row["due_seconds"], row["trace_id"]) == ("delayed", 2.5, 3.5, "trace")
    assert job_rows.row(job, Timestamp(9, 0))["due_seconds"] == job_rows.row(job, Timestamp(9, 0))["age_seconds"] == 0.0
    plain = admit(ledger_of(), traceparent="00")
    row = job_rows.row(plain, Timestamp(0, 0))
    assert (row["state"], row["due_seconds"], row["trace_id"], row["size_bytes"]) == ("waiting", None, None, 2)
    assert (row["queue"], row["kind"], row["failed"], row["lost"]) == ("mail", "queue", 0, 0)


def test_a_filter_fits_each_of_its_members() -> None:
    job = admit(ledger_of(), wall_ms=1000)
    now = Timestamp(3, 3000)
    for fits, wanted in (
        (True, {}), (True, {"state": "waiting"}), (False, {"state": "dead"}), (True, {"function_id": "f"}),
        (False, {"function_id": "e"}), (False, {"function_id": "g"}), (True, {"namespace": "default"}),
        (False, {"namespace": "a"}), (False, {"namespace": "x"}), (True, {"older_than_seconds": 1.9}),
        (False, {"older_than_seconds": 2.0}), (True, {"newer_than_seconds": 2.1}), (False, {"newer_than_seconds": 2.0}),
        (False, {"state": "waiting", "namespace": "x"}),
    ):  # fmt: skip
        assert job_rows.JobFilter(**wanted).fits(job, now) is fits, wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(("limit", "rows"), [(-5, 1), (0, 1), (1, 1), (2, 2), (499, 499), (500, 500), (501, 500)])
def test_a_page_has_1_to_500_rows(limit: int, rows: int) -> None:
    ledger = ledger_of()
    for number in range(510):
        admit(ledger, str(number))
    page, after = job_rows.page([mail(ledger)], job_rows.JobFilter(), 0, limit, Timestamp(0, 0))
    assert len(page) == rows and [row["id"] for row in page[:2]] == ["0", "1"][: len(page)]
    assert after == rows, "positions count from 1"
    last, end = job_rows.page([mail(ledger)], job_rows.JobFilter(), 505, 5, Timestamp(0, 0))
    assert [row["id"] for row in last] == ["505", "506", "507", "508", "509"] and end is None


def test_the_depths_of_lanes_are_added_up() -> None:
    ledger = ledger_of(QueueSettings(max_attempts=1))
    for number in range(5):
        admit(ledger, str(number))
    first, second, *_ = ledger.lease(Timestamp(0, 0))
    for change in ledger.failed(first, "c", "m", Timestamp(0, 0)):
        assert change is not None
    ledger.dead_lettered(first)
    ledger.returned(second)
    assert depths([mail(ledger)]) == type(depths([]))(depth=4, running=3, delayed=0, dead=1)
    assert mail(ledger).oldest_seconds(Timestamp(7, 7000)) == 7.0
    assert mail(ledger).oldest_seconds(Timestamp(0, -5000)) == 0.0
    assert ledger_of().lanes.open(LaneKey("queue", "x")).oldest_seconds(Timestamp(0, 0)) is None
