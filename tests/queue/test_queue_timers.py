"""When jobs are due: in order, not when they have moved on, and without a heap of what no longer holds."""

from __future__ import annotations

from iii_trio import QueueConfig, QueueSettings
from iii_trio.triggers.queue.lane import Job
from iii_trio.triggers.queue.ledger import Ledger
from iii_trio.triggers.queue.record import Timestamp
from iii_trio.triggers.queue.states import JobState


def ledger_of(**settings: object) -> Ledger:
    queue = QueueSettings(concurrency=10**6, **settings)  # type: ignore[arg-type]
    return Ledger(QueueConfig({"mail": queue}), lambda: 1.0)


def run_one(ledger: Ledger, now: float) -> Job:
    lane = ledger.lanes.queue("mail")
    assert lane is not None
    timestamp = Timestamp(now, int(now * 1000))
    ledger.stored(ledger.admit(lane, "receipt", ("default", "f"), b"{}", timestamp), timestamp)
    (job,) = ledger.lease(timestamp)
    return job


def test_an_attempt_that_takes_too_long_fails_at_its_time_and_not_before() -> None:
    ledger = ledger_of(visibility_timeout_seconds=10, max_attempts=1)
    first, second = run_one(ledger, 1), run_one(ledger, 2)
    assert ledger.next_due() == 11
    assert ledger.tick(Timestamp(10.9, 0)) == []
    assert [job for job, _ in ledger.tick(Timestamp(11, 0))] == [
        first
    ] and first.record.progress.code == "visibility_timeout"
    assert ledger.next_due() == 12 and second.current_state is JobState.LEASED


def test_an_attempt_without_a_limit_has_no_timer() -> None:
    ledger = ledger_of()
    run_one(ledger, 1)
    assert ledger.next_due() is None


def test_what_is_done_long_before_its_limit_leaves_no_heap_behind() -> None:
    ledger = ledger_of(visibility_timeout_seconds=3600)
    waiting = run_one(ledger, 0)
    for n in range(20_000):
        job = run_one(ledger, n / 1000)
        ledger.succeeded(job, Timestamp(n / 1000, 0))
        ledger.erased(job)
    assert len(ledger.timers._heap) <= 1_001  # it is what is measured: nobody sees it otherwise
    assert ledger.next_due() == 3600 and waiting.current_state is JobState.LEASED
