"""The heap of times: the earliest first, only what holds, and no larger than it has to be."""

from __future__ import annotations

from iii_trio.triggers.queue.lane import Job
from iii_trio.triggers.queue.states import JOB, JobEvent, JobState
from iii_trio.triggers.queue.timers import Timers
from tests.queue.ledgers import lane_of, record


def job(key: int, state: JobState = JobState.DELAYED) -> Job:
    return Job(JOB, state, record(key), lane_of(), 2, 2)


def test_jobs_are_due_in_order_and_once() -> None:
    timers = Timers()
    assert timers.next_due() is None and list(timers.due(1e9)) == []
    jobs = [job(1), job(2, JobState.LEASED), job(3, JobState.WAITING_FOR_FUNCTION), job(4)]
    for one, due in zip(jobs, (30.0, 10.0, 20.0, 20.0), strict=True):
        timers.set(one, due)
        assert one.due == due
    assert timers.next_due() == 10.0 and list(timers.due(9.9)) == []
    assert list(timers.due(20.0)) == [jobs[1], jobs[2], jobs[3]], "of two at one time the earlier set"
    assert timers.next_due() == 30.0 and list(timers.due(30.0)) == [jobs[0]] and timers.next_due() is None


def test_a_time_that_is_set_again_or_does_not_hold_is_passed_over() -> None:
    timers = Timers()
    moved, ready = job(1), job(2)
    timers.set(moved, 10.0)
    timers.set(ready, 11.0)
    timers.set(moved, 20.0)
    ready.advance(JobEvent.DUE)
    assert timers.next_due() == 20.0 and list(timers.due(15.0)) == [] and list(timers.due(20.0)) == [moved]
    timers.set(moved, 30.0)
    timers.set(moved, 25.0)
    assert list(timers.due(25.0)) == [moved] and timers.next_due() is None, "the later time holds no more"


def test_times_that_do_not_hold_are_removed_once_there_are_a_thousand() -> None:
    timers = Timers()
    one = job(1)
    for now in range(1000):
        timers.set(one, float(now))
    assert len(timers._heap) == 1000  # nobody sees it otherwise
    timers.set(one, 1000.0)
    assert len(timers._heap) == 1 and timers.next_due() == 1000.0


def test_times_that_hold_are_looked_through_when_they_have_doubled() -> None:
    timers = Timers()
    jobs = [job(key) for key in range(1001)]
    for one in reversed(jobs):
        timers.set(one, float(one.record.key))
    for now in range(1001):
        timers.set(jobs[0], 5000.0 + now)
    assert len(timers._heap) == 2002, "all 1001 held when it was looked through last, so twice that is allowed"
    timers.set(jobs[0], 9000.0)
    assert len(timers._heap) == 1001 and timers.next_due() == 1.0
    assert [one.record.key for one in timers.due(9.0)] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
