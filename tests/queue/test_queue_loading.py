"""A queue that works while it loads the jobs of an earlier engine (Q37)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock as Clock

import iii_trio
from iii_trio import CallError, QueueConfig, Queues, QueueSettings, Receipt, enqueue
from iii_trio.cli.queues import _own
from iii_trio.testing.job_stores import record
from iii_trio.triggers.queue import Backlog, Damaged, Loaded, MemoryStore, Put, SaveLane, StorageError, Update, loading
from iii_trio.triggers.queue.job_loader import JobLoader
from iii_trio.triggers.queue.journal import Journal
from iii_trio.triggers.queue.lane_key import LaneKey
from iii_trio.triggers.queue.ledger import Ledger
from iii_trio.triggers.queue.record import Record, Timestamp
from iii_trio.triggers.queue.sqlite_store import SqliteStore
from tests.helpers.queue_world import queueing, rows

T = TypeVar("T")
NOW = Timestamp(1000.0, 1_700_000_100_000)
MAIL, LINE = '["queue","mail"]', '["queue","line"]'
FIFO = QueueSettings(fifo=True, group_by="g", concurrency=10)


class LargeStore(MemoryStore):  # type: ignore[misc]  # final, for those who use it
    """A store in memory that says how much it has, as one on disk does."""

    broken = False

    def load(self) -> Loaded:
        there = super().load()
        jobs = [one for one in there.jobs if isinstance(one, Record)]
        unfinished = Counter(one.lane for one in jobs if one.progress.died_at_ms is None)
        backlog = Backlog(max(max(one.key, one.position) for one in jobs), unfinished)
        return Loaded(_Rows(self, jobs), there.subscribers, there.lanes, backlog=backlog)


class _Rows:
    def __init__(self, store: LargeStore, jobs: list[Record]) -> None:
        self._store, self._jobs = store, jobs

    def __iter__(self) -> Iterator[Record]:
        while self._jobs:
            if self._store.broken:
                raise StorageError("the disk is gone")
            yield self._jobs.pop(0)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> trio.Semaphore:
    """How many jobs are read. The first one is read before the queue opens."""
    pieces = trio.Semaphore(1)
    plain = Journal.read

    async def read(self: Journal, function: Callable[[], T]) -> T:
        await pieces.acquire()
        return await plain(self, function)

    monkeypatch.setattr(loading, "_JOBS_AT_ONCE", 1)
    monkeypatch.setattr(loading, "_JOBS_BEFORE", 1)
    monkeypatch.setattr(Journal, "read", read)
    return pieces


async def calm() -> None:
    """Wait until nobody has anything to do, the engine's news of functions included."""
    await trio.sleep(1)


async def load_more(gate: trio.Semaphore, jobs: int) -> None:
    """Have so many jobs loaded. The end is a piece, too."""
    for _ in range(jobs):
        gate.release()
    await calm()


def store_with(*lanes: str, **about: Any) -> LargeStore:
    """A store with a job for each of these lanes, with keys from 1."""
    store = LargeStore()
    store.write([Put(record(key, lane=lane, function_id="f", **about)) for key, lane in enumerate(lanes, 1)])
    return store


def note(worker: iii_trio.Worker, function_id: str = "f") -> list[Any]:
    """Serve a function, and return the list in which its jobs are noted."""
    done: list[Any] = []

    @worker.function(function_id)
    async def f(n: Any) -> Any:
        done.append(n)
        return n

    return done


async def test_Q37_jobs_start_and_come_while_others_are_on_disk_only(
    autojump_clock: Clock, gate: trio.Semaphore
) -> None:
    store = store_with(*[MAIL] * 4)
    async with queueing(store, mail=QueueSettings(concurrency=1)) as engine, engine.open_worker("w") as worker:
        done = note(worker)
        await calm()
        assert done == [1]
        row = (await rows(worker))["mail"]
        assert (row["depth"], row["loading"]) == (3, 3)

        receipt = await worker.trigger("f", {"n": "new"}, action=enqueue("mail"))
        await calm()
        assert done == [1, "new"], "no order is promised, so a free place is used"
        assert await receipt.wait() is None

        await load_more(gate, 4)
        assert done == [1, "new", 2, 3, 4]
        row = (await rows(worker))["mail"]
        assert (row["depth"], row["loading"]) == (0, 0)
    assert list(MemoryStore.load(store).jobs) == []


