"""Unique keys: taken while their jobs are unfinished, and for their time."""

from __future__ import annotations

import pytest

from iii_trio.triggers.queue.lane import Job
from iii_trio.triggers.queue.record import Options
from iii_trio.triggers.queue.states import JOB, JobState
from iii_trio.triggers.queue.unique import UniqueKeys
from tests.queue.ledgers import lane_of, record

LANE = lane_of()


def job(key: int, name: str, unique_ms: int | None = None, state: JobState = JobState.READY) -> Job:
    made = record(key)
    made.options = Options(unique_key=name, unique_ms=unique_ms)
    return Job(JOB, state, made, LANE, 2, 2)


@pytest.mark.parametrize("state", JobState)
def test_a_key_is_free_when_its_job_is_over_in_any_way(state: JobState) -> None:
    one = job(1, "k", state=state)
    keys = UniqueKeys({"job 1": one})
    keys.take(one, 0.0)
    over = {JobState.DEAD, JobState.DYING, JobState.DONE, JobState.REFUSED}
    assert keys.holder(LANE.text, "k", 0.0) == (None if state in over else "job 1")


def test_a_key_without_a_time_is_free_when_its_job_is_gone() -> None:
    keys = UniqueKeys({})
    keys.take(job(1, "k"), 0.0)
    assert keys.holder(LANE.text, "k", -1e9) is None and keys.holder("other", "k", 0.0) is None


def test_a_key_is_taken_for_its_time_since_its_job_came() -> None:
    keys = UniqueKeys({})
    keys.take(job(1, "k", 2_500), 100.0, age=1.0)
    assert keys.holder(LANE.text, "k", 101.4) == "job 1" and keys.holder(LANE.text, "k", 101.5) is None
    keys.take(job(2, "k", 2_500), 100.0)
    assert keys.holder(LANE.text, "k", 102.4) == "job 2" and keys.holder(LANE.text, "k", 102.5) is None


def test_keys_that_are_free_are_forgotten_once_there_are_a_thousand_and_again_when_they_have_doubled() -> None:
    jobs: dict[str, Job] = {}
    keys = UniqueKeys(jobs)
    for number in range(1000):
        keys.take(job(number, str(number)), 0.0)
    assert len(keys._taken) == 1000  # nobody sees it otherwise
    keys.take(job(1000, "1000"), 0.0)
    assert len(keys._taken) == 0
    for number in range(2004):
        jobs[f"job {number}"] = job(number, str(number))
        keys.take(jobs[f"job {number}"], 0.0)
    assert len(keys._taken) == 2004
    jobs.clear()
    # It was looked through at 1001 and at 2003, and then all of them held.
    for number in range(2004, 4006):
        keys.take(job(number, str(number)), 0.0)
    assert len(keys._taken) == 4006
    keys.take(job(4006, "4006"), 0.0)
    assert len(keys._taken) == 0
