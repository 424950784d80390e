"""The ledger's decisions one by one: arrivals, turns, failures, losses, and dead letters."""

from __future__ import annotations

import math

import pytest

from iii_trio import QueueConfig, QueueSettings
from iii_trio.triggers.queue import ledger as ledger_module
from iii_trio.triggers.queue.lane_key import LaneKey
from iii_trio.triggers.queue.ledger import Ledger
from iii_trio.triggers.queue.protocol import JobOptions
from iii_trio.triggers.queue.record import NEW, PLAIN, Options, Progress
from iii_trio.triggers.queue.states import JobState
from iii_trio.triggers.queue.store import Remove, Update
from tests.queue.ledgers import CALLED, admitted, at, dies, is_done, ledger_of, queue_of, started, stored

MANY = QueueSettings(concurrency=10**6)


# --- arrivals


def test_a_new_job_has_the_next_key_and_all_that_its_sender_gave() -> None:
    ledger = ledger_of(mail=QueueSettings())
    lane = queue_of(ledger)
    first = admitted(ledger, "a")
    second = ledger.admit(
        lane, "b", ("n", "g"), b"[1]", at(1, 5000), group="g", traceparent="t", baggage="bag", metadata=b"{}"
    )
    assert (first.record.key, first.record.position, second.record.key, second.record.position) == (1, 1, 2, 2)
    assert (second.record.namespace, second.record.function_id, second.record.lane) == ("n", "g", lane.text)
    assert (second.record.data, second.record.metadata, second.record.group) == (b"[1]", b"{}", "g")
    assert (second.record.traceparent, second.record.baggage, second.record.created_at_ms) == ("t", "bag", 5000)
    assert second.record.progress is NEW and second.record.options is PLAIN
    assert (first.size, first.held_bytes, second.size, second.held_bytes) == (2, 2, 3, 5)
    assert second.due == 1 and second.current_state is JobState.STORING
    assert ledger.find("a") is first and ledger.find("b") is second and ledger.find("c") is None
    assert lane.unfinished == ledger.room.unfinished == 2 and started(ledger) == []


def test_options_are_kept_with_a_job_in_milliseconds() -> None:
    ledger = ledger_of(mail=QueueSettings())
    job = admitted(
        ledger, "a", options=JobOptions(priority=2, unique_key="k", unique_seconds=1.5, keep_result_seconds=0.25)
    )
    assert job.record.options == Options(2, "k", 1500, 250)
    other = admitted(ledger, "b", options=JobOptions(priority=2))
    assert other.record.options == Options(2, None, None, None)
    lane = queue_of(ledger)
    assert ledger.unique.holder(lane.text, "k", 0.0) == "a"


def test_the_delay_of_a_queue_or_of_a_job_comes_before_its_first_turn() -> None:
    ledger = ledger_of(mail=QueueSettings(delay_seconds=2.5))
    late = stored(ledger, "late", now=10.0)
    sooner = stored(ledger, "sooner", now=10.0, options=JobOptions(delay_seconds=1.0))
    at_once = stored(ledger, "at once", now=10.0, options=JobOptions(delay_seconds=0.0))
    assert (late.record.progress.due_ms, late.record.progress.pause_ms) == (12_500, 2500)
    assert (sooner.record.progress.due_ms, sooner.record.progress.pause_ms) == (11_000, 1000)
    assert at_once.record.progress is NEW
    assert started(ledger, 10.0) == ["at once"] and ledger.next_due() == 11.0
    assert ledger.tick(at(11.0)) == [] and started(ledger, 11.0) == ["sooner"]
    assert ledger.tick(at(12.4)) == [] and started(ledger, 12.4) == []
    assert ledger.tick(at(12.5)) == [] and started(ledger, 12.5) == ["late"]


def test_a_delay_that_ended_on_the_way_to_the_store_is_none() -> None:
    ledger = ledger_of(mail=QueueSettings())
    job = admitted(ledger, "a", now=10.0, options=JobOptions(delay_seconds=1.0))
    ledger.stored(job, at(11.0))
    assert started(ledger, 11.0) == ["a"]
    plain = admitted(ledger, "b", now=10.0)
    ledger.stored(plain, at(11.0))
    assert started(ledger, 11.0) == ["b"]