async def test_Q37_a_new_job_is_behind_those_that_are_not_loaded(autojump_clock: Clock, gate: trio.Semaphore) -> None:
    store = store_with(*[MAIL] * 4)
    async with queueing(store, mail=QueueSettings(concurrency=1)) as engine, engine.open_worker("w") as worker:
        for n in "ab":
            await worker.trigger("f", {"n": n}, action=enqueue("mail"))
        await load_more(gate, 4)
        queues = Queues(worker)
        page, after = await queues.jobs("mail", limit=4)
        assert [row["id"] for row in page] == [f"receipt-{key}" for key in range(1, 5)]
        assert after is not None
        [one, other], last = await queues.jobs("mail", after=after, limit=4)
        assert (one["size_bytes"], other["size_bytes"], last) == (9, 9, None)
        done = note(worker)
        await calm()
        assert done == [1, 2, 3, 4, "a", "b"]


async def test_Q37_the_order_of_groups_holds_while_jobs_are_loaded(autojump_clock: Clock, gate: trio.Semaphore) -> None:
    store = LargeStore()
    store.write([Put(record(key, lane=LINE, function_id="f", group='"a"')) for key in (1, 2)])
    store.write([Put(record(3, lane=LINE, function_id="f", group='"b"'))])
    async with queueing(store, line=FIFO, other=FIFO) as engine, engine.open_worker("w") as worker:
        done = note(worker)
        for n, g in ("new a", "a"), ("new b", "b"), ("new c", "c"):
            await worker.trigger("f", {"n": n, "g": g}, action=enqueue("line"))
        await worker.trigger("f", {"n": "elsewhere", "g": "a"}, action=enqueue("other"))
        await calm()
        assert sorted(done, key=str) == [1, "elsewhere"], "a queue whose jobs are loaded waits for no other"
        cancelled = await worker.trigger("f", {"n": "cancelled", "g": "a"}, action=enqueue("line"))
        await Queues(worker).cancel(cancelled.id)
        await load_more(gate, 1)
        assert done[2:] == [2]
        await load_more(gate, 2)
        assert done[3:] == [3, "new a", "new c", "new b"] or done[3:] == [3, "new a", "new b", "new c"]


async def test_Q27_Q37_a_unique_key_is_looked_up_when_all_jobs_are_loaded(
    autojump_clock: Clock, gate: trio.Semaphore
) -> None:
    store = LargeStore()
    store.write([Put(record(key, lane=MAIL, function_id="f", unique_key=f"k{key}")) for key in (1, 2, 3)])
    async with (
        queueing(store, mail=QueueSettings(concurrency=1)) as engine,
        engine.open_worker("w") as worker,
        trio.open_nursery() as nursery,
    ):
        answers: dict[str, Receipt] = {}

        async def ask(key: str) -> None:
            answers[key] = await worker.trigger("f", {"n": key}, action=enqueue("mail", unique_key=key))

        nursery.start_soon(ask, "k3")
        nursery.start_soon(ask, "k4")
        await calm()
        assert answers == {}
        await load_more(gate, 3)
        assert answers["k3"] == Receipt("receipt-3")
        done = note(worker)
        await calm()
        assert done == [1, 2, 3, "k4"]


async def test_Q37_what_is_asked_of_an_unloaded_job_waits_for_it(autojump_clock: Clock, gate: trio.Semaphore) -> None:
    store = store_with(*[MAIL] * 4)
    async with (
        queueing(store, mail=QueueSettings()) as engine,
        engine.open_worker("w") as worker,
        trio.open_nursery() as nursery,
    ):
        queues = Queues(worker)
        answers: dict[str, Any] = {}

        async def ask(name: str, verb: Callable[..., Any], *arguments: Any) -> None:
            answers[name] = await verb(*arguments)

        async def page() -> Any:
            return [row["id"] for row in (await queues.jobs("mail"))[0]]

        async def unknown() -> Any:
            with pytest.raises(CallError) as caught:
                await queues.job("no-such")
            return caught.value.code

        nursery.start_soon(ask, "job", queues.job, "receipt-2")
        nursery.start_soon(ask, "cancel", queues.cancel, "receipt-3")
        nursery.start_soon(ask, "wait", queues.wait, "receipt-3")
        nursery.start_soon(ask, "page", page)
        nursery.start_soon(ask, "unknown", unknown)
        nursery.start_soon(ask, "purge", queues.purge, "mail")
        await calm()
        assert answers == {}
        await load_more(gate, 1)
        assert answers["job"]["state"] == "waiting_for_function"
        assert set(answers) == {"job"}
        await load_more(gate, 1)
        assert (answers["cancel"], answers["wait"]["state"]) == ("waiting_for_function", "removed")
        assert set(answers) == {"job", "cancel", "wait"}
        await load_more(gate, 2)
        assert (answers["page"], answers["purge"]) == (["receipt-1", "receipt-2", "receipt-4"], 3)
        assert answers["unknown"] == "job_not_found"
    assert list(MemoryStore.load(store).jobs) == []


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_Q23_Q37_pages_go_on_where_the_loaded_jobs_end(
    autojump_clock: Clock, gate: trio.Semaphore, limit: int
) -> None:
    async with (
        queueing(store_with(*[MAIL] * 5), mail=QueueSettings()) as engine,
        engine.open_worker("w") as worker,
        trio.open_nursery() as nursery,
    ):
        seen: list[str] = []

        async def pages() -> None:
            after: int | None = 0
            while after is not None:
                page, after = await Queues(worker).jobs("mail", after=after, limit=limit)
                seen.extend(row["id"] for row in page)

        nursery.start_soon(pages)
        for _ in range(5):
            await calm()
            gate.release()
    assert seen == [f"receipt-{key}" for key in range(1, 6)]


