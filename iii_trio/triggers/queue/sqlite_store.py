"""Jobs in an SQLite file: one transaction a commit, held by one engine at a time."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, final

import msgspec
from msgspec.structs import astuple

from .record import Record
from .sqlite_files import DiskReserve, committed_frames, make_directory, make_file
from .sqlite_schema import COLUMNS, ELSEWHERE, MIGRATIONS, migrate, version_of
from .store import (
    BadChange,
    Change,
    Damaged,
    Forget,
    ForgetLane,
    Loaded,
    Payload,
    Put,
    Remember,
    Remove,
    SaveLane,
    SetAside,
    StorageError,
    StorageFull,
    Update,
)

T = TypeVar("T")
FILE: Final = "queue.db"
_LOG_BYTES: Final = 16 * 1024 * 1024  # the size that the write-ahead log is cut back to
_PAGE_BYTES: Final = 4096
_CHECKPOINT_PAGES: Final = 1000
_COMMIT_BYTES: Final = 256 * 1024  # of a commit beside its data
_FEW_CHANGES: Final = 16  # a transaction on a full disk
_FEW_PAGES: Final = 64
_VACUUM_PAGES: Final = 1024  # a step: some hundredths of a second
_FREE_PAGES: Final = 256  # that a file may keep
_MAX_ROWS: Final = 64

_MOVED: Final = (
    "position = ?, attempts = ?, lost = ?, due_ms = ?, pause_ms = ?, died_at_ms = ?, code = ?, message = ?, "
    "function_id = ?, namespace = ?"
)
_UPDATE: Final = f"UPDATE jobs SET {_MOVED} WHERE key = ?"
_SET_ASIDE: Final = f"INSERT INTO damaged_jobs ({COLUMNS}, problem) SELECT {COLUMNS}, ? FROM jobs WHERE key = ?"
_ROW: Any = tuple[
    int, int, str, str, str, str, bytes, int, str | None, str | None, str | None, bytes | None,
    int, int, int | None, int | None, int | None, str | None, str | None,
    int, str | None, int | None, int | None,
]  # fmt: skip
"""The types of `COLUMNS`. SQLite checks none of them."""


@functools.cache
def _put(rows: int) -> str:
    row = f"({', '.join('?' * len(COLUMNS.split()))})"
    return f"INSERT INTO jobs ({COLUMNS}) VALUES {', '.join([row] * rows)}"


@functools.cache
def _remove(rows: int) -> str:
    return f"DELETE FROM jobs WHERE key IN ({', '.join('?' * rows)})"


def _chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split rows into chunks of few sizes, powers of two, so that SQLite knows their statements already."""
    at, size = 0, _MAX_ROWS
    while at < len(rows):
        while size > len(rows) - at:
            size //= 2
        yield rows[at : at + size]
        at += size