def test_a_job_that_the_store_refuses_is_nowhere() -> None:
    ledger = ledger_of(mail=QueueSettings())
    job = admitted(ledger, "a")
    ledger.refused(job)
    lane = queue_of(ledger)
    assert ledger.find("a") is None and lane.unfinished == ledger.room.unfinished == 0
    assert (ledger.room.disk_bytes, ledger.room.memory_bytes) == (0, 0) and job.current_state is JobState.REFUSED


def test_a_second_job_of_an_id_hides_the_first_one_never() -> None:
    ledger = ledger_of(mail=MANY)
    first, second = stored(ledger, "a"), stored(ledger, "a")
    assert ledger.find("a") is first
    list(ledger.lease(at(0)))
    is_done(ledger, second)
    assert ledger.find("a") is first
    is_done(ledger, first)
    assert ledger.find("a") is None


# --- turns


def test_nothing_starts_while_the_queue_is_paused_or_its_worker_takes_no_calls() -> None:
    ledger = ledger_of(mail=MANY)
    assert not ledger.cut_short
    for name in "abc":
        stored(ledger, name)
    ledger.paused = True
    assert started(ledger) == [] and not ledger.cut_short
    ledger.paused = False
    room = [True, True, False, False]  # it is asked before a lane is looked at, and before each job
    assert [job.record.id for job in ledger.lease(at(0), lambda: room.pop(0))] == ["a"]
    assert started(ledger) == ["b", "c"], "the lane was woken again"
    assert list(ledger.lease(at(0), lambda: False)) == []


def test_as_many_run_as_may_and_the_next_follows_when_one_ends() -> None:
    ledger = ledger_of(mail=QueueSettings(concurrency=2))
    jobs = [stored(ledger, name) for name in "abcd"]
    assert started(ledger) == ["a", "b"] and ledger.running == queue_of(ledger).running == 2
    ledger.succeeded(jobs[0], at(0))
    assert started(ledger) == ["c"] and ledger.running == 2
    ledger.erased(jobs[0])
    assert started(ledger) == []
    ledger.returned(jobs[1])
    assert started(ledger) == ["b"], "it is the oldest"


def test_jobs_of_a_missing_function_are_parked_at_their_turn() -> None:
    ledger = ledger_of(mail=QueueSettings(concurrency=1), other=MANY)
    first, second = stored(ledger, "a"), stored(ledger, "b")
    third = stored(ledger, "c", function=("default", "g"))
    assert started(ledger) == ["a"]
    ledger.missing(first, at(0))
    assert started(ledger) == ["c"], "and b waits, too"
    assert second.current_state is JobState.WAITING_FOR_FUNCTION and ledger.parked.functions == [CALLED]
    is_done(ledger, third)
    ledger.function_came(CALLED)
    assert ledger.parked.functions == [] and started(ledger) == ["a"]


def test_a_turn_looks_at_two_thousand_jobs_of_missing_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger_module._PARKED_AT_ONCE == 2_000
    monkeypatch.setattr(ledger_module, "_PARKED_AT_ONCE", 3)
    ledger = ledger_of(mail=MANY)
    jobs = [stored(ledger, str(number)) for number in range(7)]
    assert next(ledger.lease(at(0))) is jobs[0]
    ledger.missing(jobs[0], at(0))
    assert started(ledger) == [] and ledger.cut_short
    assert queue_of(ledger).state_counts[JobState.WAITING_FOR_FUNCTION] == 4
    assert started(ledger) == [] and ledger.cut_short
    ledger.paused = True
    assert not ledger.cut_short
    ledger.paused = False
    assert started(ledger) == [] and not ledger.cut_short
    ledger.function_came(CALLED)
    assert ledger.cut_short and queue_of(ledger).state_counts[JobState.READY] == 3
    assert started(ledger) == ["0", "1", "2", "3", "4", "5"] and ledger.cut_short
    assert started(ledger) == ["6"] and not ledger.cut_short


def test_a_subscriber_whose_function_is_missing_is_not_asked_again_for_each_job() -> None:
    ledger = ledger_of()
    lane = ledger.lanes.remember(LaneKey("topic", "orders", *CALLED), MANY, None)
    ledger.lanes.listen(lane, 1)
    first = stored(ledger, "a", lane)
    stored(ledger, "b", lane)
    assert next(ledger.lease(at(0))) is first
    ledger.missing(first, at(0))
    assert started(ledger) == [] and lane.state_counts[JobState.READY] == 1, "b is not parked"
    ledger.function_came(CALLED)
    assert started(ledger) == ["a", "b"]