async def test_Q37_a_drained_engine_says_that_it_has_not_loaded_its_jobs(
    autojump_clock: Clock, gate: trio.Semaphore
) -> None:
    store = store_with(MAIL, MAIL)
    async with queueing(store, mail=QueueSettings()) as engine, engine.open_worker("w") as worker:
        async with trio.open_nursery() as nursery:

            async def purge() -> None:
                with pytest.raises(CallError) as caught:
                    await Queues(worker).purge("mail")
                assert caught.value.code == "queue_loading"

            nursery.start_soon(purge)
            await calm()
            await engine._modules.running["queue"].drain()  # type: ignore[attr-defined]
    assert len(list(MemoryStore.load(store).jobs)) == 2


async def test_Q37_jobs_that_cannot_be_read_are_read_again(
    autojump_clock: Clock, gate: trio.Semaphore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    store = store_with(*[MAIL] * 3)
    async with queueing(store, mail=QueueSettings()) as engine, engine.open_worker("w") as worker:
        done = note(worker)
        store.broken = True
        await load_more(gate, 1)
        gate.release()
        await trio.sleep(1.5)  # it is tried for a second time, after a second
        assert done == [1]
        assert [line.message for line in caplog.records] == [
            "2 jobs are not loaded yet, and are tried again: the disk is gone"
        ]
        store.broken = False
        for _ in range(3):
            gate.release()
        await trio.sleep(3)
        assert done == [1, 2, 3]


async def test_Q21_Q37_a_receipt_that_comes_again_while_its_job_is_on_disk_only_is_one_job(
    autojump_clock: Clock, gate: trio.Semaphore
) -> None:
    store = store_with(LINE, LINE, LINE, group='"a"')
    async with (
        queueing(store, line=FIFO, mail=QueueSettings()) as engine,
        engine.open_worker("w") as worker,
    ):
        again = {"queue": "line", "function_id": "f", "data": {"n": "again", "g": "a"}, "messageReceiptId": "receipt-2"}
        assert await worker.trigger("engine::queue::enqueue", again) == {"messageReceiptId": "receipt-2"}
        begun = again | {"queue": "mail", "function_id": "g", "messageReceiptId": "receipt-3"}
        seen = note(worker, "g")
        await worker.trigger("engine::queue::enqueue", begun)
        await calm()
        assert seen == ["again"]
        await load_more(gate, 3)
        done = note(worker)
        await calm()
        assert done == [1, 2], "the one that has not begun gives way, and one that was done is done"
    assert list(MemoryStore.load(store).jobs) == []


async def test_Q1_Q37_jobs_on_disk_count_in_the_bounds(autojump_clock: Clock, gate: trio.Semaphore) -> None:
    store = store_with(MAIL, MAIL, LINE, LINE)
    settings = QueueSettings(max_jobs=3)
    async with queueing(store, jobs=6, mail=settings, line=settings) as engine, engine.open_worker("w") as worker:
        await worker.trigger("f", {"n": 5}, action=enqueue("mail"))
        with pytest.raises(CallError, match=r"3 jobs of mail are not done"):
            await worker.trigger("f", {"n": 6}, action=enqueue("mail"))
        await worker.trigger("f", {"n": 7}, action=enqueue("default"))
        with pytest.raises(CallError, match=r"there are 6 jobs"):
            await worker.trigger("f", {"n": 8}, action=enqueue("default"))
        await load_more(gate, 4)
        with pytest.raises(CallError, match=r"there are 6 jobs"):
            await worker.trigger("f", {"n": 8}, action=enqueue("default"))


async def test_Q12_Q37_a_queue_that_is_gone_keeps_its_settings_until_its_jobs_are_loaded(
    autojump_clock: Clock, gate: trio.Semaphore
) -> None:
    store = store_with(MAIL, '["queue","gone"]')
    settings = b'{"settings":{"max_attempts":1},"condition":null}'
    store.write([SaveLane('["queue","gone"]', settings)])
    async with queueing(store, mail=QueueSettings()) as engine, engine.open_worker("w") as worker:
        row = (await rows(worker))["gone"]
        assert (row["depth"], row["loading"]) == (1, 1)

        @worker.function("f")
        async def f() -> None:
            raise ValueError

        await load_more(gate, 2)
        row = (await rows(worker))["gone"]
        assert (row["depth"], row["dead"]) == (0, 1), "it has one attempt"


# --- the ledger alone


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 6)), max_size=10),
    st.lists(st.sampled_from(["load", "enqueue a", "enqueue b", "run", "run", "regroup"]), max_size=30),
    st.booleans(),
)
def test_Q5_Q37_whatever_comes_while_jobs_are_loaded_all_are_done_once_and_groups_in_order(
    there: list[tuple[str, bool, int]], steps: list[str], fifo: bool
) -> None:
    settings = {True: FIFO, False: QueueSettings(concurrency=10)}
    ledger = Ledger(QueueConfig(queues={"mail": settings[fifo]}), lambda: 1.0)
    [lane] = [lane for lane in ledger.lanes if lane.key == LaneKey("queue", "mail")]
    records = []
    for key, (group, redriven, ahead) in enumerate(there, 1):
        position = 100 + 10 * ahead + key if redriven else key  # far behind all of those that were there
        records.append(record(key, position=position, lane=MAIL, group=group))
    last = max((one.position for one in records), default=0)
    loader = JobLoader(ledger)
    loader.begin(Backlog(last, {MAIL: len(records)} if records else {}), {})
    rows, order, running = iter(records), [], []
    groups = {one.id: one.group for one in records}
    expected = [one.id for one in sorted(records, key=lambda one: one.position)]
    regrouped = False

    def run() -> None:
        running.extend(ledger.lease(NOW))
        while running:
            job = running.pop()
            order.append(job.record.id)
            ledger.succeeded(job, NOW)
            ledger.erased(job)
            running.extend(ledger.lease(NOW))

    for number, step in enumerate(steps):
        if step == "load":
            loader.load([one for one in [next(rows, None)] if one is not None], {}, NOW)
        elif step.startswith("enqueue"):
            job = ledger.admit(lane, f"new-{number}", ("default", "f"), b"1", NOW, group=step[-1])
            ledger.stored(job, NOW)
            groups[job.record.id] = step[-1]
            expected.append(job.record.id)
        elif step == "run":
            run()
        else:
            regrouped = True
            fifo = not fifo
            ledger.reconfigure(QueueConfig(queues={"mail": settings[fifo]}))
        assert ledger.room.unfinished + ledger.room.unloaded == len(expected) - len(order)
        assert lane.unfinished + lane.unloaded == len(expected) - len(order)
    loader.load(rows, {}, NOW)
    loader.end({}, NOW)
    positions = [job.record.position for job in lane.after(0)]
    assert positions == sorted(positions) == sorted(lane.jobs) == list(lane.jobs)
    assert len(positions) == len(expected) - len(order)
    run()
    assert sorted(order) == sorted(expected)
    if fifo and not regrouped:
        for group in "ab":
            assert [one for one in order if groups[one] == group] == [one for one in expected if groups[one] == group]


