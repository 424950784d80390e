"""One line of jobs by itself: its order, its groups, its counts, and the settings that it keeps."""

from __future__ import annotations

import json

import pytest

from iii_trio import QueueSettings
from iii_trio.errors import IllegalTransition
from iii_trio.triggers.queue.lane import WAITING, Depths, Job, Lane, depths
from iii_trio.triggers.queue.states import JobEvent, JobState, LaneState
from iii_trio.triggers.queue.store import SaveLane
from tests.queue.ledgers import at, in_lane, lane_of, record


def popped(lane: Lane) -> int | None:
    job = lane.pop()
    return None if job is None else job.record.key


def run(lane: Lane, key: int) -> Job:
    """Take the next job, which is this one, and have it run."""
    job = lane.pop()
    assert job is not None and job.record.key == key
    lane.advance(job, JobEvent.LEASED)
    return job


def end(lane: Lane, job: Job) -> None:
    lane.advance(job, JobEvent.SUCCEEDED)
    lane.leave(job)
    lane.advance(job, JobEvent.ERASED)


# --- whose turn it is


def test_the_oldest_job_is_next() -> None:
    lane = lane_of()
    for key in (3, 1, 2):
        in_lane(lane, key)
    assert [popped(lane) for _ in range(3)] == [1, 2, 3] and not lane.may_start


def test_a_job_that_is_gone_leaves_its_turn() -> None:
    lane = lane_of()
    gone, kept = in_lane(lane, 1), in_lane(lane, 2)
    lane.leave(gone)
    lane.leave(gone)  # it is harmless to say so twice
    assert list(lane.jobs.values()) == [kept]
    assert popped(lane) is None and popped(lane) == 2


def test_a_job_that_is_delayed_has_no_turn() -> None:
    lane = lane_of()
    in_lane(lane, 1, state=JobState.DELAYED)
    assert not lane.may_start


def test_jobs_of_higher_priority_go_first_and_every_fourth_start_is_of_the_oldest() -> None:
    lane = lane_of()
    for key, priority in [(1, 1), (2, 0), (3, 1), (4, 3), (5, 3), (6, 2), (7, 3), (8, 3), (9, 3)]:
        in_lane(lane, key, priority=priority)
    assert [popped(lane) for _ in range(9)] == [4, 5, 7, 1, 8, 9, 6, 2, 3]
    assert not lane.may_start


def test_a_job_of_low_priority_waits_for_those_of_the_usual_one() -> None:
    lane = lane_of()
    for key, priority in [(1, 0), (2, 1), (3, 1)]:
        in_lane(lane, key, priority=priority)
    assert [popped(lane) for _ in range(3)] == [2, 3, 1]


def test_a_job_of_another_priority_than_the_usual_may_start_alone() -> None:
    lane = lane_of()
    in_lane(lane, 1, priority=0)
    assert lane.may_start and popped(lane) == 1 and not lane.may_start
    in_lane(lane, 2, priority=3)
    assert popped(lane) == 2


def test_a_fifo_lane_knows_no_priorities() -> None:
    lane = lane_of(fifo=True)
    in_lane(lane, 1, group="a", priority=0)
    in_lane(lane, 2, group="b", priority=3)
    assert popped(lane) == 1


def test_the_oldest_ready_job_is_found_past_those_that_are_not() -> None:
    lane = lane_of()
    assert lane.oldest_ready() is None
    gone, purged, ready = in_lane(lane, 1), in_lane(lane, 2), in_lane(lane, 3)
    lane.leave(gone)
    lane.advance(purged, JobEvent.PURGED)
    assert lane.oldest_ready() is ready and lane.oldest_ready() is ready
    assert popped(lane) == 3
    assert lane.oldest_ready() is None


# --- whether one may start


def test_as_many_run_as_the_settings_say() -> None:
    lane = lane_of(concurrency=2)
    in_lane(lane, 1)
    lane.running = 1
    assert lane.may_start
    for running in (2, 3):  # the settings may have been changed meanwhile
        lane.running = running
        assert not lane.may_start


def test_a_subscriber_gets_nothing_while_it_is_away_and_a_queue_needs_none() -> None:
    topic, queue = lane_of("orders", topic=True), lane_of()
    in_lane(topic, 1)
    assert queue.open and not topic.open and not topic.may_start
    topic.listeners = 1
    assert topic.open and topic.may_start