def test_a_subscriber_finds_out_by_itself_when_the_last_parked_job_of_its_function_leaves() -> None:
    ledger = ledger_of()
    lane = ledger.lanes.remember(LaneKey("topic", "orders", *CALLED), MANY, None)
    ledger.lanes.listen(lane, 1)
    first = stored(ledger, "a", lane)
    stored(ledger, "b", lane)
    assert next(ledger.lease(at(0))) is first
    ledger.missing(first, at(0))
    assert started(ledger) == []
    assert ledger.cancel(first) == [Remove(1)]
    assert started(ledger) == ["b"]


def test_a_job_that_was_purged_at_its_turn_is_passed_over() -> None:
    ledger = ledger_of(mail=MANY)
    first = stored(ledger, "a")
    stored(ledger, "b")
    ledger.cancel(first)
    assert started(ledger) == ["b"]


# --- ends


def test_a_job_that_is_done_is_removed_and_remembered_for_a_while() -> None:
    ledger = ledger_of(mail=MANY)
    job = stored(ledger, "a")
    assert started(ledger) == ["a"] and not ledger.was_done("a") and ledger.recent_end("a") is None
    assert ledger.succeeded(job, at(5)) == [Remove(1)]
    assert queue_of(ledger).done.at(5) == pytest.approx(0.1)
    assert job.current_state is JobState.FINISHING and ledger.find("a") is job and not ledger.was_done("a")
    ledger.erased(job)
    assert ledger.find("a") is None and ledger.was_done("a") and ledger.recent_end("a") == "done"
    other = stored(ledger, "b")
    ledger.cancel(other)
    ledger.erased(other)
    assert ledger.was_done("b") and ledger.recent_end("b") == "removed"


def test_ten_thousand_ends_are_remembered() -> None:
    ledger = ledger_of(mail=MANY)
    for number in range(10_001):
        job = stored(ledger, str(number))
        ledger.cancel(job)
        ledger.erased(job)
        if number == 9_999:
            assert ledger.was_done("0")
    assert not ledger.was_done("0") and ledger.was_done("1") and ledger.was_done("10000")


def test_the_end_of_a_dead_letter_is_not_that_of_a_job() -> None:
    ledger = ledger_of(mail=MANY)
    job = stored(ledger, "a")
    assert started(ledger) == ["a"]
    dies(ledger, job)
    ledger.discard(job)
    ledger.erased(job)
    assert not ledger.was_done("a") and ledger.find("a") is None and queue_of(ledger).dead == {}


def test_failures_are_followed_by_pauses_and_in_the_end_by_death() -> None:
    ledger = ledger_of(1.25, mail=QueueSettings(max_attempts=3, backoff_seconds=2))
    job = stored(ledger, "a")
    assert started(ledger) == ["a"]
    (change,) = ledger.failed(job, "c1", "m1", at(10.0, 70_000))
    progress = Progress(attempts=1, code="c1", message="m1", due_ms=72_500, pause_ms=2500)
    assert isinstance(change, Update) and change.record.progress == job.record.progress == progress
    assert change.record.data is None and job.record.data == b"{}", "the data need not be written again"
    assert ledger.next_due() == 12.5 and ledger.running == 0 and started(ledger) == []
    ledger.tick(at(12.5))
    assert started(ledger, 12.5) == ["a"]
    ledger.failed(job, "c2", "m2", at(20.0, 80_000))
    assert job.record.progress == Progress(attempts=2, code="c2", message="m2", due_ms=85_000, pause_ms=5000)
    ledger.tick(at(25.0))
    assert started(ledger, 25.0) == ["a"]
    (change,) = ledger.failed(job, "c3", "m3", at(30.0, 90_000))
    assert job.record.progress == Progress(attempts=3, code="c3", message="m3", died_at_ms=90_000)
    assert isinstance(change, Update) and job.current_state is JobState.DYING and ledger.running == 0


