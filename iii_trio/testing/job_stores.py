"""Checks of any store of jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from ..triggers.queue import (
    Change,
    Damaged,
    Forget,
    ForgetLane,
    Payload,
    Put,
    Remember,
    Remove,
    SaveLane,
    SetAside,
    StorageError,
    Store,
    Update,
)  # fmt: skip
from ..triggers.queue.record import Options, Progress, Record


def check_job_store(make_store: Callable[[], Store], *, lasting: bool = True) -> None:
    """Hold a store against the four verbs of `Store`. Raises AssertionError, which names the fault.

    `make_store` opens a store. It is empty at first. Each later call comes after the earlier store is closed, and opens
    it with the jobs that were kept. `lasting=False` is for a store that loses its jobs when it closes. Blocks.
    """
    for check in _CHECKS:
        store = make_store()
        try:
            _empty(store)
            store = check(store, _reopening(make_store, lasting))
            _clear(store)
        finally:
            store.close()


Reopen = Callable[[Store], Store]


def _reopening(make_store: Callable[[], Store], lasting: bool) -> Reopen:
    def reopen(store: Store) -> Store:
        if not lasting:
            return store
        store.close()
        return make_store()

    return reopen


def record(key: int, **about: object) -> Record:
    """Make a job's record, as a ledger might put it."""
    given: dict[str, object] = {
        "key": key,
        "position": key,
        "id": f"receipt-{key}",
        "lane": '["queue","mail"]',
        "function_id": "mail::send",
        "namespace": "default",
        "data": b'{"n":%d}' % key,
        "created_at_ms": 1_700_000_000_000 + key,
    }
    given |= about
    for name, part in (("progress", Progress), ("options", Options)):
        given[name] = msgspec.convert({key: given.pop(key) for key in part.__struct_fields__ if key in given}, part)
    return Record(**given)  # type: ignore[arg-type]


def jobs_of(store: Store) -> list[Record]:
    """Return the jobs of a store. Raises AssertionError for a record that it calls damaged."""
    jobs = list(store.load().jobs)
    for job in jobs:
        # The checks write valid records only, so a damaged one is the store's own fault.
        if isinstance(job, Damaged):
            raise AssertionError(f"the job with the key {job.key} is damaged: {job.problem}")
    return jobs  # type: ignore[return-value]


# --- the checks: each is given an empty store, and gives back the one that is open then


def _what_is_put_is_there_whole(store: Store, reopen: Reopen) -> Store:
    full = record(
        7,
        id="",
        lane='["topic","öre, \\"x\\"","","é::\\u0000"]',
        namespace="ß\n",
        function_id="a\0b",
        data=b"null",
        group='"g"',
        traceparent="00-1-2-03",
        baggage="a=b",
        metadata=b'{"m":1}',
        attempts=2,
        lost=1,
        due_ms=2**53,
        pause_ms=2**40,
        died_at_ms=1_700_000_000_500,
        code="code",
        message="it is 🙂",
        priority=3,
        unique_key="ключ",
        unique_ms=2**41,
        keep_result_ms=5,
    )
    bare = record(9)
    store.write([Put(full), Put(bare)])
    _same(jobs_of(store), [full, bare], "what is put is there, all of it")
    store = reopen(store)
    _same(jobs_of(store), [full, bare], "what is put is there when it is opened again")
    return store


def _jobs_are_in_the_order_of_their_keys(store: Store, reopen: Reopen) -> Store:
    order = [(3, 30), (1, 10), (2, 20), (4, 5)]
    for key, position in order:
        store.write([Put(record(key, position=position))])
    store.write([Update(record(1, position=40, data=None))])
    store = reopen(store)
    _equal([job.key for job in jobs_of(store)], [1, 2, 3, 4], "the order of the jobs, by their keys")
    return store


def _an_update_moves_a_job_and_leaves_its_data(store: Store, reopen: Reopen) -> Store:
    store.write([Put(record(1, group="g", metadata=b"{}")), Put(record(2))])
    rest = {"group": "g", "metadata": b"{}"}
    moved = {
        "position": 8,
        "attempts": 3,
        "lost": 2,
        "due_ms": 99,
        "pause_ms": 97,
        "died_at_ms": 98,
        "code": "c",
        "message": "m",
        "function_id": "other::f",
        "namespace": "n",
    }
    store.write([Update(record(1, data=None, **rest, **moved))])
    expected = [record(1, **rest, **moved), record(2)]
    _same(jobs_of(store), expected, "an update changes where a job stands, and nothing of its data")
    store = reopen(store)
    _same(jobs_of(store), expected, "an update is there when it is opened again")
    back = {
        "position": 9,
        "attempts": 0,
        "lost": 0,
        "due_ms": None,
        "pause_ms": None,
        "died_at_ms": None,
        "code": None,
        "message": None,
    }
    store.write([Update(record(1, data=None, **rest, **back))])
    _same(jobs_of(store), [record(1, **rest, position=9), record(2)], "an update can take back")
    return store


