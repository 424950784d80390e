"""Pages of jobs: in the order of their positions, filtered, and cut at a number."""

from __future__ import annotations

import pytest

from iii_trio.triggers.queue import job_rows
from iii_trio.triggers.queue.job_rows import MAX_ROWS, JobFilter, page, row
from iii_trio.triggers.queue.lane import Job, Lane
from iii_trio.triggers.queue.record import Progress
from iii_trio.triggers.queue.states import JOB, JobState
from tests.queue.ledgers import at, in_lane, lane_of, record

ALL = JobFilter()


def dead(lane: Lane, key: int, position: int | None = None) -> Job:
    job = Job(JOB, JobState.DEAD, record(key, position=position), lane, 2, 2)
    lane.dead[key] = job
    return job


def keys(
    lanes: list[Lane], wanted: JobFilter = ALL, after: int = 0, limit: int = 100, now: float = 0.0
) -> tuple[list[int], int | None]:
    rows, more = page(lanes, wanted, after, limit, at(now))
    return [int(one["id"].removeprefix("job ")) for one in rows], more


def test_a_page_has_the_jobs_of_all_lanes_and_their_dead_letters_the_oldest_first() -> None:
    mail, other = lane_of(), lane_of("other")
    for lane, key in ((mail, 1), (other, 2), (mail, 5), (other, 6)):
        in_lane(lane, key)
    dead(mail, 4)
    dead(other, 3)
    assert keys([mail, other]) == ([1, 2, 3, 4, 5, 6], None)
    assert keys([mail]) == ([1, 4, 5], None)
    assert keys([mail, other], after=3) == ([4, 5, 6], None)


def test_a_page_is_continued_behind_its_last_job() -> None:
    lane = lane_of()
    for key in range(1, 6):
        in_lane(lane, key)
    assert keys([lane], limit=2) == ([1, 2], 2)
    assert keys([lane], limit=2, after=2) == ([3, 4], 4)
    assert keys([lane], limit=2, after=4) == ([5], None)
    assert keys([lane], limit=5) == ([1, 2, 3, 4, 5], None)
    assert keys([lane], limit=0) == keys([lane], limit=1) == ([1], 1), "one row at least"
    assert keys([lane], after=9) == ([], None)


def test_a_redriven_job_stands_at_its_place_in_line() -> None:
    lane = lane_of()
    in_lane(lane, 2)
    dead(lane, 1, position=3)
    assert keys([lane]) == ([2, 1], None)
    assert keys([lane], after=2) == ([1], None) and keys([lane], after=3) == ([], None)
    dead(lane, 5)
    assert keys([lane], after=3) == ([5], None), "a dead letter before that place is not on the page"


def test_a_page_has_500_rows_at_most() -> None:
    lane = lane_of()
    for key in range(1, MAX_ROWS + 2):
        in_lane(lane, key)
    found, more = keys([lane], limit=10_000)
    assert MAX_ROWS == 500 and len(found) == 500 and more == 500
    assert keys([lane], limit=10_000, after=500) == ([501], None)


def test_a_page_looks_at_some_thousand_jobs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert job_rows._MAX_LOOKED_AT == 5_000
    monkeypatch.setattr(job_rows, "_MAX_LOOKED_AT", 3)
    lane = lane_of()
    for key in range(1, 5):
        in_lane(lane, key, state=JobState.DELAYED if key < 4 else JobState.READY)
    waiting = JobFilter(state="waiting")
    assert keys([lane], waiting) == ([], 3)
    assert keys([lane], waiting, after=3) == ([4], None)
    assert keys([lane], waiting, after=1) == ([4], None)


@pytest.mark.parametrize(
    ("state", "expected"),
    [("waiting", [1, 4]), ("running", [2]), ("delayed", [3]), ("waiting_for_function", [4]), ("dead", [9]),
     ("ending", [5, 6, 7, 8, 10, 11]), ("other", []), (None, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])],
)  # fmt: skip
def test_jobs_are_filtered_by_their_state(state: str | None, expected: list[int]) -> None:
    lane = lane_of()
    for key, current in enumerate(
        [JobState.READY, JobState.LEASED, JobState.DELAYED, JobState.WAITING_FOR_FUNCTION, JobState.FINISHING,
         JobState.DYING, JobState.PURGING], 1
    ):  # fmt: skip
        in_lane(lane, key, state=current)
    for key, current in ((8, JobState.REDRIVING), (9, JobState.DEAD), (10, JobState.DISCARDING)):
        lane.dead[key] = Job(JOB, current, record(key), lane, 2, 2)
    in_lane(lane, 11, state=JobState.FINISHING)
    assert keys([lane], JobFilter(state=state))[0] == expected


def test_jobs_are_filtered_by_their_function_and_their_age() -> None:
    lane = lane_of()
    for key in range(1, 4):
        job = in_lane(lane, key)
        job.record.created_at_ms = key * 1000
    lane.jobs[2].record.function_id, lane.jobs[3].record.namespace = "g", "n"
    assert keys([lane], JobFilter(function_id="f")) == ([1, 3], None)
    assert keys([lane], JobFilter(function_id="g")) == ([2], None)
    assert keys([lane], JobFilter(namespace="default")) == ([1, 2], None)
    assert keys([lane], JobFilter(function_id="f", namespace="n")) == ([3], None)
    # They are 9, 8 and 7 seconds old.
    assert keys([lane], JobFilter(older_than_seconds=8), now=10.0) == ([1], None)
    assert keys([lane], JobFilter(older_than_seconds=8), now=10.5) == ([1, 2], None)
    assert keys([lane], JobFilter(newer_than_seconds=8), now=10.0) == ([3], None)
    assert keys([lane], JobFilter(older_than_seconds=7, newer_than_seconds=9), now=10.0) == ([2], None)


def test_a_row_describes_a_job() -> None:
    lane = lane_of("orders", topic=True)
    job = in_lane(lane, 1, group="g")
    job.size, job.due = 77, 99.0
    job.record.created_at_ms, job.record.traceparent = 2500, "00-abc-def-01"
    job.record.progress = Progress(attempts=2, lost=1, code="c", message="m")
    assert row(job, at(10.0)) == {
        "id": "job 1", "queue": "orders", "kind": "topic", "state": "waiting", "function_id": "f", "namespace": "default",
        "age_seconds": 7.5, "due_seconds": None, "failed": 2, "lost": 1, "code": "c", "message": "m", "size_bytes": 77,
        "group": "g", "trace_id": "abc",
    }  # fmt: skip


@pytest.mark.parametrize(("traceparent", "trace_id"), [(None, None), ("", None), ("x", None), ("00-abc", "abc")])
def test_a_row_has_the_id_of_its_trace_if_there_is_one(traceparent: str | None, trace_id: str | None) -> None:
    job = in_lane(lane_of(), 1)
    job.record.traceparent = traceparent
    assert row(job, at(0))["trace_id"] == trace_id


def test_a_row_says_when_a_delayed_job_is_due_and_is_never_negative() -> None:
    job = in_lane(lane_of(), 1, state=JobState.DELAYED)
    job.due = 12.5
    assert row(job, at(10.0))["due_seconds"] == 2.5 and row(job, at(13.0))["due_seconds"] == 0.0
    job.record.created_at_ms = 9000
    assert row(job, at(10.0, 8000))["age_seconds"] == 0.0
    assert row(Job(JOB, JobState.STORING, record(2), lane_of(), 2, 2), at(0))["state"] == "storing"