def test_a_long_error_is_cut() -> None:
    ledger = ledger_of(mail=MANY)
    job = stored(ledger, "a")
    assert started(ledger) == ["a"]
    ledger.failed(job, "c" * 300, "m" * 5000, at(0))
    assert job.record.progress.code == "c" * 256 + "… (300 bytes in all)"
    assert job.record.progress.message == "m" * 4096 + "… (5000 bytes in all)"


def test_a_postponed_job_waits_a_tenth_of_a_second_at_least() -> None:
    for backoff, pause in ((0, 0.1), (4, 4.0)):
        ledger = ledger_of(mail=QueueSettings(backoff_seconds=backoff))
        job = stored(ledger, "a")
        assert started(ledger) == ["a"]
        ledger.postponed(job, at(10.0))
        assert ledger.next_due() == 10.0 + pause and job.record.progress.attempts == 0


def test_an_attempt_without_a_limit_ends_never_by_itself() -> None:
    ledger = ledger_of(mail=QueueSettings(visibility_timeout_seconds=2, max_attempts=1), free=QueueSettings())
    limited, free = stored(ledger, "a", now=5.0), stored(ledger, "b", queue_of(ledger, "free"))
    assert set(started(ledger, 5.0)) == {"a", "b"} and free.due == math.inf
    assert ledger.next_due() == 7.0 and ledger.tick(at(6.9)) == []
    ((job, _),) = ledger.tick(at(7.0))
    assert job is limited and job.record.progress.message == "the attempt took longer than 2 s"
    assert ledger.next_due() is None


# --- lost workers


def lost(ledger: Ledger, *names: str, now: float = 0.0) -> list[list[Progress]]:
    jobs = [job for name in names if (job := ledger.find(name)) is not None]
    moved = ledger.lost(jobs, "its worker was lost", at(now))
    assert [job for job, _ in moved] == jobs
    return [[change.record.progress for change in changes if isinstance(change, Update)] for _, changes in moved]


def test_the_first_loss_costs_nothing_and_later_ones_are_followed_by_pauses() -> None:
    ledger = ledger_of(mail=QueueSettings(max_lost_deliveries=4, backoff_seconds=8))
    job = stored(ledger, "a")
    assert started(ledger) == ["a"]
    assert lost(ledger, "a") == [[Progress(lost=1)]] and started(ledger) == ["a"]
    lost(ledger, "a", now=10.0)
    assert job.record.progress.lost == 2 and ledger.next_due() == 18.0 and started(ledger) == []
    ledger.tick(at(18.0))
    assert started(ledger, 18.0) == ["a"]
    lost(ledger, "a", now=20.0)
    assert job.record.progress.lost == 3 and ledger.next_due() == 36.0
    ledger.tick(at(36.0))
    assert started(ledger, 36.0) == ["a"]
    lost(ledger, "a", now=40.0)
    assert job.record.progress == Progress(
        lost=4, code="worker_lost", message="its worker was lost", died_at_ms=40_000
    )  # fmt: skip
    assert job.current_state is JobState.DYING


def test_a_job_that_is_lost_together_with_others_is_never_lost_for_the_last_time() -> None:
    ledger = ledger_of(mail=QueueSettings(max_lost_deliveries=3, backoff_seconds=1))
    first, second = stored(ledger, "a"), stored(ledger, "b", function=("default", "g"))
    assert started(ledger) == ["a", "b"]
    lost(ledger, "a", "b")
    assert (first.record.progress.lost, second.record.progress.lost) == (1, 1) and started(ledger) == ["a", "b"]
    lost(ledger, "a", "b")
    ledger.tick(at(1.0))
    assert (first.record.progress.lost, second.record.progress.lost) == (2, 2)
    assert started(ledger, 1.0) == ["a"], "it is a suspect, and its worker is that of the other one"
    assert queue_of(ledger).held == [second]
    is_done(ledger, first)
    assert started(ledger, 1.0) == ["b"]
    third = stored(ledger, "c", function=("default", "h"), now=1.0)
    assert started(ledger, 1.0) == ["c"], "its worker is another one"
    lost(ledger, "b", "c", now=1.0)
    assert second.record.progress.lost == 2, "any of them may have done it"
    assert third.record.progress.lost == 1


