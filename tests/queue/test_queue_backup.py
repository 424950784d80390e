"""Backups of a running engine: whole, of one moment, and no burden to the jobs that come meanwhile (Q32)."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock as Clock

import iii_trio
from iii_trio import CallError, EngineConfig, QueueConfig, Queues, QueueSettings, enqueue
from iii_trio.testing.job_stores import record
from iii_trio.triggers.queue import Put, Remove, StorageError, check_backup, sqlite_store
from iii_trio.triggers.queue.sqlite_store import SqliteStore
from tests.helpers.queue_world import queueing


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with a hundred jobs of 10 kB each, so that its file has several pieces."""
    with closing(SqliteStore(tmp_path / "jobs", synchronous="off")) as store:
        store.write([Put(record(key, data=b'"' + b"x" * 10_000 + b'"')) for key in range(1, 101)])
        yield store


def keys(path: Path) -> list[int]:
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM jobs ORDER BY key")]


def test_Q32_a_backup_is_of_one_moment_whatever_is_written_meanwhile(store: SqliteStore, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    pieces = store.backup()
    with copy.open("wb") as file:
        file.write(next(pieces))
        store.write([Put(record(101)), Remove(7), Remove(100)])
        rest = list(pieces)
        assert len(rest) > 1
        file.writelines(rest)
    assert check_backup(copy) == 100
    assert keys(copy) == list(range(1, 101))
    assert not list(tmp_path.glob("copy-*")), "the check leaves no files"
    assert [job.key for job in store.load().jobs] == [*range(1, 7), *range(8, 100), 101]


def test_Q32_a_backup_starts_an_engine(store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "queue.db").write_bytes(b"".join(store.backup()))
    with closing(SqliteStore(tmp_path / "new")) as other:
        assert [job.key for job in other.load().jobs] == list(range(1, 101))
        assert other.load().warnings == []


def test_Q32_checkpoints_come_back_after_a_backup_also_after_one_that_is_given_up(store: SqliteStore) -> None:
    def pages() -> int:
        (found,) = store.connection.execute("PRAGMA wal_autocheckpoint").fetchone()
        return int(found)

    before = pages()
    assert before > 0
    given_up = store.backup()
    next(given_up)
    assert pages() == 0, "a checkpoint would change the file that is read"
    assert store.tidy() is False and pages() == 0, "tidying up waits"
    with pytest.raises(StorageError, match="under way already"):
        next(store.backup())
    given_up.close()
    assert pages() == before
    assert len(list(store.backup())) > 1
    assert pages() == before


def test_Q32_a_backup_that_is_read_too_slowly_is_cut_and_the_log_stays_bounded(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "_BACKUP_LOG_BYTES", 100_000)
    pieces = store.backup()
    next(pieces)
    for key in range(200, 220):
        store.write([Put(record(key, data=b'"' + b"y" * 10_000 + b'"'))])
    with pytest.raises(StorageError, match="cut"):
        next(pieces)
    (found,) = store.connection.execute("PRAGMA wal_autocheckpoint").fetchone()
    assert found > 0


def test_Q32_the_file_stays_locked_after_a_backup(store: SqliteStore) -> None:
    list(store.backup())
    # Another process, because a process cannot see its own locks.
    code = "import sys; from iii_trio.triggers.queue.sqlite_store import SqliteStore; SqliteStore(sys.argv[1])"
    other = subprocess.run([sys.executable, "-c", code, str(store.path.parent)], capture_output=True, text=True)
    assert other.returncode == 1 and "another engine" in other.stderr


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda data: b"", "empty"),
        (lambda data: data[: len(data) // 2], "damaged|malformed"),
        (lambda data: b"x" * 5000, "cannot be read"),
    ],
)
def test_Q32_a_copy_that_is_not_whole_is_found_by_the_check(
    store: SqliteStore, tmp_path: Path, damage: object, problem: str
) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(damage(b"".join(store.backup())))  # type: ignore[operator]
    with pytest.raises(StorageError, match=problem):
        check_backup(copy)


def test_Q32_a_database_of_another_program_is_no_backup(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE jobs (key)")
        connection.commit()
    with pytest.raises(StorageError, match="another program"):
        check_backup(tmp_path / "other")


@asynccontextmanager
async def on_disk(directory: Path) -> AsyncIterator[iii_trio.Worker]:
    """A worker of an engine whose jobs are on disk, with a paused queue `mail`."""
    queue = QueueConfig(queues={"mail": QueueSettings()}, directory=str(directory), synchronous="off")
    config = EngineConfig(modules={"queue": queue})
    async with iii_trio.open_engine(config) as engine, engine.open_worker("operator") as worker:
        await Queues(worker).pause("mail")
        yield worker


async def test_Q32_jobs_are_taken_while_a_backup_is_read_and_are_not_in_it(tmp_path: Path) -> None:
    pieces: list[bytes] = []
    async with on_disk(tmp_path / "jobs") as worker:
        for _ in range(30):
            await worker.trigger("f", "x" * 30_000, action=enqueue("mail"))

        async def take(piece: bytes) -> None:
            pieces.append(piece)
            await worker.trigger("f", 1, action=enqueue("mail"))  # its receipt comes while the backup waits

        size = await Queues(worker).backup(take)
        [row] = [row for row in await Queues(worker).list() if row["name"] == "mail"]
        assert row["depth"] == 30 + len(pieces)
        assert len(pieces) > 1 and size == sum(map(len, pieces))
    copy = tmp_path / "copy"
    copy.write_bytes(b"".join(pieces))
    assert check_backup(copy) == 30


async def test_Q32_a_backup_that_its_reader_gives_up_leaves_the_queue_whole(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    async with on_disk(tmp_path / "jobs") as worker:
        for _ in range(60):
            await worker.trigger("f", "x" * 30_000, action=enqueue("mail"))

        async def take(piece: bytes) -> None:
            raise Enough

        with pytest.raises(Enough):
            await Queues(worker).backup(take)
        found: list[bytes] = []

        async def keep(piece: bytes) -> None:
            found.append(piece)

        with trio.fail_after(20):
            while True:  # the engine learns of the reader's end a moment later
                try:
                    await Queues(worker).backup(keep)
                except CallError as error:
                    assert "under way" in error.message
                    found.clear()
                    await trio.sleep(0.01)
                else:
                    break
    copy = tmp_path / "copy"
    copy.write_bytes(b"".join(found))
    assert check_backup(copy) == 60


async def test_Q32_jobs_in_memory_have_no_backup_and_the_answer_says_why(autojump_clock: Clock) -> None:
    async def take(piece: bytes) -> None:
        raise AssertionError("there is nothing to take")

    async with queueing() as engine, engine.open_worker("operator") as worker:
        with pytest.raises(CallError, match=r"storage_failed: the jobs are in memory.*--data DIR"):
            await Queues(worker).backup(take)


def test_Q32_the_files_mode_is_private(tmp_path: Path) -> None:
    from iii_trio.cli.exits import UsageError
    from iii_trio.cli.files import Sink

    async def write(overwrite: bool) -> None:
        with closing(await Sink.open(str(tmp_path / "b"), private=True, overwrite=overwrite)) as sink:
            await sink.write(b"data")
            await sink.keep()

    old = os.umask(0)
    try:
        trio.run(write, False)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="there already"):
        trio.run(write, False)
    (tmp_path / "b").chmod(0o644)
    trio.run(write, True)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
