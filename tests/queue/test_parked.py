"""Jobs that wait for a function: in order, in pieces, and without a trace once they have left."""

from __future__ import annotations

from iii_trio.triggers.queue.lane import Job, Lane
from iii_trio.triggers.queue.parked import ParkedJobs
from iii_trio.triggers.queue.states import JobEvent, JobState
from tests.queue.ledgers import in_lane, lane_of

F, G = ("default", "f"), ("default", "g")


def park(parked: ParkedJobs, lane: Lane, key: int, function_id: str = "f") -> Job:
    job = in_lane(lane, key, state=JobState.WAITING_FOR_FUNCTION)
    job.record.function_id = function_id
    parked.add(job)
    return job


def come_back(parked: ParkedJobs, at_most: int) -> list[int]:
    keys = []
    for job in parked.returned(at_most):
        job.lane.advance(job, JobEvent.FUNCTION_CAME)
        keys.append(job.record.key)
    return keys


def leave(parked: ParkedJobs, job: Job) -> bool:
    nothing_known = parked.leave(job)
    job.lane.advance(job, JobEvent.PURGED)
    return nothing_known


def test_jobs_come_back_when_their_function_comes_the_oldest_first() -> None:
    parked, lane = ParkedJobs(), lane_of()
    for key in (2, 1, 3):
        park(parked, lane, key)
    park(parked, lane, 4, "g")
    assert parked.is_missing(F) and parked.functions == [F, G] and not parked.any_came
    assert come_back(parked, 10) == []
    parked.came(F)
    assert not parked.is_missing(F) and parked.functions == [G] and parked.any_came
    assert come_back(parked, 10) == [1, 2, 3]
    assert not parked.any_came and come_back(parked, 10) == []
    parked.came(("default", "unknown"))
    assert not parked.any_came


def test_they_come_back_in_pieces_over_all_functions() -> None:
    parked, lane = ParkedJobs(), lane_of()
    for key in (1, 2):
        park(parked, lane, key)
    for key in (3, 4):
        park(parked, lane, key, "g")
    parked.came(F)
    parked.came(G)
    assert come_back(parked, 3) == [1, 2, 3] and parked.any_came
    assert come_back(parked, 0) == [] and parked.any_came
    assert come_back(parked, 1) == [4] and not parked.any_came


def test_a_job_that_has_left_does_not_come_back() -> None:
    parked, lane = ParkedJobs(), lane_of()
    first, second, third = (park(parked, lane, key) for key in (1, 2, 3))
    assert not leave(parked, second)
    parked.came(F)
    assert not leave(parked, first)
    assert come_back(parked, 1) == [3] and not parked.any_came
    assert third.current_state is JobState.READY


def test_of_a_function_without_waiting_jobs_nothing_is_known() -> None:
    parked, lane = ParkedJobs(), lane_of()
    first, second = park(parked, lane, 1), park(parked, lane, 2)
    assert not leave(parked, first)
    assert leave(parked, second) and not parked.is_missing(F) and parked.functions == []
    third = park(parked, lane, 3)
    parked.came(F)
    assert not leave(parked, third), "the function was not missing any more"
    assert not parked.any_came


def test_a_function_that_is_missing_again_keeps_those_that_have_not_come_back() -> None:
    parked, lane = ParkedJobs(), lane_of()
    for key in (1, 2):
        park(parked, lane, key)
    parked.came(F)
    assert come_back(parked, 1) == [1]
    park(parked, lane, 3)
    assert parked.is_missing(F) and not parked.any_came and come_back(parked, 9) == []
    parked.came(F)
    assert come_back(parked, 9) == [2, 3]


def test_the_missing_functions_of_a_lane_are_those_that_its_jobs_wait_for() -> None:
    parked, mail, other = ParkedJobs(), lane_of(), lane_of("other")
    job = park(parked, mail, 1)
    park(parked, other, 1)
    park(parked, other, 2, "g")
    assert parked.missing_of(mail) == [F] and parked.missing_of(other) == [F, G]
    leave(parked, job)
    assert parked.missing_of(mail) == []
    parked.came(G)
    assert parked.missing_of(other) == [F]


def test_jobs_that_left_are_forgotten_once_there_are_many() -> None:
    parked, lane = ParkedJobs(), lane_of()
    kept = park(parked, lane, 0)
    for key in range(1, 66):
        leave(parked, park(parked, lane, key))
    line = parked._missing[F]  # nobody sees it otherwise
    assert len(line.jobs) == 66
    leave(parked, park(parked, lane, 66))
    assert list(line.jobs) == [kept]
    for key in range(67, 200):
        leave(parked, park(parked, lane, key))
        assert len(line.jobs) <= 2 + 64 + 1
    parked.came(F)
    assert come_back(parked, 9) == [0]


def test_many_jobs_allow_as_many_that_left() -> None:
    parked, lane = ParkedJobs(), lane_of()
    kept = [park(parked, lane, key) for key in range(40)]
    for key in range(40, 144):
        leave(parked, park(parked, lane, key))
    assert len(parked._missing[F].jobs) == 144  # nobody sees it otherwise
    leave(parked, park(parked, lane, 144))
    assert list(parked._missing[F].jobs) == kept


def test_a_job_that_waits_for_the_second_time_comes_back_once() -> None:
    parked, lane = ParkedJobs(), lane_of()
    job = park(parked, lane, 1)
    for _ in range(100):
        parked.came(F)
        assert come_back(parked, 1) == [1]
        lane.advance(job, JobEvent.FUNCTION_MISSING)
        parked.add(job)
    parked.came(F)
    assert come_back(parked, 9) == [1]