def test_of_jobs_that_are_lost_together_none_dies_and_of_no_jobs_nothing_is_made() -> None:
    ledger = ledger_of(mail=QueueSettings(max_lost_deliveries=2))
    assert ledger.lost([], "m", at(0)) == []
    first = stored(ledger, "a")
    stored(ledger, "b", function=("default", "g"))
    assert started(ledger) == ["a", "b"]
    lost(ledger, "a", "b")
    third = stored(ledger, "c", function=("default", "h"))
    assert started(ledger) == ["a", "c"], "b is held, and those behind it are not"
    lost(ledger, "a", "c")
    assert first.record.progress.lost == third.record.progress.lost == 1


def test_lower_limits_hold_for_what_has_failed_already() -> None:
    ledger = ledger_of(mail=QueueSettings(max_attempts=9, max_lost_deliveries=9, backoff_seconds=0.1))
    failing, losing = stored(ledger, "a"), stored(ledger, "b", function=("default", "g"))
    assert started(ledger) == ["a", "b"]
    for now in (1.0, 2.0, 3.0):
        ledger.failed(failing, "c", "m", at(now))
        lost(ledger, "b", now=now)
        ledger.tick(at(now + 0.9))
        list(ledger.lease(at(now + 0.9)))
    assert failing.current_state is losing.current_state is JobState.LEASED
    ledger.reconfigure(QueueConfig({"mail": QueueSettings(max_attempts=2, max_lost_deliveries=2)}))
    ledger.failed(failing, "c", "m", at(5.0))
    lost(ledger, "b", now=5.0)
    assert failing.current_state is losing.current_state is JobState.DYING


def test_with_one_delivery_a_job_that_is_lost_is_dead() -> None:
    ledger = ledger_of(mail=QueueSettings(max_lost_deliveries=1))
    first, second = stored(ledger, "a"), stored(ledger, "b")
    assert started(ledger) == ["a", "b"]
    lost(ledger, "a", "b")
    assert first.current_state is second.current_state is JobState.DYING


def test_a_suspect_that_is_withdrawn_holds_up_no_others() -> None:
    ledger = ledger_of(mail=QueueSettings(max_lost_deliveries=2), other=QueueSettings())
    suspect = stored(ledger, "a")
    runs = stored(ledger, "b", queue_of(ledger, "other"))
    assert set(started(ledger)) == {"a", "b"}
    lost(ledger, "a")
    stored(ledger, "c", queue_of(ledger, "other"))
    # The suspect waits for `b`, which runs, and `c` waits for the suspect.
    list(ledger.lease(at(0)))
    assert suspect.current_state is JobState.READY and ledger._isolation.active
    stored(ledger, "d", queue_of(ledger, "other"))
    assert started(ledger) == []
    ledger.pause(queue_of(ledger), True)
    assert set(started(ledger)) >= {"d"} and not ledger._isolation.active
    ledger.pause(queue_of(ledger), False)
    assert started(ledger) == []
    is_done(ledger, runs)
    for name in ("c", "d"):
        job = ledger.find(name)
        if job is not None and job.current_state is JobState.LEASED:
            is_done(ledger, job)
    assert "a" in started(ledger)


# --- dead letters


def test_a_dead_letter_is_no_unfinished_job_and_its_payload_is_on_disk_only() -> None:
    ledger = ledger_of(mail=QueueSettings(concurrency=9, dead_letters=2))
    jobs = [stored(ledger, name) for name in "abc"]
    assert started(ledger) == ["a", "b", "c"]
    lane = queue_of(ledger)
    assert dies(ledger, jobs[1], 1.0) == [] and dies(ledger, jobs[0], 2.0) == []
    assert lane.unfinished == ledger.room.unfinished == 1 and lane.jobs == {3: jobs[2]}
    assert jobs[0].record.data is None and list(lane.dead_letters()) == [jobs[1], jobs[0]]
    assert dies(ledger, jobs[2], 3.0) == [jobs[1]], "the oldest death is too many"
    assert ledger.find("a") is jobs[0]