def test_Q37_jobs_that_came_while_others_are_loaded_are_not_loaded_again() -> None:
    ledger = Ledger(QueueConfig(queues={"mail": QueueSettings()}), lambda: 1.0)
    loader = JobLoader(ledger)
    loader.begin(Backlog(7, {MAIL: 1}), {})
    lane = ledger.lanes.queue("mail")
    assert lane is not None
    job = ledger.admit(lane, "new", ("default", "f"), b"1", NOW)
    assert job.record.key == 8
    ledger.stored(job, NOW)
    loader.load([record(1, lane=MAIL), job.record], {}, NOW)
    loader.end({}, NOW)
    assert [one.record.key for one in lane.after(0)] == [1, 8]
    assert lane.oldest_seconds(NOW) == pytest.approx(99.999)


def test_Q37_a_jobs_age_is_that_of_the_oldest_loaded_one() -> None:
    ledger = Ledger(QueueConfig(queues={"mail": QueueSettings()}), lambda: 1.0)
    loader = JobLoader(ledger)
    loader.begin(Backlog(2, {MAIL: 2}), {})
    lane = ledger.lanes.queue("mail")
    assert lane is not None
    ledger.stored(ledger.admit(lane, "new", ("default", "f"), b"1", NOW), NOW)
    loader.load([record(1, lane=MAIL)], {}, NOW)
    assert lane.oldest_seconds(NOW) == pytest.approx(99.999)


