"""The counts of jobs and their sizes: each bound holds to the last job and the last byte, and is given back."""

from __future__ import annotations

import pytest

from iii_trio import QueueConfig, QueueSettings
from iii_trio.transport.memory_budget import MemoryBudget
from iii_trio.triggers.queue.lane import Job, Lane
from iii_trio.triggers.queue.room import Room, on_disk
from iii_trio.triggers.queue.states import JOB, JobState
from tests.queue.ledgers import lane_of, record


def room_of(**bounds: int) -> Room:
    return Room(QueueConfig(**bounds))  # type: ignore[arg-type]


def enter(room: Room, lane: Lane, size: int, key: int = 1) -> Job:
    job = Job(JOB, JobState.READY, record(key, lane=lane.text, data=b"x" * size), lane, size, size)
    room.enter(job)
    return job


@pytest.mark.parametrize(
    ("size", "taken"),
    [(0, 256), (1, 257), (3839, 4095), (3840, 4096), (3841, 8192), (7936, 8192), (7937, 12_288), (8192, 12_288)],
)
def test_a_job_takes_a_row_on_disk_and_whole_pages_where_it_is_large(size: int, taken: int) -> None:
    assert on_disk(size) == taken


def test_what_a_job_takes_is_counted_and_given_back() -> None:
    room, lane = room_of(), lane_of()
    assert (room.memory_bytes, room.disk_bytes, room.unfinished, lane.unfinished) == (0, 0, 0, 0)
    one, two = enter(room, lane, 10), enter(room, lane, 5000, 2)
    assert room.memory_bytes == 10 + 128 + 5000 + 128 and room.kept_bytes == 5010
    assert room.disk_bytes == on_disk(10) + on_disk(5000)
    assert room.unfinished == lane.unfinished == 2
    room.release_payload(one)
    assert one.record.data is None and room.memory_bytes == 5000 + 128
    room.release_payload(one)
    assert room.memory_bytes == 5000 + 128, "once only"
    room.leave(one)
    assert room.disk_bytes == on_disk(5000)
    room.count_unfinished(lane, -1)
    assert room.unfinished == lane.unfinished == 1
    room.release_payload(two)
    room.leave(two)
    assert (room.memory_bytes, room.disk_bytes) == (0, 0)


def test_a_payload_is_released_where_memory_is_short_only() -> None:
    room, lane = room_of(memory_bytes=20), lane_of()
    one, two = enter(room, lane, 12), enter(room, lane, 8, 2)
    room.release_payload(one, unless_room=True)
    assert one.record.data is not None, "20 bytes are within the bound"
    three = enter(room, lane, 1, 3)
    room.release_payload(two, unless_room=True)
    assert two.record.data is None and three.record.data is not None
    one.record.metadata = b"1"
    room.release_payload(one)
    assert one.record.data is None and one.record.metadata is None


def test_payloads_in_memory_are_counted_in_the_engines_budget() -> None:
    budget = MemoryBudget(100_000)
    room, lane = room_of(), lane_of()
    first = enter(room, lane, 10_000)
    room.count_in(budget.open_share("queue"), is_stored_in_memory=False)
    assert budget.used_bytes == 10_128
    second = enter(room, lane, 5_000, 2)
    assert budget.used_bytes == 10_128 + 5_128
    room.release_payload(first)
    assert budget.used_bytes == 5_128
    room.leave(first)
    room.release_payload(second)
    assert budget.used_bytes == 0


def test_small_changes_are_told_to_the_engines_budget_together() -> None:
    budget = MemoryBudget(100_000)
    room, lane = room_of(), lane_of()
    room.count_in(budget.open_share("queue"), is_stored_in_memory=False)
    jobs = [enter(room, lane, 896, number) for number in range(1, 4)]
    assert room.memory_bytes == 3 * 1024 and budget.used_bytes == 0
    jobs.append(enter(room, lane, 896, 4))
    assert budget.used_bytes == 4096
    for job in jobs[:3]:
        room.leave(job)
    assert room.memory_bytes == 1024 and budget.used_bytes == 4096
    room.leave(jobs[3])
    assert budget.used_bytes == 0, "nothing is left of an empty queue"


def test_a_job_that_leaves_takes_its_payload_along() -> None:
    room, lane = room_of(), lane_of()
    job = enter(room, lane, 100)
    room.leave(job)
    assert job.record.data is None and room.memory_bytes == room.disk_bytes == 0


def test_with_a_store_in_memory_a_payload_counts_until_its_job_is_gone() -> None:
    budget = MemoryBudget(100_000)
    room, lane = room_of(), lane_of()
    room.count_in(budget.open_share("queue"), is_stored_in_memory=True)
    job, other = enter(room, lane, 20_000), enter(room, lane, 1, 2)
    assert room.memory_bytes == 20_128 + 129 and budget.used_bytes == 20_128, "the difference is small"
    room.release_payload(job)
    assert room.memory_bytes == 20_128 + 129 and budget.used_bytes == 20_128, "the store has it still"
    room.leave(job)
    assert room.memory_bytes == budget.used_bytes == 129
    room.leave(other)
    assert room.memory_bytes == budget.used_bytes == 0


