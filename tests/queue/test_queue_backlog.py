"""Many waiting jobs: what they cost, and that nothing stands still for them (Q31)."""

from __future__ import annotations

import gc
import tracemalloc
from random import Random

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock as Clock

from iii_trio import QueueConfig, QueueSettings, enqueue
from iii_trio.testing.job_stores import record
from iii_trio.triggers.queue import MemoryStore, Put
from iii_trio.triggers.queue import ledger as ledger_module
from iii_trio.triggers.queue.job_loader import JobLoader
from iii_trio.triggers.queue.lane import Job
from iii_trio.triggers.queue.ledger import Ledger
from iii_trio.triggers.queue.parked import ParkedJobs
from iii_trio.triggers.queue.record import Timestamp
from iii_trio.triggers.queue.states import JobEvent, JobState
from tests.helpers.queue_world import queueing

NOW = Timestamp(1000.0, 1_700_000_100_000)
MAIL = '["queue","mail"]'


def loaded(*positions: int, concurrency: int = 10) -> Ledger:
    """A ledger with jobs of these positions, whose keys are from 1."""
    ledger = Ledger(QueueConfig(queues={"mail": QueueSettings(concurrency=concurrency)}), lambda: 1.0)
    rows = [record(key, position=position, lane=MAIL) for key, position in enumerate(positions, 1)]
    loader = JobLoader(ledger)
    assert loader.load(rows, {}, NOW) == []
    assert loader.end({}, NOW) == []
    return ledger


@given(st.lists(st.integers(1, 12), unique=True, max_size=8).map(sorted), st.randoms(use_true_random=False))
def test_Q31_jobs_start_in_the_order_of_their_positions_whatever_the_order_of_their_keys(
    keys: list[int], rng: Random
) -> None:
    positions = [key if rng.random() < 0.5 else 12 + key * 7 % 13 for key in keys]
    ledger = Ledger(QueueConfig(queues={"mail": QueueSettings(concurrency=20)}), lambda: 1.0)
    rows = [record(key, position=position, lane=MAIL) for key, position in zip(keys, positions, strict=True)]
    loader = JobLoader(ledger)
    loader.load(rows, {}, NOW)
    loader.end({}, NOW)
    [lane] = [lane for lane in ledger.lanes if lane.key.name == "mail"]
    assert [job.record.position for job in lane.after(0)] == sorted(positions), "a page has them in order"
    assert [job.record.position for job in ledger.lease(NOW)] == sorted(positions)


def test_Q31_jobs_whose_function_is_missing_are_put_aside_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_PARKED_AT_ONCE", 3)
    ledger = loaded(*range(1, 11), concurrency=1)
    [first] = ledger.lease(NOW)
    ledger.missing(first, NOW)
    rounds = 0
    while True:
        assert list(ledger.lease(NOW)) == []
        if not ledger.cut_short:
            break
        rounds += 1
    assert rounds == 3
    function = first.function
    assert ledger.parked.functions == [function]

    ledger.function_came(function)
    assert ledger.cut_short, "three have come back, and seven are to come"
    order = []
    while started := list(ledger.lease(NOW)):
        for job in started:
            order.append(job.record.key)
            ledger.succeeded(job, NOW)
            ledger.erased(job)
    assert order == list(range(1, 11))
    assert not ledger.cut_short and not ledger.parked.any_came


def test_Q31_a_drained_queue_looks_at_no_more_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_PARKED_AT_ONCE", 1)
    ledger = loaded(1, 2, 3)
    [first, *others] = ledger.lease(NOW)
    for job in (first, *others):
        ledger.missing(job, NOW)
    ledger.function_came(first.function)
    assert ledger.cut_short
    ledger.paused = True
    assert not ledger.cut_short


@given(st.lists(st.sampled_from(["add", "leave", "came", "return one"]), max_size=40), st.integers(0, 999))
def test_Q31_parked_jobs_are_counted_whatever_happens(steps: list[str], seed: int) -> None:
    rng = Random(seed)
    ledger = loaded(*range(1, 7))
    jobs = list(ledger.lease(NOW))
    function = jobs[0].function
    parked = ParkedJobs()
    away: list[Job] = []  # the jobs that wait, in any order

    for step in steps:
        here = [job for job in jobs if job not in away]
        if step == "add" and here:
            job = rng.choice(here)
            job.advance(JobEvent.FUNCTION_MISSING)
            parked.add(job)
            away.append(job)
        elif step == "leave" and away:
            job = away.pop(rng.randrange(len(away)))
            parked.leave(job)
            job.advance(JobEvent.FUNCTION_CAME)
            job.advance(JobEvent.LEASED)
        elif step == "came":
            parked.came(function)
        elif step == "return one":
            for job in parked.returned(1):
                job.advance(JobEvent.FUNCTION_CAME)
                job.advance(JobEvent.LEASED)
                away.remove(job)
        known = bool(parked.functions) or parked.any_came
        assert known == bool(away)
    parked.came(function)
    assert sorted(job.record.key for job in _all_returned(parked)) == sorted(job.record.key for job in away)
    assert not parked.any_came and not parked.functions


def _all_returned(parked: ParkedJobs) -> list[Job]:
    found = []
    for job in parked.returned(1000):
        job.advance(JobEvent.FUNCTION_CAME)
        found.append(job)
    return found


async def test_Q31_a_backlog_whose_function_comes_late_is_done_whole(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_PARKED_AT_ONCE", 20)
    store = MemoryStore()
    store.write([Put(record(key, lane=MAIL, function_id="mail::send")) for key in range(1, 101)])
    done = []
    async with queueing(store, mail=QueueSettings(concurrency=7)) as engine, engine.open_worker("w") as worker:

        @worker.function("other::f")
        async def other() -> None:
            done.append(0)

        await worker.trigger("other::f", {}, action=enqueue("mail"))
        await trio.sleep(1)
        assert done == [0], "a job behind a hundred that cannot start has started"

        @worker.function("mail::send")
        async def send(n: int) -> None:
            done.append(n)

        await trio.sleep(1)
    assert done == [0, *range(1, 101)]


def test_Q31_a_waiting_job_takes_few_bytes() -> None:
    rows = [
        msgspec.structs.replace(record(key, lane=MAIL), id=f"6f1c9a52-6f0e-4d8a-9a53-{key:012}")
        for key in range(1, 10_001)
    ]
    for one in rows:
        one.data = bytes(bytearray(one.data or b""))  # an object of its own, as of a store
    gc.collect()
    tracemalloc.start()
    try:
        ledger = Ledger(QueueConfig(queues={"mail": QueueSettings()}), lambda: 1.0)
        JobLoader(ledger).load(rows, {}, NOW)
        own, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [job.current for lane in ledger.lanes for job in lane.after(9_999)] == [JobState.READY]
    assert own / 10_000 < 260  # beside the record: its job, its places in line and among the ids


def test_Q31_a_record_takes_few_bytes() -> None:
    tracemalloc.start()
    try:
        texts = (MAIL, "mail::send", "default")
        before, _ = tracemalloc.get_traced_memory()
        rows = [type(record(1))(1, 1, "", *texts, b"", 1) for _ in range(1_000)]
        own = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(rows) == 1_000 and own / 1_000 < 160