# --- SQLite


@pytest.mark.parametrize("rows", [1, 3, 500])
def test_Q37_a_file_says_how_much_it_has_and_is_written_to_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("iii_trio.triggers.queue.sqlite_store._ROWS_AT_ONCE", rows)
    store = SqliteStore(tmp_path)
    assert store.load().backlog == Backlog(0, {})
    store.write([Put(record(key, lane=MAIL if key % 2 else LINE)) for key in range(1, 11)])
    store.write([Update(record(3, lane=MAIL, data=None, died_at_ms=5)), Update(record(4, position=15, data=None))])
    loaded = store.load()
    assert loaded.backlog == Backlog(15, {MAIL: 4, LINE: 5})
    keys = []
    for job in loaded.jobs:
        assert not isinstance(job, Damaged)
        keys.append(job.key)
        store.write([Put(record(100 + job.key)), *([Put(record(10 + job.key))] if job.key > 5 else [])])
    assert keys[:10] == list(range(1, 11))
    assert all(10 < key <= 15 for key in keys[10:])
    store.close()


def test_Q37_a_file_that_cannot_be_read_for_a_moment_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iii_trio.triggers.queue.sqlite_store._ROWS_AT_ONCE", 2)
    store = SqliteStore(tmp_path)
    store.write([Put(record(key)) for key in range(1, 6)])
    loaded, plain = store.load(), store.records
    rows = iter(loaded.jobs)
    assert [next(rows), next(rows)] == [record(1), record(2)]

    def fail(after: int, last: int) -> list[Record | Damaged]:
        raise StorageError("not now")

    monkeypatch.setattr(store, "records", fail)
    with pytest.raises(StorageError):
        next(rows)
    monkeypatch.setattr(store, "records", plain)
    assert list(loaded.jobs) == [record(3), record(4), record(5)]
    store.close()


def test_Q37_damaged_rows_do_not_spoil_the_count(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.write([Put(record(key, lane=MAIL)) for key in range(1, 6)])
    store.connection.execute("UPDATE jobs SET lane = x'00' WHERE key = 2")
    store.connection.execute("UPDATE jobs SET position = 'far' WHERE key = 4")
    loaded = store.load()
    assert loaded.backlog == Backlog(5, {MAIL: 4})
    ledger = Ledger(QueueConfig(queues={"mail": QueueSettings()}), lambda: 1.0)
    loader = JobLoader(ledger)
    loader.begin(loaded.backlog, {})
    found = loader.load(loaded.jobs, {}, NOW) + loader.end({}, NOW)
    assert [one.key for one in found] == [2, 4]
    assert (ledger.room.unloaded, ledger.room.unfinished) == (0, 3)
    [lane] = [lane for lane in ledger.lanes if lane.key.name == "mail"]
    assert lane.unloaded == 0
    store.close()


def test_a_random_choice_of_pieces_loads_the_same(tmp_path: Path) -> None:
    rng = Random(5)
    records = [record(key, lane=MAIL if rng.random() < 0.5 else LINE) for key in rng.sample(range(1, 1000), 200)]
    store = SqliteStore(tmp_path)
    store.write([Put(one) for one in records])
    loaded = store.load()
    assert list(loaded.jobs) == sorted(records, key=lambda one: one.key)
    store.close()


def test_Q37_the_table_of_queues_says_that_jobs_are_loading() -> None:
    assert _own({"loading": 0}) == _own({}) == []
    assert _own({"loading": 4, "paused": True}) == ["resume (it is paused)", "the engine's start (4 are loading)"]