def _what_is_removed_is_gone_for_good(store: Store, reopen: Reopen) -> Store:
    store.write([Put(record(key)) for key in (1, 2, 3)])
    store.write([Remove(2)])
    _same(jobs_of(store), [record(1), record(3)], "what is removed is gone")
    store.write([Put(record(4)), Remove(4), Remove(1)])
    store = reopen(store)
    _same(jobs_of(store), [record(3)], "what was removed is gone when it is opened again")
    return store


def _changes_are_made_in_their_order(store: Store, reopen: Reopen) -> Store:
    store.write(
        [
            Put(record(1)),
            Update(record(1, attempts=1, data=None)),
            Update(record(1, attempts=2, data=None)),
            Put(record(2)),
            Remove(2),
            Remember("t", "n", "f", b"{}"),
            Forget("t", "n", "f"),
            Remember("t", "n", "f", b'{"again":1}'),
        ]
    )
    store = reopen(store)
    _same(jobs_of(store), [record(1, attempts=2)], "the last of several updates holds")
    _equal(list(store.load().subscribers), [Remember("t", "n", "f", b'{"again":1}')], "the last word on a subscriber")
    return store


def _unknown_keys_harm_nothing(store: Store, reopen: Reopen) -> Store:
    store.write([Put(record(1))])
    store.write([Update(record(5, attempts=9, data=None)), Remove(6), Forget("no", "such", "one"), Put(record(2))])
    store = reopen(store)
    _same(jobs_of(store), [record(1), record(2)], "changes of what is not there change nothing")
    _equal(store.fetch([1, 5]), {1: Payload(b'{"n":1}')}, "the data of what is not there is left out")
    return store


def _data_is_fetched_by_key(store: Store, reopen: Reopen) -> Store:
    big = bytes(range(256)) * 20_000
    store.write([Put(record(1)), Put(record(2, data=b"")), Put(record(3, data=big, metadata=b"{}"))])
    _equal(
        store.fetch([3, 1, 2]),
        {1: Payload(b'{"n":1}'), 2: Payload(b""), 3: Payload(big, b"{}")},
        "the data of three jobs",
    )
    _equal(store.fetch([]), {}, "the data of none")
    store.write([Update(record(3, attempts=1, data=None, metadata=None))])
    store = reopen(store)
    _equal(store.fetch([3]), {3: Payload(big, b"{}")}, "the data of a job that has moved")
    return store


def _subscribers_are_remembered_by_all_three_names(store: Store, reopen: Reopen) -> Store:
    one, other = Remember("t", "n", "f", b'{"a":1}'), Remember("t", "n2", "f", b"{}", 1_700_000_000_000)
    store.write([one, other, Remember("t2", "n", "f", b"{}"), Remember("t", "n", "f2", b"{}")])
    store.write([Remember("t", "n", "f", b'{"a":2}'), Forget("t2", "n", "f"), Forget("t", "n", "f2")])
    store = reopen(store)
    found = sorted(store.load().subscribers, key=lambda one: one.namespace)
    _equal(found, [Remember("t", "n", "f", b'{"a":2}'), other], "the subscribers")
    return store


def _the_settings_of_lanes_are_kept(store: Store, reopen: Reopen) -> Store:
    store.write([SaveLane("a", b"{}"), SaveLane("b", b"1"), SaveLane("c", b"2")])
    store.write([SaveLane("b", b"3"), ForgetLane("c"), ForgetLane("d")])
    store = reopen(store)
    found = sorted(store.load().lanes, key=lambda one: one.lane)
    _equal(found, [SaveLane("a", b"{}"), SaveLane("b", b"3")], "the settings of the lanes")
    return store


def _a_record_that_is_set_aside_is_no_job(store: Store, reopen: Reopen) -> Store:
    store.write([Put(record(1)), Put(record(2))])
    store.write([SetAside(1, "it is damaged"), SetAside(9, "it is not there")])
    store = reopen(store)
    _same(jobs_of(store), [record(2)], "a record that was set aside is gone")
    _equal(store.fetch([1]), {}, "the data of a record that was set aside is gone")
    return store