@final
class SqliteStore:
    """A store in `directory`, which is made for this user only if it is not there. Blocks.

    Raises StorageError where it cannot be used: another engine has it, it is of a newer version, or it is not writable.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, synchronous: Literal["full", "normal", "off"] = "full"
    ) -> None:
        self.path = Path(directory) / FILE
        self._wal = self.path.with_name(f"{FILE}-wal")
        self._warnings: list[str] = []
        self._made_directories: list[Path] = []
        self._made_file = False
        try:
            self._made_directories = make_directory(self.path.parent)
            # SQLite would call it an I/O error, or notice it at the first job.
            for needed in (self.path.parent, self.path):
                if needed.exists() and not os.access(needed, os.W_OK):
                    raise StorageError(
                        f"jobs cannot be kept in {directory}: {needed} may not be written; {_MENDS[_READONLY]}"
                    )
            self._made_file = make_file(self.path)
            self._reserve = DiskReserve(self.path.parent)
        except OSError as error:
            raise StorageError(f"jobs cannot be kept in {directory}: {error.strerror}; {ELSEWHERE}") from None
        self._identity = _identity(self.path)
        frames = committed_frames(self._wal)
        if self._reserve.was_there and not self._made_file and not self._wal.exists():
            self._warn("is missing, although the last engine did not close it")
        # The thread that calls may change, but there is one at a time.
        with self._telling("opened"):
            self.connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0)
        try:
            with self._telling("opened"):
                self._open(synchronous, frames)
        except BaseException:
            self._close_connection()
            raise
        self._reserve.take()

    @property
    def place(self) -> str:
        """As `Store.place`."""
        return str(self.path)

    def load(self) -> Loaded:
        """As `Store.load`."""
        with self._telling("read"):
            rows = self.connection.execute(f"SELECT {COLUMNS} FROM jobs ORDER BY position")
            subscribers = self.connection.execute(
                "SELECT topic, namespace, function_id, config, away_since_ms FROM subscribers"
            )
            lanes = self.connection.execute("SELECT lane, settings FROM lanes")
            return Loaded(
                self._records(rows),
                [Remember(*row) for row in subscribers.fetchall()],
                [_lane(*row) for row in lanes.fetchall() if isinstance(row[0], str)],
                list(self._warnings),
            )

    def write(self, changes: Sequence[Change]) -> None:
        """As `Store.write`."""
        self._check_files()
        puts = [change.record for change in changes if type(change) is Put]
        if puts:
            self._check_room(puts)
        try:
            self._write(changes, puts)
        except StorageFull as error:
            if puts:
                raise StorageError(str(error)) from None
            # The disk is full, and jobs have ended: the reserve is for this. The log is emptied first, because it would
            # take the space that the file needs to grow by the pages in it.
            self._reserve.release()
            # In small transactions, because a large one may not fit. A part that is written before another one fails does
            # no harm: these changes are written again, and have the same effect twice as once.
            for at in range(0, len(changes), _FEW_CHANGES):
                with contextlib.suppress(sqlite3.Error):
                    self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                self._write(changes[at : at + _FEW_CHANGES], ())

    def fetch(self, keys: Sequence[int]) -> dict[int, Payload]:
        """As `Store.fetch`."""
        with self._telling("read"):
            found = {}
            for key in keys:
                row = self.connection.execute("SELECT data, metadata FROM jobs WHERE key = ?", (key,)).fetchone()
                if row is not None and isinstance(row[0], bytes) and isinstance(row[1], bytes | None):
                    found[key] = Payload(*row)
            return found

    def tidy(self) -> bool:
        """As `Store.tidy`: give free pages back to the disk, and empty the write-ahead log."""
        self._check_files()
        with self._telling("written to"):
            (free,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        if free > _FREE_PAGES:
            self._shrink(_VACUUM_PAGES)
            return True
        with self._telling("written to"):
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._reserve.take()
        return False

    def _shrink(self, pages: int) -> None:
        """Give so many free pages of the file back to the disk."""
        with self._telling("written to"):
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            # It is a step for each page. `execute` would take the first one only, because they have no columns.
            self.connection.executescript(f"PRAGMA incremental_vacuum({pages})")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """As `Store.close`. A file that this store has made, and that has nothing in it, is removed again."""
        self._reserve.remove()  # first, because the log of a store that is not closed must not be missing
        self._close_connection()

    # --- inside

    def _close_connection(self) -> None:
        unused = False
        if self._made_file:
            with contextlib.suppress(sqlite3.Error):
                parts = " UNION ALL ".join(
                    f"SELECT 1 FROM {table}" for table in ("jobs", "subscribers", "lanes", "damaged_jobs")
                )
                (tables,) = self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                unused = not tables or self.connection.execute(f"{parts} LIMIT 1").fetchone() is None
        self.connection.close()
        if unused and _identity(self.path) == self._identity:
            for path in (self.path, self._wal, self.path.with_name(f"{FILE}-shm")):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for directory in self._made_directories:
                    directory.rmdir()

    def _records(self, rows: sqlite3.Cursor) -> Iterator[Record | Damaged]:
        with self._telling("read"):
            for row in rows:
                try:
                    yield Record(*msgspec.convert(row, _ROW, builtin_types=(bytes,)))
                except msgspec.ValidationError as error:
                    yield Damaged(row[0], _named(str(error)))

    def _write(self, changes: Sequence[Change], puts: Sequence[Record]) -> None:
        # Few statements: behind each, a busy event loop may have the interpreter first.
        execute = self.connection.execute
        with self._telling("written to"):
            execute("BEGIN IMMEDIATE")
            try:
                for records in _chunks(puts):
                    execute(_put(len(records)), [value for record in records for value in astuple(record)])
                for change in changes:
                    match change:
                        case Update(record):
                            execute(_UPDATE, (
                                record.position, record.attempts, record.lost, record.due_ms, record.pause_ms,
                                record.died_at_ms, record.code, record.message, record.function_id,
                                record.namespace, record.key,
                            ))  # fmt: skip
                        case Remember():
                            execute("INSERT OR REPLACE INTO subscribers VALUES (?, ?, ?, ?, ?)", astuple(change))
                        case Forget():
                            execute(
                                "DELETE FROM subscribers WHERE topic = ? AND namespace = ? AND function_id = ?",
                                astuple(change),
                            )
                        case SaveLane():
                            execute("INSERT OR REPLACE INTO lanes VALUES (?, ?)", astuple(change))
                        case ForgetLane(lane):
                            execute("DELETE FROM lanes WHERE lane = ?", (lane,))
                        case SetAside(key, problem):
                            execute(_SET_ASIDE, (problem, key))
                for keys in _chunks([change.key for change in changes if isinstance(change, Remove | SetAside)]):
                    execute(_remove(len(keys)), keys)
                execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # a full disk may have ended it already
                    execute("ROLLBACK")
                raise

    def _open(self, synchronous: str, frames: int) -> None:
        execute = self.connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")  # until it is closed, or its process is killed
        version = version_of(self.connection, MIGRATIONS, str(self.path))  # before anything of it is changed
        if not version:
            execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect in an empty file only
        execute("PRAGMA journal_mode = WAL")
        execute(f"PRAGMA synchronous = {synchronous}")
        # A checkpoint and the ends of jobs must fit into the reserve, also where the disk is small.
        execute(f"PRAGMA journal_size_limit = {min(_LOG_BYTES, 2 * self._reserve.size)}")
        execute(f"PRAGMA wal_autocheckpoint = {min(_CHECKPOINT_PAGES, self._reserve.size // 4 // _PAGE_BYTES)}")
        execute("BEGIN EXCLUSIVE")
        execute("COMMIT")
        if frames:
            self._check_log(frames)
        migrate(self.connection, MIGRATIONS, str(self.path))
        if version < len(MIGRATIONS):
            execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _check_log(self, frames: int) -> None:
        """Compare the pages of the log that SQLite has recovered with those that it should have."""
        self._reserve.release()  # it is taken again when the store is open
        try:
            _, recovered, _ = self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.OperationalError:
            return  # there is no room to find out, and none is needed to go on
        if frames > max(0, recovered):
            self._warn(f"is damaged: {frames - max(0, recovered)} of its {frames} pages cannot be recovered")

    def _warn(self, problem: str) -> None:
        self._warnings.append(
            f"the write-ahead log of {self.path} {problem}; jobs that were acknowledged last may be missing"
        )

    def _check_files(self) -> None:
        """Raise StorageError if the files are not those that were opened. SQLite would go on writing to removed ones."""
        if _identity(self.path) != self._identity or not self._wal.exists():
            raise StorageError(
                f"the jobs in {self.path} cannot be written to: its files were removed or replaced while the engine runs; "
                "start the engine again"
            )

    def _check_room(self, puts: Sequence[Record]) -> None:
        """Raise StorageFull if new jobs would leave no room for the ends of jobs."""
        size = sum(len(record.data or b"") + len(record.metadata or b"") for record in puts)
        if self._reserve.size < 2 * _COMMIT_BYTES:
            return  # a very small disk, or one that does not tell its size
        if self._has_room(size):
            return
        # Jobs that have ended may have left room in the file. Moving it to its end takes some room in the log.
        with self._telling("read"):
            (pages,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        if pages > _FEW_PAGES:
            self._reserve.release()
            with contextlib.suppress(StorageError):
                self._shrink(_FEW_PAGES)
        if not self._has_room(size):
            raise StorageFull(
                f"the disk of {self.path} has no room for new jobs: the rest is kept for the ends of those that are there; "
                "make room on its disk"
            )

    def _has_room(self, size: int) -> bool:
        """Whether data of this size can be kept without the reserve."""
        if not self._reserve.take():
            return False
        # It is written to the log first and to the file later, and the log may have more that is to be written there.
        logged = min(self._wal.stat().st_size, _LOG_BYTES)
        free = self._reserve.free_bytes()
        if free < 2 * size + _COMMIT_BYTES + logged:
            with self._telling("read"):
                (pages,) = self.connection.execute("PRAGMA freelist_count").fetchone()
            if free < size + _COMMIT_BYTES + max(0, size + logged - pages * _PAGE_BYTES):
                return False
        return True

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Raise SQLite's errors as StorageError, in words that name the file and the mend."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", "")
            if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StorageError(f"the jobs in {self.path} are in the hands of another engine; {ELSEWHERE}") from None
            family = "_".join(code.split("_")[:2])
            mend = _MENDS.get(family, ELSEWHERE)
            raise _KINDS.get(family, StorageError)(
                f"the jobs in {self.path} cannot be {what}: {error}; {mend}"
            ) from None
        except (UnicodeError, OverflowError) as error:  # a value that SQLite has no place for
            raise BadChange(f"the jobs in {self.path} cannot be {what}: {error}") from None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _named(problem: str) -> str:
    """Name the column in a message of msgspec (`Expected `int`, got `str` - at `$[1]``)."""
    for number, name in enumerate(COLUMNS.split(", ")):
        problem = problem.replace(f"`$[{number}]`", f"column {name}")
    return problem


_READONLY: Final = "SQLITE_READONLY"
_MENDS: Final = {
    "SQLITE_FULL": "make room on its disk",
    _READONLY: f"make it writable, or {ELSEWHERE}",
    "SQLITE_CANTOPEN": f"make its directory writable, or {ELSEWHERE}",
    "SQLITE_IOERR": "see to its disk",
    "SQLITE_NOTADB": f"move the file away, or {ELSEWHERE}",
    "SQLITE_CORRUPT": "restore it from a copy, or move it away",
}
_KINDS: Final = {
    "SQLITE_FULL": StorageFull,
    "SQLITE_IOERR": StorageFull,  # a full disk may be one, too; the reserve does no harm elsewhere
    "SQLITE_TOOBIG": BadChange,
    "SQLITE_MISMATCH": BadChange,
    "SQLITE_CONSTRAINT": BadChange,
}


def _lane(lane: str, settings: object) -> SaveLane:
    """Return the settings of a lane. Damaged ones, such as a number, are read as none."""
    return SaveLane(lane, settings if isinstance(settings, bytes) else b"null")
