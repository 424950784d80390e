"""Jobs in an SQLite file: one transaction a commit, held by one engine at a time."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, final

import msgspec
from msgspec.structs import astuple

from .record import NEW, NORMAL_PRIORITY, PLAIN, RECORD_COLUMNS, Record
from .sqlite_files import DiskReserve, committed_frames, make_directory, make_file
from .sqlite_schema import COLUMNS, ELSEWHERE, MIGRATIONS, migrate, version_of
from .store import (
    Backlog,
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
_FEW_ROWS: Final = 16
_ROWS_AT_ONCE: Final = 500
_BACKUP_BYTES: Final = 256 * 1024  # a piece: below a millisecond where the file is in memory
_BACKUP_LOG_BYTES: Final = 256 * 1024 * 1024  # that the log may grow to while a backup is read

_MOVED: Final = (
    "position = ?, attempts = ?, lost = ?, due_ms = ?, pause_ms = ?, died_at_ms = ?, code = ?, message = ?, "
    "function_id = ?, namespace = ?"
)
_UPDATE: Final = f"UPDATE jobs SET {_MOVED} WHERE key = ?"
_SELECT: Final = f"SELECT {COLUMNS} FROM jobs WHERE key > ? AND key <= ? ORDER BY key LIMIT ?"
_LAST_REDRIVEN: Final = (
    "SELECT position FROM jobs WHERE position <> key AND typeof(position) = 'integer' ORDER BY position DESC LIMIT 1"
)
_SET_ASIDE: Final = f"INSERT INTO damaged_jobs ({COLUMNS}, problem) SELECT {COLUMNS}, ? FROM jobs WHERE key = ?"
_ROWS: Any = list[tuple[
    int, int, str, str, str, str, bytes, int, str | None, str | None, str | None, bytes | None,
    int, int, int | None, int | None, int | None, str | None, str | None,
    int, str | None, int | None, int | None,
]]  # fmt: skip
"""The types of `COLUMNS`, for many rows, because each use of a type has msgspec take it apart again."""


@functools.cache
def _put(rows: int) -> str:
    row = f"({', '.join('?' * len(COLUMNS.split()))})"
    return f"INSERT INTO jobs ({COLUMNS}) VALUES {', '.join([row] * rows)}"


@functools.cache
def _put_new(rows: int) -> str:
    """Return the statement for jobs without progress and options. The columns that it leaves out are null."""
    columns = COLUMNS.split(", ")[:RECORD_COLUMNS]
    row = f"({', '.join('?' * len(columns))}, 0, 0, {NORMAL_PRIORITY})"
    return f"INSERT INTO jobs ({', '.join(columns)}, attempts, lost, priority) VALUES {', '.join([row] * rows)}"


@functools.cache
def _remove(rows: int) -> str:
    return f"DELETE FROM jobs WHERE key IN ({', '.join('?' * rows)})"


def _chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split rows into chunks of few sizes, so that SQLite knows their statements already. Few rows are one chunk."""
    at, size = 0, _MAX_ROWS
    while (left := len(rows) - at) > _FEW_ROWS:
        while size > left:
            size //= 2
        yield rows[at : at + size]
        at += size
    if left:
        yield rows[at:]


