"""The journal by itself: what goes together, what is refused, what is tried again, and when (Q1, Q13)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock as Clock

from iii_trio import CallError
from iii_trio.triggers.queue import Change, MemoryStore
from iii_trio.triggers.queue.journal import Journal
from iii_trio.triggers.queue.store import BadChange, Payload, Put, Remove, StorageError, StorageFull
from tests.helpers.queue_world import settled
from tests.queue.ledgers import record

T = TypeVar("T")


class Store(MemoryStore):
    """A store that notes when it is used, and fails as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        """How long it takes."""
        self.attempts: list[tuple[float, list[int]]] = []
        """When it was asked to write which keys."""
        self.tidied: list[float] = []
        self.untidy = 0
        self.fails: Callable[[Sequence[int]], BaseException | None] = lambda keys: None
        self.began = trio.current_time()

    @property
    def now(self) -> float:
        return round(trio.current_time() - self.began, 6)

    def write(self, changes: Sequence[Change]) -> None:
        keys = [change.key for change in changes if isinstance(change, Remove)]
        self.attempts.append((self.now, keys))
        error = self.fails(keys)
        if error is not None:
            raise error

    def tidy(self) -> bool:
        self.tidied.append(self.now)
        self.untidy -= 1
        return self.untidy > 0


class World:
    def __init__(self) -> None:
        self.store = Store()
        self.journal = Journal(self.store, self.run)
        self.said: list[str] = []

    async def run(self, function: Callable[[], T]) -> T:
        await trio.sleep(self.store.seconds)
        return function()

    def write(self, key: int) -> None:
        """Write a change that has happened already."""
        self.journal.write([Remove(key)], lambda: self.said.append(f"kept {key}"))

    def ask(self, key: int) -> None:
        """Write a change that may be refused."""
        self.journal.write(
            [Remove(key)], lambda: self.said.append(f"kept {key}"), lambda _: self.said.append(f"refused {key}")
        )


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    async with trio.open_nursery() as nursery:
        await nursery.start(made.journal.keep)
        await settled()
        yield made
        nursery.cancel_scope.cancel()


# --- what goes together