def test_a_lane_looks_past_a_hundred_jobs_that_are_held() -> None:
    lane = lane_of()
    in_lane(lane, 1000)
    lane.held = [in_lane(lane, key) for key in range(99)]
    assert lane.may_start
    for key in (99, 100):
        lane.held.append(in_lane(lane, key))
        assert not lane.may_start


def test_held_jobs_line_up_again_unless_they_are_gone() -> None:
    lane = lane_of()
    first, gone = in_lane(lane, 1), in_lane(lane, 2)
    assert (lane.pop(), lane.pop()) == (first, gone)
    lane.held = [first, gone]
    lane.leave(gone)
    lane.release_held()
    assert lane.held == [] and popped(lane) == 1 and not lane.may_start


def test_a_pause_holds_all_and_is_described_once() -> None:
    lane = lane_of()
    in_lane(lane, 1)
    plain = lane.description
    assert "paused" not in json.loads(plain)
    lane.pause(False)
    assert lane.state.current is LaneState.OPEN and lane.description is plain
    lane.pause(True)
    lane.pause(True)
    assert lane.paused and lane.state.current is LaneState.PAUSED and not lane.may_start
    assert json.loads(lane.description)["paused"] is True
    lane.pause(False)
    assert not lane.paused and lane.may_start and lane.description == plain


# --- groups


def test_of_a_group_one_runs_and_its_next_follows_when_it_is_over() -> None:
    lane = lane_of(fifo=True)
    for key, group in [(1, "a"), (2, "a"), (3, "b"), (4, "a")]:
        in_lane(lane, key, group=group)
    first, other = run(lane, 1), run(lane, 3)
    assert not lane.may_start
    end(lane, other)
    assert not lane.may_start, "there is no other one of that group"
    end(lane, first)
    end(lane, run(lane, 2))
    end(lane, run(lane, 4))
    assert lane.jobs == {} and not lane.may_start


def test_a_job_in_the_middle_of_its_group_leaves_without_a_start() -> None:
    lane = lane_of(fifo=True)
    first, middle, last = (in_lane(lane, key, group="a") for key in (1, 2, 3))
    lane.leave(middle)
    assert popped(lane) == 1 and not lane.may_start
    lane.leave(first)
    assert lane.pop() is last
    lane.leave(last)
    in_lane(lane, 4, group="a")
    assert popped(lane) == 4


def test_jobs_without_a_group_share_one_in_a_fifo_lane() -> None:
    lane = lane_of(fifo=True)
    in_lane(lane, 1)
    in_lane(lane, 2, group="")
    assert popped(lane) == 1 and not lane.may_start


# --- other settings


def test_a_lane_that_becomes_fifo_keeps_the_order_of_each_group() -> None:
    lane = lane_of()
    for key, group in [(1, "a"), (2, "b"), (3, "a"), (4, "b")]:
        in_lane(lane, key, group=group, priority=key % 3)
    lane.held = [lane.jobs[1]]
    lane.change(QueueSettings(fifo=True))
    assert lane.held == []
    assert (popped(lane), popped(lane)) == (1, 2) and not lane.may_start
    assert [job.record.key for job in lane.after(0)] == [1, 2, 3, 4]


def test_a_lane_that_is_fifo_no_more_starts_what_waited_for_its_group_and_knows_priorities() -> None:
    lane = lane_of(fifo=True)
    in_lane(lane, 1, group="a")
    in_lane(lane, 2, group="a", priority=3)
    lane.change(QueueSettings())
    assert (popped(lane), popped(lane)) == (2, 1)


def test_other_settings_that_change_no_order_leave_the_line_alone() -> None:
    lane = lane_of()
    held = in_lane(lane, 1)
    assert lane.pop() is held
    lane.held = [held]
    lane.change(QueueSettings(concurrency=1))
    assert lane.settings.concurrency == 1 and lane.held == [held] and not lane.may_start


def test_jobs_of_a_group_that_run_together_all_end_before_its_next_one_starts() -> None:
    lane = lane_of()
    for key, group in [(1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "b"), (6, "c"), (7, "0")]:
        in_lane(lane, key, group=group)
    first, second, other = run(lane, 1), run(lane, 2), run(lane, 3)
    lane.change(QueueSettings(fifo=True))
    assert popped(lane) == 6 and popped(lane) == 7 and not lane.may_start, "only these groups had none that ran"
    end(lane, first)
    assert not lane.may_start, "another one of its group runs"
    end(lane, other)
    assert popped(lane) == 5
    lane.advance(second, JobEvent.SUCCEEDED)
    assert not lane.may_start, "its end is not on disk yet"
    lane.leave(second)
    lane.advance(second, JobEvent.ERASED)
    assert popped(lane) == 4


