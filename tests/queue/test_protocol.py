"""What others send to the queue: bounds that hold to the last byte, and values that are left out."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from iii_trio import CallError, QueueSettings
from iii_trio.triggers.queue.protocol import (
    SUBSCRIBER_JOBS,
    JobOptions,
    PublishInput,
    SubscriberConfig,
    check_id,
    check_metadata,
    group_of,
    namespace_of,
    read,
    read_subscriber,
    trace_headers,
)
from iii_trio.wire import to_json
from tests.queue.ledgers import lane_of

PLAIN = QueueSettings(missing_function_seconds=None, max_jobs=100_000)


# --- options of a job


def test_a_job_without_options_has_the_usual_ones() -> None:
    options = JobOptions()
    assert (options.priority, options.replace, options.delay_seconds, options.unique_key) == (1, False, None, None)


@pytest.mark.parametrize(
    ("given", "is_allowed"),
    [
        ({"priority": 0}, True), ({"priority": 3}, True), ({"priority": -1}, False), ({"priority": 4}, False),
        ({"delay_seconds": 0}, True), ({"delay_seconds": -0.1}, False),
        ({"delay_seconds": 1e9}, True), ({"delay_seconds": 1.1e9}, False),
        ({"unique_key": ""}, False), ({"unique_key": "x"}, True), ({"unique_key": "x" * 256}, True),
        ({"unique_key": "x" * 257}, False), ({"unique_seconds": -1}, False), ({"keep_result_seconds": 1e9}, True),
        ({"other": 1}, False),
    ],
)  # fmt: skip
def test_options_are_checked(given: dict[str, Any], is_allowed: bool) -> None:
    if is_allowed:
        msgspec.convert(given, JobOptions)
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(given, JobOptions)


@pytest.mark.parametrize(
    ("options", "delay"),
    [
        (JobOptions(), None),
        (JobOptions(delay_seconds=2.0), 2.0),
        (JobOptions(at_ms=7_500), 2.5),
        (JobOptions(at_ms=4_000), 0.0),
        (JobOptions(at_ms=5_000 + 10**12), 1e9),
        (JobOptions(at_ms=5_000 + 10**12 + 1000), 1e9),
        (JobOptions(at_ms=6_000, delay_seconds=9.0), 1.0),
    ],
)
def test_a_delay_is_the_seconds_or_the_rest_until_a_time(options: JobOptions, delay: float | None) -> None:
    assert options.delay_from(5_000) == delay


# --- names, metadata and headers


@pytest.mark.parametrize(
    ("text", "size"),
    [("x" * 300, None), ("x" * 1024, None), ("x" * 1025, 1025), ("é" * 512, None), ("é" * 513, 1026),
     ("\U0001f600" * 256, None), ("\U0001f600" * 257, 1028)],
)  # fmt: skip
def test_a_name_has_1024_bytes_at_most(text: str, size: int | None) -> None:
    if size is None:
        check_id("f", "topic", text)
    else:
        with pytest.raises(CallError) as caught:
            check_id("f", "topic", text)
        assert f"`topic` is {size} bytes, and may be at most 1024" in caught.value.message


def test_metadata_has_to_be_what_can_be_decoded() -> None:
    check_metadata("f", Raw(b'{"a":1}'))
    with pytest.raises(CallError, match="`metadata` cannot be decoded"):
        check_metadata("f", Raw(b'{"a":1e999}'))


def test_trace_headers_that_are_too_long_are_left_out() -> None:
    assert trace_headers(None, None) == (None, None)
    assert trace_headers("t" * 256, "b" * 8192) == ("t" * 256, "b" * 8192)
    assert trace_headers("t" * 257, "b" * 8193) == (None, None)
    assert trace_headers("t", "é" * 4097) == ("t", None) and trace_headers(None, "b") == (None, "b")
    assert trace_headers("t", "\ud800") == ("t", "\ud800")


def test_an_empty_namespace_is_refused_and_none_is_the_usual_one() -> None:
    assert namespace_of(None) == "default" and namespace_of("n") == "n"
    for empty in ("", " "):
        with pytest.raises(CallError) as caught:
            namespace_of(empty)
        assert caught.value.code == "INVALID_NAMESPACE"


def test_a_payload_that_cannot_be_read_names_its_function() -> None:
    decoder = msgspec.json.Decoder(PublishInput)
    assert read("f", Raw(b'{"topic":"t"}'), decoder).topic == "t"
    for payload in (b"{", b'{"topic":1}', b"[" * 100_000):
        with pytest.raises(CallError, match="f"):
            read("f::g", Raw(payload), decoder)


# --- groups


@pytest.mark.parametrize(
    ("data", "group"),
    [
        (b'{"g":"a"}', '"a"'),
        (b'{"g":1}', "1"),
        (b'{"g" : { "x" : 1 } }', '{"x":1}'),
        (b'{"g":"\\u0061"}', '"a"'),
        (to_json({"g": "x" * 254}), f'"{"x" * 254}"'),
        (to_json({"g": "x" * 255}), hashlib.sha256(f'"{"x" * 255}"'.encode()).hexdigest()),
    ],
)
def test_the_group_is_one_spelling_of_a_member(data: bytes, group: str) -> None:
    queue = lane_of(fifo=True, group_by="g")
    topic = lane_of("orders", topic=True, fifo=True, group_by="g")
    assert group_of(queue, data) == group_of(topic, data) == group


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b'{"h":1}', "fifo_group_missing", "FIFO queue 'mail' requires field 'g' in data, but it was not found"),
        (b"[]", "fifo_group_missing", "FIFO queue 'mail' requires field 'g' in data, but it was not found"),
        (b'{"g":null}', "fifo_group_missing", "FIFO queue 'mail': field 'g' must not be null"),
        (b'{"g":1e999}', "deserialization_error", "field 'g' cannot be decoded"),
    ],
)
def test_a_job_of_a_fifo_queue_names_its_group(data: bytes, code: str, text: str) -> None:
    with pytest.raises(CallError) as caught:
        group_of(lane_of(fifo=True, group_by="g"), data)
    assert text in caught.value.message and caught.value.code == code


def test_a_fifo_queue_without_a_group_takes_no_jobs() -> None:
    with pytest.raises(CallError) as caught:
        group_of(lane_of(fifo=True), b"{}")
    assert caught.value.code == "fifo_group_not_configured"


def test_messages_of_a_topic_that_name_no_group_share_one() -> None:
    for settings in ({"fifo": True}, {"fifo": True, "group_by": "g"}):
        lane = lane_of("orders", topic=True, **settings)
        assert {group_of(lane, data) for data in (b"{}", b'{"g":null}', b"[]")} == {""}


def test_a_lane_without_order_has_no_groups() -> None:
    assert group_of(lane_of(), b'{"g":1}') is None and group_of(lane_of(topic=True), b"[]") is None


# --- subscribers


@pytest.mark.parametrize(
    ("config", "topic", "condition"),
    [
        ({"topic": "t", "condition_function_id": "c"}, "t", "c"),
        ({"queue": "q"}, "q", None),
        ({"topic": "t", "queue": "q"}, "t", None),
        ({"topic": "", "queue": "q"}, "q", None),
        ({"topic": 1}, "", None),
        ({"topic": "t", "condition_function_id": ""}, "t", None),
        ({"topic": "t", "condition_function_id": 1}, "t", None),
        ({"topic": "t", "queue_config": []}, "t", None),
        ([], "", None),
    ],
)
def test_a_subscription_names_its_topic_and_its_condition(config: Any, topic: str, condition: str | None) -> None:
    assert read_subscriber(to_json(config)) == SubscriberConfig(topic, condition, PLAIN)


def test_a_subscription_that_is_no_json_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        read_subscriber(b"{")


def test_a_subscriber_has_a_hundred_thousand_jobs_unless_it_says_otherwise() -> None:
    assert SUBSCRIBER_JOBS == 100_000


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"maxJobs": 1}, {"max_jobs": 1}),
        ({"maxRetries": 0}, {"max_attempts": 1}),
        ({"maxRetries": 4}, {"max_attempts": 5}),
        ({"maxRetries": 3}, {"max_attempts": 4}),
        ({"concurrency": 1}, {"concurrency": 1}),
        ({"type": "fifo"}, {"fifo": True}),
        ({"type": "fifo", "messageGroupField": "g"}, {"fifo": True, "group_by": "g"}),
        ({"type": "fifo", "messageGroupField": ""}, {"fifo": True}),
        ({"type": "fifo", "messageGroupField": 1}, {"fifo": True}),
        ({"type": "standard", "messageGroupField": "g"}, {}),
        ({"backoffDelayMs": 0}, {"backoff_seconds": 0.0}),
        ({"backoffDelayMs": 1500.5}, {"backoff_seconds": 1.5005}),
        ({"backoffType": "fixed"}, {"backoff": "fixed"}),
        ({"backoffType": "linear"}, {}),
        ({"visibilityTimeout": 0.5}, {"visibility_timeout_seconds": 0.5}),
        ({"visibilityTimeout": 0}, {}),
        ({"delaySeconds": 0}, {"delay_seconds": 0.0}),
        ({"delaySeconds": 2}, {"delay_seconds": 2.0}),
        ({"maxLostDeliveries": 1}, {"max_lost_deliveries": 1}),
        ({"maxLostDeliveries": 2}, {"max_lost_deliveries": 2}),
        ({"maxJobs": 999_999_999}, {"max_jobs": 999_999_999}),
        ({"backoffDelayMs": 999_999_999}, {"backoff_seconds": 999_999.999}),
        ({"maxJobs": 0, "maxRetries": -1, "concurrency": 0, "backoffDelayMs": -1, "visibilityTimeout": -1,
          "delaySeconds": -1, "maxLostDeliveries": 0}, {}),
        ({"maxJobs": 10**9, "maxRetries": 10**9, "concurrency": 10**9, "backoffDelayMs": 1e9, "visibilityTimeout": 1e9,
          "delaySeconds": 1e9, "maxLostDeliveries": 10**9}, {}),
        ({"maxJobs": True, "maxRetries": True, "concurrency": True, "backoffDelayMs": True, "visibilityTimeout": True,
          "delaySeconds": True, "maxLostDeliveries": True}, {}),
        ({"maxJobs": 1.5, "maxRetries": 1.5, "concurrency": 1.5, "maxLostDeliveries": 1.5}, {}),
        ({"maxJobs": "1", "backoffDelayMs": "1", "visibilityTimeout": "1", "delaySeconds": None}, {}),
    ],
)  # fmt: skip
def test_settings_of_a_subscription_are_ours_and_wrong_ones_are_left_out(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    settings = read_subscriber(to_json({"queue_config": given})).settings
    assert settings == QueueSettings(**{"missing_function_seconds": None, "max_jobs": 100_000, **expected})
    assert type(settings.delay_seconds) is float