def test_a_redriven_job_goes_to_the_end_of_its_line_with_all_its_attempts() -> None:
    ledger = ledger_of(mail=QueueSettings(concurrency=1))
    dead, waiting = stored(ledger, "a"), stored(ledger, "b")
    assert started(ledger) == ["a"]
    dies(ledger, dead)
    lane = queue_of(ledger)
    (change,) = ledger.redrive(dead, ("n", "g"))
    assert isinstance(change, Update)
    assert (change.record.key, change.record.position, change.record.progress) == (1, 3, NEW)
    assert change.record.function_id == "g" and change.record.namespace == "n"
    assert dead.record.progress is not NEW and dead.function == CALLED, "until the store has it"
    assert (lane.redriving, ledger.room.redriving, lane.unfinished) == (1, 1, 1)
    ledger.redriven(dead)
    assert (lane.redriving, ledger.room.redriving, lane.unfinished, ledger.room.unfinished) == (0, 0, 2, 2)
    assert lane.dead == {} and dead.record is change.record and started(ledger) == ["b"]
    is_done(ledger, waiting)
    assert started(ledger) == ["a"] and dead.function == ("n", "g")
    assert stored(ledger, "c").record.key == 4, "a position is no other job's key"


def test_a_redrive_or_a_discard_that_the_store_refuses_changes_nothing() -> None:
    ledger = ledger_of(mail=QueueSettings(concurrency=9))
    one, other = stored(ledger, "a"), stored(ledger, "b")
    assert started(ledger) == ["a", "b"]
    dies(ledger, one)
    dies(ledger, other)
    lane = queue_of(ledger)
    ledger.redrive(one)
    assert ledger.discard(other) == [Remove(2)]
    assert list(lane.dead_letters()) == []
    ledger.still_dead(one)
    assert (lane.redriving, ledger.room.redriving) == (0, 0)
    ledger.still_dead(other)
    assert (lane.redriving, ledger.room.redriving, lane.unfinished) == (0, 0, 0)
    assert list(lane.dead_letters()) == [one, other] and started(ledger) == []
    (change,) = ledger.redrive(one)
    assert isinstance(change, Update) and change.record.position == 4
    ledger.redriven(one)
    assert started(ledger) == ["a"]


# --- what is not wanted


def test_a_purge_takes_what_waits_and_leaves_what_runs() -> None:
    ledger = ledger_of(mail=QueueSettings(concurrency=9, missing_function_seconds=60), other=MANY)
    runs, parked = stored(ledger, "runs"), stored(ledger, "parked", function=("default", "g"))
    delayed = stored(ledger, "delayed", options=JobOptions(delay_seconds=9))
    assert started(ledger) == ["runs", "parked"]
    ledger.missing(parked, at(0))
    ready = stored(ledger, "ready")
    queue_of(ledger).held.append(ready)
    assert ledger.purge(queue_of(ledger)) == [parked, delayed, ready] and ledger.parked.functions == []
    assert queue_of(ledger).held == [] and started(ledger) == [] and runs.current_state is JobState.LEASED
    for job in (parked, delayed, ready):
        ledger.erased(job)
    assert list(queue_of(ledger).jobs.values()) == [runs] and ledger.room.unfinished == 1
    assert ledger.recent_end("ready") == "removed" and ledger.next_due() is None


def test_a_job_that_is_cancelled_while_it_runs_frees_its_place() -> None:
    ledger = ledger_of(mail=QueueSettings(concurrency=1, visibility_timeout_seconds=5))
    first = stored(ledger, "a")
    stored(ledger, "b")
    assert started(ledger) == ["a"]
    assert ledger.cancel(first) == [Remove(1)] and ledger.running == 0
    assert started(ledger) == ["b"] and ledger.next_due() == 5.0
    ledger.erased(first)
    assert ledger.find("a") is None and ledger.room.unfinished == 1


def test_a_job_whose_replacement_is_refused_waits_again_for_the_rest_of_its_time() -> None:
    ledger = ledger_of(mail=QueueSettings(concurrency=9))
    options = JobOptions(unique_key="k", delay_seconds=10)
    job, plain = stored(ledger, "a", options=options), stored(ledger, "b")
    lane = queue_of(ledger)
    ledger.cancel(job)
    ledger.cancel(plain)
    new = admitted(ledger, "c", options=JobOptions(unique_key="k"))
    assert ledger.unique.holder(lane.text, "k", 0.0) == "c"
    ledger.refused(new)
    ledger.kept_after_all(job, at(4.0))
    ledger.kept_after_all(plain, at(4.0))
    assert ledger.unique.holder(lane.text, "k", 4.0) == "a"
    assert job.current_state is JobState.DELAYED and ledger.next_due() == 10.0
    assert started(ledger, 4.0) == ["b"]
    ledger.tick(at(10.0))
    assert started(ledger, 10.0) == ["a"]