def test_what_happens_to_one_group_lines_up_no_other_a_second_time() -> None:
    lane = lane_of()
    for key, group in [(1, "a"), (2, "a"), (3, "b"), (4, "b")]:
        in_lane(lane, key, group=group)
    run(lane, 1), run(lane, 2)
    lane.change(QueueSettings(fifo=True))
    lane.advance(lane.jobs[4], JobEvent.PURGED)
    assert popped(lane) == 3 and not lane.may_start


def test_a_job_that_ran_beside_its_group_and_is_returned_waits_for_the_others() -> None:
    lane = lane_of()
    in_lane(lane, 1, group="a")
    in_lane(lane, 2, group="a")
    first, second = run(lane, 1), run(lane, 2)
    lane.change(QueueSettings(fifo=True))
    lane.advance(second, JobEvent.RETURNED)
    lane.line_up(second)
    assert not lane.may_start, "the first one runs"
    lane.advance(first, JobEvent.RETURNED)
    lane.line_up(first)
    assert popped(lane) == 1 and not lane.may_start


def test_the_first_of_a_group_is_returned_and_waits_for_one_that_runs_beside_it() -> None:
    lane = lane_of()
    in_lane(lane, 1, group="a")
    in_lane(lane, 2, group="a")
    first, second = run(lane, 1), run(lane, 2)
    lane.change(QueueSettings(fifo=True))
    lane.advance(first, JobEvent.RETURNED)
    lane.line_up(first)
    assert not lane.may_start
    lane.advance(second, JobEvent.RETURNED)
    lane.line_up(second)
    assert popped(lane) == 1 and not lane.may_start


def test_what_is_being_finished_when_a_lane_becomes_fifo_goes_before_what_waits() -> None:
    lane = lane_of()
    for key in (1, 2, 3):
        in_lane(lane, key, group="a")
    waits, first, second = run(lane, 1), run(lane, 2), run(lane, 3)
    lane.advance(waits, JobEvent.RETURNED)
    lane.advance(first, JobEvent.SUCCEEDED)
    lane.advance(second, JobEvent.GAVE_UP)
    lane.change(QueueSettings(fifo=True))
    assert not lane.may_start
    lane.leave(first)
    lane.advance(first, JobEvent.ERASED)
    assert not lane.may_start
    lane.leave(second)
    lane.advance(second, JobEvent.DEAD_LETTERED)
    assert popped(lane) == 1
    assert [job.record.key for job in lane.after(0)] == [1]


# --- what the store has of it


def test_settings_are_restored_as_they_were_saved() -> None:
    lane = lane_of(concurrency=3, backoff="fixed")
    lane.condition = "wanted"
    lane.pause(True)
    change = lane.save()
    assert change == SaveLane('["queue","mail"]', lane.description) and lane.saved is lane.description
    again = lane_of()
    again.restore(change.settings)
    assert (again.settings, again.condition, again.paused) == (lane.settings, "wanted", True)
    assert again.saved is again.description, "nothing is to be written"


def test_a_description_is_made_anew_when_settings_or_condition_change() -> None:
    lane = lane_of()
    first = lane.description
    assert lane.description is first
    lane.condition = "wanted"
    second = lane.description
    lane.change(QueueSettings(concurrency=2))
    third = lane.description
    assert json.loads(second)["condition"] == "wanted"
    assert json.loads(third)["settings"]["concurrency"] == 2


def test_settings_of_a_later_version_are_left_out() -> None:
    lane = lane_of()
    lane.restore(b'{"settings":{"concurrency":4,"later":1},"condition":null}')
    assert lane.settings == QueueSettings(concurrency=4) and lane.condition is None
    assert lane.saved is not None and lane.saved is not lane.description, "it is to be written anew"


@pytest.mark.parametrize(
    "text",
    [b"[]", b"{", b'{"settings":{}}', b'{"settings":{},"condition":1}', b'{"settings":{"concurrency":0},"condition":null}',
     b'{"settings":{"concurrency":"x"},"condition":null}'],
)  # fmt: skip
def test_settings_that_are_none_are_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        lane_of().restore(text)


@pytest.mark.parametrize(
    ("text", "paused"),
    [(b'{"paused":true}', True), (b'{"paused":1}', False), (b"{}", False), (b"[]", False), (b"{", False)],
)
def test_a_pause_is_restored_from_what_says_so_plainly(text: bytes, paused: bool) -> None:
    lane = lane_of()
    lane.restore_pause(text)
    assert lane.paused is paused and lane.saved == text


