"""Suspects run alone among the jobs that may share their worker, and nothing waits for longer than that (Q16)."""

from __future__ import annotations

import pytest

from iii_trio.triggers.queue.isolation import _MAX_FUNCTIONS, Isolation, is_suspect
from iii_trio.triggers.queue.lane import Job, Lane
from iii_trio.triggers.queue.record import Progress
from iii_trio.triggers.queue.states import JOB, JobState
from tests.queue.ledgers import lane_of, record


class World:
    """An isolation, and the jobs that run."""

    def __init__(self, max_lost: int = 3) -> None:
        self.running: dict[int, Job] = {}
        self.isolation = Isolation(self.running)
        self.lane = lane_of(max_lost_deliveries=max_lost)
        self._next = 0

    def job(self, function_id: str = "f", lost: int = 0, lane: Lane | None = None) -> Job:
        self._next += 1
        made = record(self._next, progress=Progress(lost=lost))
        made.function_id = function_id
        return Job(JOB, JobState.READY, made, lane or self.lane, 2, 2)

    def start(self, job: Job) -> bool:
        if not self.isolation.may_start(job):
            return False
        self.running[job.record.key] = job
        return True

    def end(self, job: Job) -> bool:
        del self.running[job.record.key]
        return self.isolation.ended(job)


@pytest.mark.parametrize(
    ("max_lost", "suspects"),
    [(1, [1]), (2, [1, 2]), (3, [2, 3]), (4, [2, 3, 4]), (9, [2, 3, 4, 5])],
)
def test_a_job_is_a_suspect_after_two_losses_or_one_loss_before_its_last(max_lost: int, suspects: list[int]) -> None:
    world = World(max_lost)
    assert [lost for lost in range(min(max_lost, 5) + 1) if is_suspect(world.job(lost=lost))] == suspects


def test_a_suspect_waits_for_the_jobs_of_its_function_and_then_runs_alone() -> None:
    world = World()
    one, two, suspect, later = world.job(), world.job(), world.job(lost=2), world.job()
    assert world.start(one) and world.start(two)
    assert not world.isolation.active
    assert not world.start(suspect) and world.isolation.active
    assert not world.start(later), "a suspect is next"
    assert not world.end(one), "another one runs still"
    assert not world.start(suspect)
    assert world.end(two)
    assert not world.start(later)
    assert world.start(suspect) and not world.start(later)
    assert world.end(suspect) and not world.isolation.active
    assert world.start(later)


def test_the_first_suspect_is_next_and_the_other_after_it() -> None:
    world = World()
    first, second = world.job(lost=2), world.job(lost=2)
    assert world.start(first) and not world.start(second)
    assert world.end(first)
    assert world.start(second) and world.isolation.active


def test_jobs_of_other_functions_go_on() -> None:
    world = World()
    suspect, other = world.job(lost=2), world.job("g")
    assert world.start(suspect) and world.start(other)
    assert not world.end(other), "nobody waited for it"
    third = world.job("g", lost=2)
    assert world.start(third), "each worker has its own suspect"


def test_functions_that_were_lost_together_share_a_worker() -> None:
    world = World()
    f, g, h = ("default", "f"), ("default", "g"), ("default", "h")
    world.isolation.lost_together([f, g])
    world.isolation.lost_together([g, h])
    suspect = world.job("h", lost=2)
    runs = world.job("f")
    assert world.start(runs)
    assert not world.start(suspect)
    assert not world.start(world.job("g")) and world.start(world.job("other"))
    assert world.end(runs) and world.start(suspect)
    assert not world.start(world.job("f"))


def test_a_suspect_stays_the_next_one_where_its_worker_is_found_to_be_that_of_others() -> None:
    world = World()
    suspect, other = world.job("g", lost=2), world.job("f")
    assert world.start(suspect) and world.start(other)
    world.isolation.lost_together([("default", "f"), ("default", "g")])
    assert not world.start(world.job("f"))
    assert not world.end(other), "the suspect runs"
    assert world.end(suspect)
    assert world.start(world.job("f"))


def test_of_two_suspects_whose_workers_are_found_to_be_one_the_second_waits() -> None:
    world = World()
    first, second = world.job("f", lost=2), world.job("g", lost=2)
    assert world.start(first) and world.start(second)
    world.isolation.lost_together([("default", "f"), ("default", "g")])
    assert not world.end(second), "the first one runs, and has been lined up first"
    assert world.end(first) and not world.isolation.active


def test_a_withdrawn_lane_holds_nobody_up_unless_its_suspect_runs() -> None:
    world = World()
    other_lane = lane_of("other")
    runs = world.job()
    assert world.start(runs)
    waiting = world.job(lost=2, lane=other_lane)
    assert not world.start(waiting)
    assert not world.isolation.withdraw(world.lane) and world.isolation.active
    assert world.isolation.withdraw(other_lane) and not world.isolation.active
    assert world.start(world.job())
    alone = world.job("g", lost=2, lane=other_lane)
    assert world.start(alone)
    assert not world.isolation.withdraw(other_lane) and world.isolation.active


def test_nothing_that_ends_matters_while_there_is_no_suspect() -> None:
    world = World()
    job = world.job()
    assert world.start(job) and not world.end(job)


def test_what_was_lost_together_is_forgotten_once_it_is_too_much() -> None:
    world = World()
    one = ("default", "f")
    assert _MAX_FUNCTIONS == 10_000
    for number in range(_MAX_FUNCTIONS - 2):
        world.isolation._worker_of["default", f"x{number}"] = ("default", "x")
    world.isolation.lost_together([one, ("default", "e")])
    assert len(world.isolation._worker_of) == _MAX_FUNCTIONS  # nobody sees it otherwise
    world.isolation.lost_together([one, ("default", "c")])
    assert len(world.isolation._worker_of) == _MAX_FUNCTIONS + 1
    world.isolation.lost_together([one, ("default", "d")])
    assert world.isolation._worker_of == {one: ("default", "d"), ("default", "d"): ("default", "d")}