def test_a_job_whose_replacement_is_refused_rests_by_the_calendar() -> None:
    for wall_ms, due in ((9_500, 4.5), (1_000, 13.0), (-90_000, 14.0)):
        ledger = ledger_of(mail=QueueSettings())
        job = stored(ledger, "a", options=JobOptions(delay_seconds=10))
        ledger.cancel(job)
        ledger.kept_after_all(job, at(4.0, wall_ms))
        assert job.current_state is JobState.DELAYED and job.due == ledger.next_due() == due


def test_a_job_whose_replacement_is_refused_after_its_time_is_ready() -> None:
    ledger = ledger_of(mail=QueueSettings())
    for name, now in (("a", 10.0), ("b", 11.0)):
        job = stored(ledger, name, options=JobOptions(delay_seconds=10))
        ledger.cancel(job)
        ledger.kept_after_all(job, at(now))
        assert job.current_state is JobState.READY and started(ledger, now) == [name]


# --- missing functions and time


def test_a_job_waits_for_its_function_as_long_as_its_queue_says() -> None:
    ledger = ledger_of(mail=QueueSettings(missing_function_seconds=60, max_attempts=1), free=QueueSettings())
    job, free = stored(ledger, "a"), stored(ledger, "b", queue_of(ledger, "free"))
    assert set(started(ledger)) == {"a", "b"}
    ledger.missing(job, at(5.0))
    ledger.missing(free, at(5.0))
    assert ledger.next_due() == 65.0 and ledger.tick(at(64.9)) == []
    ((moved, _),) = ledger.tick(at(65.0))
    assert moved is job and job.record.progress.code == "function_not_found"
    assert job.record.progress.message == "Function f not found in namespace default"
    assert ledger.next_due() is None and free.current_state is JobState.WAITING_FOR_FUNCTION
    assert ledger.parked.functions == [CALLED]


@pytest.mark.parametrize("is_known", [False, True])
def test_the_time_of_an_attempt_is_no_limit_for_the_wait_for_a_function(is_known: bool) -> None:
    ledger = ledger_of(mail=QueueSettings(visibility_timeout_seconds=5, max_attempts=1))
    job, other = stored(ledger, "a"), stored(ledger, "b")
    assert started(ledger) == ["a", "b"]
    ledger.missing(other, at(1.0))
    if is_known:
        ledger.returned(job)  # and at its next turn its function is known to be missing
        assert started(ledger, 1.0) == []
    else:
        ledger.missing(job, at(1.0))
    assert job.current_state is JobState.WAITING_FOR_FUNCTION
    assert ledger.next_due() is None and ledger.tick(at(1e9)) == []
    ledger.function_came(CALLED)
    assert started(ledger, 1e9) == ["a", "b"]


def test_a_subscriber_waits_for_its_function_for_ever() -> None:
    ledger = ledger_of()
    key = LaneKey("topic", "orders", *CALLED)
    lane = ledger.lanes.remember(key, QueueSettings(missing_function_seconds=60), None)
    ledger.lanes.listen(lane, 1)
    job = stored(ledger, "a", lane)
    assert started(ledger) == ["a"]
    ledger.missing(job, at(0))
    assert ledger.next_due() is None


# --- other settings


def test_other_bounds_hold_at_once_and_suspects_may_be_none_any_more() -> None:
    ledger = ledger_of(mail=QueueSettings(max_lost_deliveries=2), other=QueueSettings())
    stored(ledger, "runs", queue_of(ledger, "other"))
    job = stored(ledger, "a")
    assert set(started(ledger)) == {"runs", "a"}
    lost(ledger, "a")
    assert started(ledger) == [] and ledger._isolation.active
    config = QueueConfig({"mail": QueueSettings(max_lost_deliveries=9), "other": QueueSettings()}, jobs=5)
    ledger.reconfigure(config)
    assert ledger.room.config is config and not ledger._isolation.active
    assert started(ledger) == ["a"] and job.current_state is JobState.LEASED