async def test_Q1_what_comes_during_a_commit_is_in_the_next_one(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.seconds = 1.0
        w.write(1)
        await trio.sleep(0.5)
        w.write(2)
        w.ask(3)
        await trio.sleep(5)
        assert w.store.attempts == [(1.0, [1]), (2.0, [2, 3])] and w.said == ["kept 1", "kept 2", "kept 3"]


async def test_nothing_at_all_waits_for_what_was_before_it(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.seconds = 1.0
        w.journal.write([])
        await w.journal.settled()
        assert w.store.attempts == [] and w.store.now == 0
        w.write(1)
        await w.journal.settled()
        assert w.store.now == 1.0 and w.said == ["kept 1"]
        await w.journal.written([])
        assert w.store.now == 1.0 and w.store.attempts == [(1.0, [1])]


async def test_gathered_changes_are_one_entry_of_the_next_commit_and_come_first(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.seconds = 1.0
        w.journal.gathered_kept = lambda subjects: w.said.append(f"gathered {subjects}")
        w.write(1)
        w.journal.gather([Remove(2)], "two")
        w.journal.gather([Remove(3)], "three")
        await w.journal.settled()
        assert w.store.attempts == [(1.0, [2, 3, 1])]
        assert w.said == ["gathered ['two', 'three']", "kept 1"]
        w.journal.gather([Remove(4)], "four")  # by itself it is reason enough for a commit
        await trio.sleep(1.5)
        assert w.store.attempts[1:] == [(2.0, [4])] and w.said[2:] == ["gathered ['four']"]


async def test_gathered_changes_are_tried_until_they_are_kept_also_at_the_end(autojump_clock: Clock) -> None:
    async with world() as w:
        w.journal.gathered_kept = lambda subjects: w.said.append(f"gathered {subjects}")
        w.store.fails = lambda keys: StorageError("trouble")
        w.journal.gather([Remove(1)], "one")
        await trio.sleep(0.01)
        assert w.said == [] and w.store.attempts == [(0.0, [1])]
        w.store.fails = lambda keys: None
        w.journal.gather([Remove(2)], "two")
    assert w.said == ["gathered ['two']", "gathered ['one']"], "the journal is closed when they are kept"


async def test_commits_are_counted_with_their_seconds_and_callbacks_come_first(autojump_clock: Clock) -> None:
    async with world() as w:
        assert w.journal.commits == {"count": 0, "median_seconds": None, "max_seconds": None}
        w.journal.after_commit = lambda: w.said.append("after")
        for key, seconds in enumerate((1.0, 4.0, 2.0)):
            w.store.seconds = seconds
            await w.journal.written([Remove(key)], lambda: w.said.append("kept"))
        assert w.journal.commits == {"count": 3, "median_seconds": 2.0, "max_seconds": 4.0}
        assert w.said == ["kept", "after"] * 3
        w.store.seconds = 1.0
        for key in range(98):
            await w.journal.written([Remove(key)])
        assert w.journal.commits == {"count": 101, "median_seconds": 1.0, "max_seconds": 4.0}
        await w.journal.written([Remove(1)])
        assert w.journal.commits["max_seconds"] == 2.0, "of the last hundred"


# --- what fails


async def test_Q1_what_the_store_refuses_is_told_to_its_sender(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.fails = lambda keys: StorageFull("no room")
        with pytest.raises(CallError) as refused:
            await w.journal.written([Remove(1)], lambda: w.said.append("kept"), lambda: w.said.append("refused"))
        assert (refused.value.code, refused.value.message) == ("storage_failed", "no room") and w.said == ["refused"]
        w.store.fails = lambda keys: None
        await w.journal.written([Remove(2)], lambda: w.said.append("kept"), lambda: w.said.append("refused"))
        assert w.said == ["refused", "kept"]


async def test_what_has_happened_is_tried_again_each_second_until_it_is_kept(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.fails = lambda keys: StorageError("not now") if w.store.now < 3 else None
        w.write(1)
        await trio.sleep(10)
        assert w.store.attempts == [(time, [1]) for time in (0, 1.05, 2.1, 3.15)] and w.said == ["kept 1"]


async def test_a_caller_that_comes_ends_the_wait_for_the_next_try_but_not_the_breath(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.fails = lambda keys: StorageError("not now") if w.store.now < 3 else None
        w.write(1)
        await trio.sleep(0.5)
        w.ask(2)
        await settled()
        assert w.said == ["refused 2"] and w.store.attempts == [(0, [1]), (0.5, [1, 2]), (0.5, [1])]
        w.ask(3)
        await trio.sleep(0.04)
        assert w.said == ["refused 2"]
        await trio.sleep(0.02)
        assert w.said == ["refused 2", "refused 3"] and w.store.attempts[3:] == [(0.55, [1, 3]), (0.55, [1])]
        await trio.sleep(10)
        assert w.said == ["refused 2", "refused 3", "kept 1"]


async def test_Q14_what_has_happened_is_written_without_the_new_jobs_that_have_no_room(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.fails = lambda keys: StorageFull("no room") if 2 in keys else None
        for write, key in ((w.write, 1), (w.ask, 2), (w.write, 3)):
            write(key)
        await settled()
        assert w.store.attempts == [(0, [1, 2, 3]), (0, [1, 3])] and w.said == ["refused 2", "kept 1", "kept 3"]
        await trio.sleep(0.06)
        w.write(4)
        await settled()
        assert w.said[-1] == "kept 4" and w.store.attempts[-1] == (0.06, [4]), "nothing is to be tried again"


async def test_what_is_tried_again_stays_before_what_came_meanwhile(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.seconds = 0.5
        w.store.fails = lambda keys: StorageError("not now") if w.store.now < 1 else None
        w.write(1)
        await trio.sleep(0.1)
        w.write(2)
        await trio.sleep(10)
        assert w.store.attempts[1][1] == [1, 2] and w.said == ["kept 1", "kept 2"]


async def test_Q13_one_bad_change_is_told_or_logged_and_spoils_nothing_else(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as w:
        w.store.fails = lambda keys: BadChange(f"{keys} are bad") if {2, 4} & set(keys) else None
        for write, key in ((w.write, 1), (w.write, 2), (w.ask, 3), (w.ask, 4), (w.write, 5)):
            write(key)
        w.journal.write([Remove(2)])
        await settled()
        assert w.said == ["kept 1", "kept 2", "kept 3", "refused 4", "kept 5"]
        line = "[2] are bad; this change is not on disk, and is lost at a restart"
        assert [entry.getMessage() for entry in caplog.records] == [line, line]
        assert [keys for _, keys in w.store.attempts] == [[1, 2, 3, 4, 5, 2], [1], [2], [3], [4], [5], [2]]


async def test_Q13_a_store_that_fails_among_single_changes_is_asked_for_the_rest_again(autojump_clock: Clock) -> None:
    async with world() as w:
        fails = {(1, 2, 3, 4): BadChange("one of them"), (2,): StorageError("not now")}
        w.store.fails = lambda keys: fails.pop(tuple(keys), None)
        for write, key in ((w.write, 1), (w.write, 2), (w.ask, 3), (w.write, 4)):
            write(key)
        await trio.sleep(10)
        assert [keys for _, keys in w.store.attempts] == [[1, 2, 3, 4], [1], [2], [2, 4]]
        assert w.said == ["kept 1", "refused 3", "kept 2", "kept 4"]


async def test_trouble_is_logged_once_and_its_end_when_a_new_job_is_kept(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "iii_trio")
    async with world() as w:
        w.store.fails = lambda keys: StorageFull("no room") if 2 in keys else None
        for _ in range(3):
            w.ask(2)
            w.write(1)
            await trio.sleep(1)
        assert [entry.getMessage() for entry in caplog.records] == ["no room"], "removals are kept all the time"
        w.store.fails = lambda keys: StorageError("another") if 2 in keys else None
        w.ask(2)
        await trio.sleep(1)
        assert [entry.getMessage() for entry in caplog.records] == ["no room", "another"]
        w.ask(3)
        await trio.sleep(1)
        again = "the jobs in memory can be written to again"
        assert [entry.getMessage() for entry in caplog.records] == ["no room", "another", again]
        w.ask(3)
        await trio.sleep(1)
        assert len(caplog.records) == 3


async def test_trouble_that_cost_no_caller_ends_with_the_next_commit(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "iii_trio")
    async with world() as w:
        w.store.fails = lambda keys: StorageError("not now") if w.store.now < 2 else None
        w.write(1)
        await trio.sleep(10)
        lines = [entry.getMessage() for entry in caplog.records]
        assert lines == ["not now", "the jobs in memory can be written to again"]


async def test_a_store_that_breaks_is_a_storage_error_and_has_its_traceback(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as w:
        w.store.fails = lambda keys: ZeroDivisionError("odd") if 1 in keys else None
        with pytest.raises(CallError, match="the store failed"):
            await w.journal.written([Remove(1)])
        (line,) = caplog.records
        assert "ZeroDivisionError" in line.getMessage() and line.exc_info is not None
        assert isinstance(line.exc_info[1], ZeroDivisionError)


# --- tidying up


async def test_Q14_the_store_tidies_up_after_two_idle_seconds_until_it_is_done(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.untidy = 3
        await trio.sleep(1.9)
        w.write(1)
        await trio.sleep(1.9)
        assert w.store.tidied == []
        await trio.sleep(60)
        assert w.store.tidied == [3.9, 3.9, 3.9], "and never again without a change"
        w.write(2)
        await trio.sleep(60)
        assert len(w.store.tidied) == 4


async def test_tidying_up_stops_for_a_change(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.untidy, w.store.seconds = 5, 1.0
        await trio.sleep(2.5)
        w.write(1)
        await trio.sleep(1.6)
        assert w.store.tidied == [3.0] and w.said == ["kept 1"]
        await trio.sleep(60)
        assert len(w.store.tidied) == 5


async def test_a_store_that_cannot_tidy_up_is_logged_and_goes_on(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as w:
        tidied: list[float] = []

        def tidy() -> bool:
            tidied.append(w.store.now)
            raise StorageError("it is locked")

        monkeypatch.setattr(w.store, "tidy", tidy)
        await trio.sleep(60)
        assert tidied == [2.0] and [entry.getMessage() for entry in caplog.records] == ["it is locked"]
        w.write(1)
        await trio.sleep(60)
        assert len(tidied) == 2 and w.said == ["kept 1"]


# --- the end


async def test_what_waits_at_the_end_is_written(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.seconds = 1.0
        w.write(1)
        await trio.sleep(0.5)
        w.write(2)
    assert w.said == ["kept 1", "kept 2"] and w.store.now == 2.0


async def test_the_end_waits_no_longer_than_five_seconds_for_what_waits_and_tries_nothing_again(
    autojump_clock: Clock,
) -> None:
    async with world() as w:
        w.store.fails = lambda keys: StorageError("not now")
        w.write(1)
    assert w.store.now == 0 and len(w.store.attempts) <= 2
    async with world() as w:
        w.journal.write([], lambda: w.write(1))
        turn = w.journal._turn  # another use of the store does not end
        w.write(2)
        await settled()
        await turn.acquire()
        w.write(3)
        journal_scope = trio.CancelScope(deadline=trio.current_time() + 1)
        with journal_scope:
            await trio.sleep_forever()
        turn.release()
    assert "kept 3" in w.said


async def test_a_commit_that_has_begun_is_waited_for_and_answered(autojump_clock: Clock) -> None:
    async with world() as w:
        w.store.seconds = 30.0
        w.write(1)
        await trio.sleep(1)
    assert w.said == ["kept 1"] and w.store.now == 30.0


# --- reading


async def test_a_payload_is_fetched_or_there_is_none(autojump_clock: Clock) -> None:
    async with world() as w:
        MemoryStore.write(w.store, [Put(record(1, data=b"[1]"))])
        assert await w.journal.fetch(1) == Payload(b"[1]") and await w.journal.fetch(2) is None


async def test_changes_are_written_between_the_pieces_of_a_backup_and_its_end_is_seen_to(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as w:
        w.store.untidy = 1
        await trio.sleep(10)
        assert len(w.store.tidied) == 1
        closed: list[str] = []

        def backup() -> Generator[bytes, None, None]:
            try:
                yield from (b"a", b"", b"c")
            finally:
                closed.append("closed")

        monkeypatch.setattr(w.store, "backup", backup)
        taken: list[Any] = []

        async def take(piece: bytes) -> None:
            taken.append(piece)
            await w.journal.written([Remove(len(taken))])

        async def take_for_ever(piece: bytes) -> None:
            await trio.sleep_forever()

        await w.journal.backup(take)
        assert taken == [b"a", b"", b"c"] and closed == ["closed"] and len(w.store.attempts) == 3
        w.store.seconds = 1.0
        with trio.move_on_after(1.5):
            await w.journal.backup(take_for_ever)
        assert closed == ["closed"], "its first piece was never made"
        with trio.move_on_after(9):
            await w.journal.backup(take_for_ever)
        assert closed == ["closed", "closed"], "also if it is cancelled"
        tidied = len(w.store.tidied)
        await trio.sleep(60)
        assert len(w.store.tidied) == tidied + 1, "an idle store is tidied up after a backup"