def test_jobs_on_their_way_back_and_jobs_that_are_not_loaded_yet_take_room() -> None:
    room, lane = room_of(jobs=10), lane_of()
    assert room.jobs == 10
    room.count_unfinished(lane, 3)
    room.count_redriving(lane, 2)
    room.unloaded = 4
    assert room.jobs == 1 and (room.redriving, lane.redriving) == (2, 2)
    room.unloaded = 6
    assert room.jobs == 0, "never less"
    room.unloaded = 0
    room.count_redriving(lane, -2)
    assert room.jobs == 7 and (room.redriving, lane.redriving) == (0, 0)


def test_a_lane_has_the_room_of_all_lanes_and_at_most_its_own() -> None:
    room = room_of(jobs=10)
    free, bound = lane_of("free"), lane_of("bound", max_jobs=8)
    assert (room.in_lane(free), room.in_lane(bound)) == (10, 8)
    room.count_unfinished(bound, 2)
    room.count_redriving(bound, 3)
    assert (room.in_lane(free), room.in_lane(bound)) == (5, 3)
    room.count_unfinished(free, 5)
    assert (room.in_lane(free), room.in_lane(bound)) == (0, 0)
    room.count_unfinished(free, -5)
    room.count_unfinished(bound, 4)
    assert room.in_lane(bound) == 0, "more than max_jobs, because it was lowered, is not a negative room"


def test_jobs_are_refused_beyond_the_number_of_all() -> None:
    room, lane, other = room_of(jobs=3), lane_of(), lane_of("other")
    room.count_unfinished(lane, 1)
    assert room.problem([lane, other], 1) is None
    room.count_unfinished(lane, 1)
    assert room.problem([lane], 1) is None
    assert room.problem([lane, other], 1) == "there are 2 jobs that are not done, and at most 3 may be"


def test_jobs_are_refused_beyond_the_number_of_a_lane() -> None:
    room, other, lane = room_of(), lane_of("other"), lane_of(max_jobs=2)
    assert room.problem([other, lane], 1) is None
    room.count_unfinished(lane, 1)
    assert room.problem([other, lane], 1) is None
    room.count_redriving(lane, 1)
    sentence = "2 jobs of mail are not done, and at most 2 may be (max_jobs)"
    assert room.problem([other, lane], 1) == sentence
    assert room.problem([other], 1) is None


def test_a_refusal_says_how_many_jobs_there_are_with_those_on_their_way_back() -> None:
    room, lane = room_of(), lane_of(max_jobs=7)
    room.count_unfinished(lane, 3)
    room.count_redriving(lane, 5)
    assert room.problem([lane], 1) == "8 jobs of mail are not done, and at most 7 may be (max_jobs)"


def test_a_refusal_names_the_subscriber_and_how_to_be_rid_of_one_that_is_away() -> None:
    room, lane = room_of(), lane_of("orders", topic=True, max_jobs=1)
    room.count_unfinished(lane, 1)
    sentence = "1 jobs of f, a subscriber of orders are not done, and at most 1 may be (max_jobs)"
    assert room.problem([lane], 1) == sentence + "; if it does not come back, unsubscribe it or purge its jobs"
    lane.listeners = 1
    assert room.problem([lane], 1) == sentence


def test_jobs_are_refused_beyond_the_bytes_on_disk() -> None:
    lane, other = lane_of(), lane_of("other")
    room = room_of(disk_bytes=3 * 300)
    enter(room, lane, 44)
    assert room.disk_bytes == 300
    assert room.problem([lane, other], 44) is None and room.problem([lane], 44) is None
    sentence = "the jobs take 300 bytes on disk, and may take at most 900 (disk_bytes)"
    assert room.problem([lane, other], 45) == sentence
    assert room.problem([lane], 344) is None and room.problem([lane], 345) == sentence


def test_jobs_are_refused_beyond_the_bytes_in_memory() -> None:
    room, lane, other = room_of(), lane_of(), lane_of("other")
    # 155 bytes are taken, and two jobs of 27 bytes take 310.
    room.count_in(MemoryBudget(2 * (155 + 310)).open_share("queue"), is_stored_in_memory=False)
    enter(room, lane, 27)
    assert room.problem([lane, other], 27) is None
    sentence = "the payloads of jobs take 155 bytes of memory, and may take at most 465 (half of limits.memory_bytes)"
    assert room.problem([lane, other], 28) == sentence
    assert room.problem([lane], 182) is None and room.problem([lane], 183) == sentence


def test_a_new_configuration_holds_at_once() -> None:
    room, lane = room_of(jobs=1), lane_of()
    room.count_unfinished(lane, 1)
    assert room.problem([lane], 1) is not None
    room.config = QueueConfig({"mail": QueueSettings()}, jobs=2)
    assert room.problem([lane], 1) is None
