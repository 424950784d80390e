"""Stores of jobs: what any must do, and what is of SQLite's own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

import iii_trio
from iii_trio import EngineConfig, QueueConfig
from iii_trio.testing import check_job_store
from iii_trio.testing.job_stores import jobs_of, record
from iii_trio.triggers.queue import Change, MemoryStore, Put, Remember, StorageError, Update
from iii_trio.triggers.queue.record import Options
from iii_trio.triggers.queue.sqlite_schema import MIGRATIONS, migrate
from iii_trio.triggers.queue.sqlite_store import SqliteStore
from iii_trio.triggers.queue.store import Remove


def test_jobs_in_memory() -> None:
    store = MemoryStore()
    check_job_store(lambda: store)


def test_jobs_in_memory_that_end_with_their_store() -> None:
    check_job_store(MemoryStore, lasting=False)


def test_jobs_in_sqlite(tmp_path: Path) -> None:
    check_job_store(lambda: SqliteStore(tmp_path / "of" / "an" / "engine"))


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 80, 81, 130])
def test_any_number_of_jobs_is_kept_and_removed_in_one_commit(tmp_path: Path, count: int) -> None:
    plain = [record(key) for key in range(1, count + 1)]
    unusual = [record(key) for key in range(count + 1, 2 * count + 1)]
    for job in unusual[::2]:
        job.evolve(attempts=2, code="c")
    for job in unusual[1::2]:
        job.options = Options(priority=3, unique_key="k")
    store = SqliteStore(tmp_path)
    store.write([Put(job) for both in zip(plain, unusual, strict=True) for job in both])
    assert jobs_of(store) == [*plain, *unusual]
    kept = plain[: count // 2]
    store.write([Remove(job.key) for job in (*plain, *unusual) if job not in kept])
    assert jobs_of(store) == kept
    store.close()


class Forgetful:
    """A store with a defect."""

    def __init__(self, inner: MemoryStore, loses: type) -> None:
        self._inner, self._loses = inner, loses
        self.place = "memory"
        self.load, self.fetch, self.close = inner.load, inner.fetch, inner.close
        self.tidy = inner.tidy

    def write(self, changes: Sequence[Change]) -> None:
        self._inner.write([change for change in changes if not isinstance(change, self._loses)])


@pytest.mark.parametrize("loses", [Put, Update, Remember])
def test_a_store_that_loses_something_is_found_out(loses: type) -> None:
    inner = MemoryStore()
    with pytest.raises(AssertionError, match=r"expected|empty"):
        check_job_store(lambda: Forgetful(inner, loses))


def test_a_store_that_keeps_the_half_of_a_write_is_found_out() -> None:
    class Half(Forgetful):
        def write(self, changes: Sequence[Change]) -> None:
            for change in changes:
                if isinstance(change, Put) and change.record.id == "\ud800":
                    raise StorageError("no text")
                self._inner.write([change])

    inner = MemoryStore()
    with pytest.raises(AssertionError, match="nothing of a write that failed is there"):
        check_job_store(lambda: Half(inner, int))


# --- the file


def pragma(store: SqliteStore, name: str) -> object:
    return store.connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.parametrize(("setting", "level"), [("full", 2), ("normal", 1), ("off", 0)])
def test_the_disk_is_waited_for_as_configured(tmp_path: Path, setting: str, level: int) -> None:
    store = SqliteStore(tmp_path, synchronous=setting)  # type: ignore[arg-type]
    assert (pragma(store, "synchronous"), pragma(store, "journal_mode")) == (level, "wal")
    store.close()


def test_Q1_the_disk_is_waited_for_unless_told_otherwise(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    assert pragma(store, "synchronous") == 2  # FULL: each COMMIT waits for the disk, in WAL mode too
    store.close()


def test_a_file_has_the_version_of_its_schema(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    assert pragma(store, "user_version") == len(MIGRATIONS)
    store.close()


def test_an_older_file_is_brought_up_to_date_and_keeps_its_jobs(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.write([Put(record(1)), Remember("t", "n", "f", b"{}")])
    later = [
        *MIGRATIONS,
        "ALTER TABLE jobs ADD COLUMN weight INTEGER; UPDATE jobs SET weight = 1",
        "CREATE TABLE more (a)",
    ]
    migrate(store.connection, later, "here")
    assert pragma(store, "user_version") == len(MIGRATIONS) + 2
    assert store.connection.execute("SELECT id, weight FROM jobs").fetchall() == [("receipt-1", 1)]
    migrate(store.connection, later, "here")  # nothing is left to do
    store.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.write([Put(record(1))])
    with pytest.raises(sqlite3.OperationalError):
        migrate(store.connection, [*MIGRATIONS, "CREATE TABLE more (a); DROP TABLE jobs; NO SUCH WORD"], "here")
    assert pragma(store, "user_version") == len(MIGRATIONS)
    assert [job.id for job in jobs_of(store)] == ["receipt-1"]
    store.close()


async def refused(directory: Path) -> str:
    """What an engine says that cannot keep its jobs there: one sentence, in one exception."""
    with pytest.raises(StorageError) as caught:
        async with iii_trio.open_engine(EngineConfig(modules={"queue": QueueConfig(directory=str(directory))})):
            raise AssertionError("it runs")
    assert isinstance(caught.value, iii_trio.IIIError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_Q11_a_file_of_a_newer_version_is_refused_and_untouched(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.write([Put(record(1))])
    migrate(store.connection, [*MIGRATIONS, "CREATE TABLE more (a)"], "here")
    store.close()
    file = tmp_path / "queue.db"
    before = file.read_bytes()
    assert await refused(tmp_path) == (
        f"the jobs in {file} are of version {len(MIGRATIONS) + 1}, written by a newer iii-trio than this one, which knows "
        f"{len(MIGRATIONS)}; use the newer one, or "
        "name another directory (iii-trio: --data DIR; in a program: QueueConfig(directory=…))"
    )
    assert file.read_bytes() == before


async def test_Q11_a_database_of_another_program_is_refused_and_untouched(tmp_path: Path) -> None:
    file = tmp_path / "queue.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()
    before = file.read_bytes()
    assert await refused(tmp_path) == (
        f"{file} is a database of another program; "
        "name another directory (iii-trio: --data DIR; in a program: QueueConfig(directory=…))"
    )
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["queue.db"]


async def test_Q11_a_file_that_is_no_database_is_refused_and_untouched(tmp_path: Path) -> None:
    file = tmp_path / "queue.db"
    file.write_bytes(b"to do: buy milk\n" * 100)
    said = await refused(tmp_path)
    assert said.startswith(f"the jobs in {file} cannot be opened: file is not a database; move the file away")
    assert file.read_bytes() == b"to do: buy milk\n" * 100


@pytest.mark.parametrize("part", [0.1, 0.5])
async def test_Q11_a_damaged_file_is_told_in_a_sentence(tmp_path: Path, part: float) -> None:
    """In its first tables, seen when it is opened, or among the jobs, seen while they are loaded."""
    store = SqliteStore(tmp_path)
    store.write([Put(record(key, data=b'"' + b"x" * 900 + b'"')) for key in range(200)])
    store.close()
    file = tmp_path / "queue.db"
    content = file.read_bytes()
    whole = int(len(content) * part) // 4096 * 4096
    file.write_bytes(content[:whole] + b"\xaa" * (len(content) - whole))
    said = await refused(tmp_path)
    assert said.startswith(f"the jobs in {file} cannot be read: database disk image is malformed;")
    assert said.endswith("restore it from a copy, or move it away")


async def test_Q11_a_place_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert await refused(tmp_path / "file" / "jobs") == (
        f"jobs cannot be kept in {tmp_path / 'file' / 'jobs'}: Not a directory; "
        "name another directory (iii-trio: --data DIR; in a program: QueueConfig(directory=…))"
    )
    assert (await refused(tmp_path / "file")).startswith(f"jobs cannot be kept in {tmp_path / 'file'}: File exists")