# --- counts


def test_a_new_lane_has_counted_nothing() -> None:
    lane = lane_of()
    assert lane.unfinished == lane.redriving == lane.running == lane.sampled == lane.calls == 0
    assert lane.overruns == lane.dropped == lane.listeners == lane.waiting.total() == 0
    assert lane.known and not lane.paused and lane.away_since_ms is lane.config is lane.saved is None


def test_the_states_of_jobs_are_counted_until_they_are_over() -> None:
    lane = lane_of()
    job = in_lane(lane, 1)
    in_lane(lane, 2, state=JobState.DELAYED)
    in_lane(lane, 3, state=JobState.WAITING_FOR_FUNCTION)
    assert lane.waiting == dict.fromkeys(WAITING, 1)
    lane.advance(job, JobEvent.LEASED)
    assert (
        lane.waiting.total() == 2 and lane.state_counts[JobState.LEASED] == 1 and lane.state_counts[JobState.READY] == 0
    )
    lane.advance(job, JobEvent.SUCCEEDED)
    lane.advance(job, JobEvent.ERASED)
    assert lane.state_counts[JobState.FINISHING] == lane.state_counts[JobState.DONE] == 0


def test_an_event_that_is_out_of_place_is_an_error() -> None:
    lane = lane_of()
    job = in_lane(lane, 1)
    with pytest.raises(IllegalTransition):
        lane.advance(job, JobEvent.SUCCEEDED)


def test_the_depths_of_lanes_are_added() -> None:
    one, other = lane_of(), lane_of("other")
    in_lane(one, 1)
    in_lane(one, 2, state=JobState.DELAYED)
    in_lane(other, 3, state=JobState.DELAYED)
    one.running, other.running = 2, 3
    other.state_counts[JobState.DEAD] = 4
    assert depths(lane for lane in (one, other)) == Depths(depth=3, running=5, delayed=2, dead=4)


def test_dead_letters_are_listed_without_those_on_their_way() -> None:
    lane = lane_of()
    dead = [Job(lane_job.table, JobState.DEAD, record(key), lane, 2, 2) for key, lane_job in
            ((key, in_lane(lane, key)) for key in (5, 4, 6))]  # fmt: skip
    lane.dead = {job.record.key: job for job in dead}
    lane.state_counts[JobState.DEAD] = 3
    lane.advance(dead[1], JobEvent.REDRIVEN)
    assert list(lane.dead_letters()) == [dead[0], dead[2]]


def test_the_age_is_of_the_oldest_job() -> None:
    lane = lane_of()
    assert lane.oldest_seconds(at(5)) is None
    in_lane(lane, 1).record.created_at_ms = 2500
    in_lane(lane, 2).record.created_at_ms = 1000
    assert lane.oldest_seconds(at(5)) == 2.5
    assert lane.oldest_seconds(at(5, 2000)) == 0.0, "a clock that is set back makes nothing younger than new"


# --- pages


def test_a_page_begins_behind_a_position_and_skips_what_is_gone() -> None:
    lane = lane_of()
    jobs = {key: in_lane(lane, key) for key in range(1, 7)}
    lane.leave(jobs[3])
    assert [job.record.key for job in lane.after(0)] == [1, 2, 4, 5, 6]
    assert [job.record.key for job in lane.after(2)] == [4, 5, 6]
    assert [job.record.key for job in lane.after(3)] == [4, 5, 6]
    assert list(lane.after(6)) == []


def test_positions_of_jobs_that_are_gone_are_forgotten_once_there_are_many() -> None:
    lane = lane_of()
    first, second = in_lane(lane, 1), in_lane(lane, 2)
    for key in range(3, 71):
        lane.leave(in_lane(lane, key))
    assert len(lane._positions) == 70  # with 3 jobs, 2 * 3 and 64 more are allowed; nobody sees it otherwise
    lane.leave(in_lane(lane, 71))
    assert len(lane._positions) == 3
    for key in range(72, 300):
        lane.leave(in_lane(lane, key))
        assert len(lane._positions) <= 70
    assert list(lane.after(0)) == [first, second]


def test_many_jobs_allow_as_many_positions_of_others() -> None:
    lane = lane_of()
    for key in range(40):
        in_lane(lane, key)
    for key in range(40, 100):
        lane.leave(in_lane(lane, key))
    assert len(lane._positions) == 100  # up to 2 * 40 and 64 more are allowed
