"""What an attempt sends with a job, and what it makes of the error of its call."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec
import pytest
import trio.testing

from iii_trio import CallError
from iii_trio.tracing import ERROR, OK, Sampling, Span, Tracing
from iii_trio.triggers.queue.attempt import Attempt, AttemptOutcome, AttemptResult, _failure, metadata_of
from iii_trio.triggers.queue.attempt_span import begin_attempt_span, end_attempt_span
from iii_trio.triggers.queue.record import Progress
from iii_trio.triggers.queue.store import Payload
from iii_trio.wire import ErrorCode, InvokeFunction
from iii_trio.worker import open_worker
from tests.helpers.fake_engine import FakeEngine
from tests.queue.ledgers import in_lane, lane_of

# --- metadata


@pytest.mark.parametrize(
    ("given", "beside"),
    [
        (None, {}), (b"", {}), (b"null", {}), (b"[1]", {}), (b'"a"', {}),
        (b'{"a":1,"job":"theirs"}', {"a": 1}),
    ],
)  # fmt: skip
def test_Q10_a_call_has_the_senders_metadata_if_it_is_an_object_and_the_job(
    given: bytes | None, beside: dict[str, Any]
) -> None:
    job = in_lane(lane_of(max_attempts=7), 1)
    job.record.progress = Progress(attempts=3)
    about = {"id": "job 1", "attempt": 4, "max_attempts": 7, "queue": "mail"}
    assert json.loads(bytes(metadata_of(job, given))) == beside | {"job": about}


def test_metadata_that_cannot_be_decoded_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        metadata_of(in_lane(lane_of(), 1), b'{"a":1e999}')


# --- results


@pytest.mark.parametrize(
    ("origin", "code", "message", "outcome"),
    [
        ("link", "engine_lost", "m", AttemptOutcome.RETURNED),
        ("engine", ErrorCode.INVOCATION_STOPPED, "Invocation stopped: the worker left", AttemptOutcome.RETURNED),
        ("engine", ErrorCode.INVOCATION_STOPPED, "the worker left", AttemptOutcome.RETURNED),
        ("engine", ErrorCode.INVOCATION_STOPPED, "Invocation stopped: given up", AttemptOutcome.POSTPONED),
        ("engine", ErrorCode.INVOCATION_STOPPED, "Invocation stopped: it was lost", AttemptOutcome.LOST),
        ("engine", ErrorCode.FUNCTION_NOT_FOUND, "m", AttemptOutcome.MISSING),
        ("engine", ErrorCode.ENGINE_DRAINING, "m", AttemptOutcome.DRAINING),
        ("engine", ErrorCode.CHANNEL_SEND_FAILED, "m", AttemptOutcome.POSTPONED),
        ("engine", "other", "m", AttemptOutcome.FAILED),
        # A handler's error is a failure, whatever code it takes.
        ("handler", ErrorCode.INVOCATION_STOPPED, "Invocation stopped: the worker left", AttemptOutcome.FAILED),
        ("handler", ErrorCode.FUNCTION_NOT_FOUND, "m", AttemptOutcome.FAILED),
        ("handler", "mine", "m", AttemptOutcome.FAILED),
    ],
)  # fmt: skip
def test_the_side_and_the_code_of_an_error_say_what_becomes_of_the_job(
    origin: Literal["handler", "engine", "link"], code: str, message: str, outcome: AttemptOutcome
) -> None:
    result = _failure(CallError(code, message, origin=origin))
    assert result.outcome is outcome
    match outcome:
        case AttemptOutcome.FAILED | AttemptOutcome.MISSING:
            assert (result.code, result.message) == (code, message)
        case AttemptOutcome.LOST:
            assert result.message == f"its worker was lost: {message}"
        case _:
            assert (result.code, result.message) == ("", "")


def test_a_result_is_a_value() -> None:
    failed = AttemptResult(AttemptOutcome.FAILED)
    assert msgspec.structs.replace(failed, code="c") == AttemptResult(AttemptOutcome.FAILED, "c")
    with pytest.raises(AttributeError):
        failed.code = "c"  # type: ignore[misc]


async def test_an_attempt_is_stopped_when_it_is_and_has_overrun_nothing_at_first(autojump_clock: object) -> None:
    worker: Any = None  # it is asked for nothing before the attempt begins
    over: list[AttemptResult] = []
    tracing = Tracing(lambda: "0" * 32, lambda: 0.0, lambda: 0.0)
    attempt = Attempt(worker, in_lane(lane_of(), 1), lambda attempt, result: over.append(result), 0, tracing, 7.0)
    assert not attempt.stopped and not attempt.overran and attempt.began == 7.0
    attempt.stop("why")
    assert attempt.stopped and over == []


@pytest.mark.parametrize("ends_it", ["the job", "its condition", "the job behind its condition"])
async def test_a_link_that_ends_while_the_call_is_sent_returns_the_job_at_once(ends_it: str) -> None:
    """The call is settled then before there is a handle. The job was never over."""
    engine = FakeEngine()
    over: list[AttemptResult] = []
    async with open_worker(engine) as worker:
        lane, link = lane_of(), engine.link
        lane.condition = None if ends_it == "the job" else "wanted"
        tracing = Tracing(lambda: "0" * 32, lambda: 0.0, lambda: 0.0)
        attempt = Attempt(worker, in_lane(lane, 1), lambda attempt, result: over.append(result), 0, tracing, 0.0)
        send = link.send

        def ending(message: bytes) -> None:
            link.drop()

        if ends_it != "the job behind its condition":
            link.send = ending  # type: ignore[method-assign]
        attempt.begin(Payload(b"{}", None))
        if ends_it == "the job behind its condition":
            asked = await link.hear(InvokeFunction)
            link.send = ending  # type: ignore[method-assign]
            link.answer(asked, True)
            await trio.testing.wait_all_tasks_blocked()
        assert [result.outcome for result in over] == [AttemptOutcome.RETURNED]
        link.send = send  # type: ignore[method-assign]


# --- spans

PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


class Spans:
    """The spans that have finished."""

    def __init__(self, spans: list[Span]) -> None:
        self.add_span = spans.append

    def add_log(self, record: object) -> None: ...
    def add_telemetry(self, kind: str, message: bytes, fields: object) -> None: ...


def tracing_to(spans: list[Span]) -> Tracing:
    tracing = Tracing(lambda: "0123456789abcdef" * 2, lambda: 0.0, lambda: 0.0)
    tracing.attach(Spans(spans), Sampling())
    return tracing


def test_an_attempts_span_belongs_to_the_senders_trace_and_says_which_attempt_it_is() -> None:
    spans: list[Span] = []
    job = in_lane(lane_of(), 1)
    job.record.traceparent, job.record.progress = PARENT, Progress(attempts=3, lost=1)
    span = begin_attempt_span(tracing_to(spans), job)
    assert span is not None and span.name == "fn_queue mail"
    assert span.attributes == {
        "function_id": "f", "queue": "mail", "attempt": 4, "delivery_id": "job 1", "iii.job.id": "job 1",
        "iii.job.lost_workers": 1, "messaging.system": "iii-queue", "messaging.destination.name": "mail",
        "messaging.operation.type": "process", "iii.tag.kind": "queue.process", "iii.tag.display_name": "queue(mail) f",
    }  # fmt: skip
    topic = in_lane(lane_of("orders", topic=True), 1)
    topic.record.traceparent = PARENT
    of_topic = begin_attempt_span(tracing_to(spans), topic)
    assert of_topic is not None and of_topic.name == "queue orders"


def test_a_job_without_a_trace_has_no_span_nor_one_that_nobody_records() -> None:
    job = in_lane(lane_of(), 1)
    assert begin_attempt_span(tracing_to([]), job) is None
    job.record.traceparent = "odd"
    assert begin_attempt_span(tracing_to([]), job) is None, "a trace is chosen where it begins"
    job.record.traceparent = PARENT
    assert begin_attempt_span(Tracing(lambda: "a" * 32, lambda: 0.0, lambda: 0.0), job) is None


@pytest.mark.parametrize(
    ("outcome", "code", "error_type"),
    [
        ("succeeded", "", None), ("returned", "", None), ("postponed", "", None), ("draining", "", None),
        ("stopped", "", None), ("missing", "function_not_found", None), ("failed", "mine", "mine"), ("lost", "", "lost"),
    ],
)  # fmt: skip
def test_a_span_ends_with_the_outcome_and_is_an_error_only_where_the_job_failed(
    outcome: str, code: str, error_type: str | None
) -> None:
    spans: list[Span] = []
    tracing = tracing_to(spans)
    job = in_lane(lane_of(), 1)
    job.record.traceparent = PARENT
    span = begin_attempt_span(tracing, job)
    assert span is not None
    end_attempt_span(tracing, span, outcome, code)
    assert spans == [span] and span.attributes["iii.job.outcome"] == outcome
    assert span.attributes.get("error.type") == error_type and span.error == (error_type or "")
    assert (span.status == OK) is (outcome == "succeeded") and (span.status == ERROR) is (error_type is not None)