def _statements(changes: Sequence[Change]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Return the statements for these changes. They are few, because behind each a busy event loop may run first."""
    new: list[Record] = []
    others: list[Record] = []
    removed: list[int] = []
    rest: list[Change] = []
    for change in changes:
        if type(change) is Put:
            record = change.record
            (new if record.progress is NEW and record.options is PLAIN else others).append(record)
        elif type(change) is Remove:
            removed.append(change.key)
        else:
            rest.append(change)
    for records in _chunks(new):
        values: list[Any] = []
        for record in records:
            values += astuple(record)[:RECORD_COLUMNS]
        yield _put_new(len(records)), values
    for records in _chunks(others):
        yield _put(len(records)), [value for record in records for value in record.columns]
    for change in rest:
        match change:
            case Update(record):
                columns = record.position, *astuple(record.progress), record.function_id, record.namespace, record.key
                yield _UPDATE, columns
            case Remember():
                yield "INSERT OR REPLACE INTO subscribers VALUES (?, ?, ?, ?, ?)", astuple(change)
            case Forget():
                yield "DELETE FROM subscribers WHERE topic = ? AND namespace = ? AND function_id = ?", astuple(change)
            case SaveLane():
                yield "INSERT OR REPLACE INTO lanes VALUES (?, ?)", astuple(change)
            case ForgetLane(lane):
                yield "DELETE FROM lanes WHERE lane = ?", (lane,)
            case SetAside(key, problem):
                yield _SET_ASIDE, (problem, key)
                removed.append(key)
    for keys in _chunks(removed):
        yield _remove(len(keys)), keys


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
        self._frozen = False
        """Whether a backup is under way."""
        self._descriptor: int | None = None
        """For backups. It stays open as long as the connection, because closing any descriptor of the file would end the
        locks of SQLite on it (https://sqlite.org/howtocorrupt.html, section 2.2)."""
        self._checkpoint_pages = 0
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
            backlog = self._backlog()
            subscribers = self.connection.execute(
                "SELECT topic, namespace, function_id, config, away_since_ms FROM subscribers"
            )
            lanes = self.connection.execute("SELECT lane, settings FROM lanes")
            return Loaded(
                _Jobs(self, backlog.last),
                [Remember(*row) for row in subscribers.fetchall()],
                [_lane(*row) for row in lanes.fetchall() if isinstance(row[0], str)],
                list(self._warnings),
                backlog,
            )

    def write(self, changes: Sequence[Change]) -> None:
        """As `Store.write`."""
        self._check_files()
        if self._frozen and self._wal.stat().st_size > _BACKUP_LOG_BYTES:
            self._thaw()
        puts = size = 0
        for change in changes:
            if type(change) is Put:
                record = change.record
                puts += 1
                size += len(record.data or b"") + len(record.metadata or b"")
        if puts:
            self._check_room(size)
        try:
            self._write(changes)
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
                    self._empty_log()
                self._write(changes[at : at + _FEW_CHANGES])

    def fetch(self, keys: Sequence[int]) -> dict[int, Payload]:
        """As `Store.fetch`."""
        with self._telling("read"):
            found = {}
            for key in keys:
                row = self.connection.execute("SELECT data, metadata FROM jobs WHERE key = ?", (key,)).fetchone()
                if row is not None and isinstance(row[0], bytes) and isinstance(row[1], bytes | None):
                    found[key] = Payload(*row)
            return found

    def backup(self) -> Generator[bytes, None, None]:
        """As `Store.backup`: the file itself, which no checkpoint changes meanwhile. New commits go to the log only.

        The log is bounded. A backup that is read too slowly is cut then, and so is one on a disk that becomes full.
        """
        self._check_files()
        if self._frozen:
            raise StorageError("there is a backup under way already; wait for its end")
        with self._telling("read"):
            busy, _, _ = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise StorageError(f"the write-ahead log of {self.path} cannot be emptied just now; try again")
            self.connection.execute("PRAGMA wal_autocheckpoint = 0")
        self._frozen = True
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            size = os.fstat(self._descriptor).st_size
            for at in range(0, size, _BACKUP_BYTES):
                piece = os.pread(self._descriptor, min(_BACKUP_BYTES, size - at), at)
                if not self._frozen:
                    raise StorageError("the backup was cut, because the write-ahead log had to be emptied meanwhile")
                yield piece
        except OSError as error:
            raise StorageError(f"the jobs in {self.path} cannot be read: {error.strerror}") from None
        finally:
            self._thaw()

    def _thaw(self) -> None:
        """Let checkpoints change the file again."""
        if self._frozen:
            self._frozen = False
            with contextlib.suppress(sqlite3.Error):  # a store that is closed has no checkpoints
                self.connection.execute(f"PRAGMA wal_autocheckpoint = {self._checkpoint_pages}")

    def tidy(self) -> bool:
        """As `Store.tidy`: give free pages back to the disk, and empty the write-ahead log."""
        self._check_files()
        if self._frozen:
            return False
        with self._telling("written to"):
            (free,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        if free > _FREE_PAGES:
            self._shrink(_VACUUM_PAGES)
            return True
        with self._telling("written to"):
            self._empty_log()
        self._reserve.take()
        return False

    def _empty_log(self) -> None:
        """Write the log into the file, and cut the log to nothing. A backup that is under way is cut."""
        self._thaw()
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _shrink(self, pages: int) -> None:
        """Give so many free pages of the file back to the disk."""
        with self._telling("written to"):
            self._empty_log()
            # It is a step for each page. `execute` would take the first one only, because they have no columns.
            self.connection.executescript(f"PRAGMA incremental_vacuum({pages})")
            self._empty_log()

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
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if unused and _identity(self.path) == self._identity:
            for path in (self.path, self._wal, self.path.with_name(f"{FILE}-shm")):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for directory in self._made_directories:
                    directory.rmdir()

    def _backlog(self) -> Backlog:
        """Count the jobs without reading their data. A million takes some tenths of a second."""
        execute = self.connection.execute
        (last,) = execute("SELECT max(key) FROM jobs").fetchone()
        redriven = execute(_LAST_REDRIVEN).fetchone()
        counts = Counter(dict(execute("SELECT lane, count(*) FROM jobs GROUP BY lane").fetchall()))
        counts.subtract(
            dict(execute("SELECT lane, count(*) FROM jobs WHERE died_at_ms IS NOT NULL GROUP BY lane").fetchall())
        )
        # SQLite checks no types, so a damaged file may have any.
        unfinished = {lane: count for lane, count in counts.items() if isinstance(lane, str) and count > 0}
        return Backlog(max(last or 0, 0 if redriven is None else redriven[0]), unfinished)

    def records(self, after: int, last: int) -> list[Record | Damaged]:
        """Return some records with keys from `after + 1` to `last`, in their order, or none if there is none."""
        with self._telling("read"):
            rows = self.connection.execute(_SELECT, (after, last, _ROWS_AT_ONCE)).fetchall()
        return _checked(rows) if rows else []

    def _write(self, changes: Sequence[Change]) -> None:
        execute = self.connection.execute
        with self._telling("written to"):
            execute("BEGIN IMMEDIATE")
            try:
                for statement, values in _statements(changes):
                    execute(statement, values)
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
        self._checkpoint_pages = min(_CHECKPOINT_PAGES, self._reserve.size // 4 // _PAGE_BYTES)
        execute(f"PRAGMA wal_autocheckpoint = {self._checkpoint_pages}")
        execute("BEGIN EXCLUSIVE")
        execute("COMMIT")
        if frames:
            self._check_log(frames)
        migrate(self.connection, MIGRATIONS, str(self.path))
        if version < len(MIGRATIONS):
            self._empty_log()

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
        if _identity(self.path) != self._identity or _identity(self._wal) is None:
            raise StorageError(
                f"the jobs in {self.path} cannot be written to: its files were removed or replaced while the engine runs; "
                "start the engine again"
            )

    def _check_room(self, size: int) -> None:
        """Raise StorageFull if new jobs with so many bytes of data would leave no room for the ends of jobs."""
        if self._reserve.size < 2 * _COMMIT_BYTES:
            return  # a very small disk, or one that does not tell its size
        if self._has_room(size):
            return
        self._thaw()
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


@final
class _Jobs:
    """The jobs of a store. Each piece is read by a statement of its own, so that commits may come between."""

    def __init__(self, store: SqliteStore, last: int) -> None:
        self._store = store
        self._after = -(2**63)
        self._last = last

    def __iter__(self) -> Iterator[Record | Damaged]:
        while records := self._store.records(self._after, self._last):
            for record in records:
                self._after = record.key
                yield record


def _checked(rows: Sequence[Any]) -> list[Record | Damaged]:
    """Return the records of these rows. SQLite checks no types, so a damaged file may have any."""
    try:
        return [Record.from_columns(row) for row in msgspec.convert(rows, _ROWS, builtin_types=(bytes,))]
    except msgspec.ValidationError as error:
        if len(rows) == 1:
            return [Damaged(rows[0][0], _named(str(error)))]
    return [one for row in rows for one in _checked([row])]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _named(problem: str) -> str:
    """Name the column in a message of msgspec (`Expected `int`, got `str` - at `$[0][1]``)."""
    for number, name in enumerate(COLUMNS.split(", ")):
        problem = problem.replace(f"`$[0][{number}]`", f"column {name}")
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