def _tidying_up_ends_and_changes_nothing(store: Store, reopen: Reopen) -> Store:
    jobs = [record(key, data=b"x" * 20_000) for key in range(1, 200)]
    store.write([Put(job) for job in jobs])
    store.write([Remove(job.key) for job in jobs[5:]])
    for _ in range(1000):
        # `tidy` works in slices, so that an engine can serve its workers in between.
        if not store.tidy():
            break
    else:
        raise AssertionError("`tidy` finds something to do for ever")
    _same(jobs_of(store), jobs[:5], "the jobs after tidying up")
    store = reopen(store)
    _same(jobs_of(store), jobs[:5], "the jobs after tidying up, when it is opened again")
    return store


def _a_write_is_whole_or_not_at_all(store: Store, reopen: Reopen) -> Store:
    """Check that the first change is not kept when the last one cannot be, because its text is not valid."""
    store.write([Put(record(1))])
    broken = record(3)
    broken.id = "\ud800"
    try:
        store.write([Put(record(2)), Remove(1), Remember("t", "n", "f", b"{}"), Put(broken)])
    # A store that can keep such a text has nothing to undo, so only a refusal is checked.
    except StorageError:
        _same(jobs_of(store), [record(1)], "nothing of a write that failed is there")
        _equal(list(store.load().subscribers), [], "nothing of a write that failed is there")
        store.write([Put(record(4))])
        store = reopen(store)
        _same(jobs_of(store), [record(1), record(4)], "nothing of a write that failed is there, and others go on")
    return store


def _many_changes_at_once(store: Store, reopen: Reopen) -> Store:
    jobs = [record(key) for key in range(1, 5001)]
    store.write([Put(job) for job in jobs])
    store.write([Remove(job.key) for job in jobs[::2]])
    store = reopen(store)
    _same(jobs_of(store), jobs[1::2], "2,500 of 5,000 jobs")
    _equal(len(store.fetch([job.key for job in jobs])), 2500, "how many have data")
    return store


def _a_backlog_is_counted_and_read_while_jobs_come(store: Store, reopen: Reopen) -> Store:
    lanes = ['["queue","mail"]'] * 1200 + ['["queue","post"]'] * 3
    store.write([Put(record(key, lane=lane)) for key, lane in enumerate(lanes, 1)])
    store.write([Update(record(2, data=None, died_at_ms=1)), Update(record(3, data=None, position=2000))])
    store = reopen(store)
    loaded = store.load()
    # A store that tells nothing before the jobs are read is not written to meanwhile.
    if loaded.backlog is None:
        return store
    if loaded.backlog.last < 2000:
        raise AssertionError(f"the largest position is 2000, and `backlog.last` is {loaded.backlog.last}")
    _equal(dict(loaded.backlog.unfinished), {'["queue","mail"]': 1199, '["queue","post"]': 3}, "the jobs of each lane")
    keys = []
    for number, job in enumerate(loaded.jobs):
        keys.append(job.key)
        if number % 100 == 0:
            store.write([Put(record(5000 + number)), Remove(job.key)])
    _equal([key for key in keys if key <= 2000], list(range(1, len(lanes) + 1)), "the jobs, while others come and go")
    return store


_CHECKS: tuple[Callable[[Store, Reopen], Store], ...] = (
    _what_is_put_is_there_whole,
    _jobs_are_in_the_order_of_their_keys,
    _an_update_moves_a_job_and_leaves_its_data,
    _what_is_removed_is_gone_for_good,
    _changes_are_made_in_their_order,
    _unknown_keys_harm_nothing,
    _data_is_fetched_by_key,
    _subscribers_are_remembered_by_all_three_names,
    _the_settings_of_lanes_are_kept,
    _a_record_that_is_set_aside_is_no_job,
    _tidying_up_ends_and_changes_nothing,
    _a_write_is_whole_or_not_at_all,
    _many_changes_at_once,
    _a_backlog_is_counted_and_read_while_jobs_come,
)


def _empty(store: Store) -> None:
    loaded = store.load()
    _equal((list(loaded.jobs), list(loaded.subscribers)), ([], []), "a new store is empty")
    if not store.place:
        raise AssertionError("`place` is empty: it is to tell people where the jobs are")


def _clear(store: Store) -> None:
    loaded = store.load()
    changes: list[Change] = [Remove(job.key) for job in loaded.jobs]
    changes += [ForgetLane(one.lane) for one in loaded.lanes]
    changes += [Forget(one.topic, one.namespace, one.function_id) for one in loaded.subscribers]
    store.write(changes)


def _same(found: Iterable[Record], expected: list[Record], what: str) -> None:
    _equal([msgspec.structs.asdict(job) for job in found], [msgspec.structs.asdict(job) for job in expected], what)


def _equal(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {str(expected)[:500]} was expected, and {str(found)[:500]} found")
