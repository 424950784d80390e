"""Jobs in an SQLite file: one transaction a commit, held by one engine at a time."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, TypeVar, final

from msgspec.structs import astuple

from .record import Record
from .store import Change, Forget, Loaded, Put, Remember, Remove, StorageError, Update

T = TypeVar("T")
FILE: Final = "queue.db"
_APPLICATION: Final = 0x69696971  # "iiiq"
_LOG_BYTES: Final = 16 * 1024 * 1024  # what the write-ahead log is cut back to

MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE jobs (
        key INTEGER PRIMARY KEY, position INTEGER NOT NULL, id TEXT NOT NULL, lane TEXT NOT NULL,
        function_id TEXT NOT NULL, namespace TEXT NOT NULL, data BLOB, created_at_ms INTEGER NOT NULL,
        job_group TEXT, traceparent TEXT, baggage TEXT, metadata BLOB, attempts INTEGER NOT NULL, lost INTEGER NOT NULL,
        due_ms INTEGER, died_at_ms INTEGER, code TEXT, message TEXT
    );
    CREATE TABLE subscribers (
        topic TEXT NOT NULL, namespace TEXT NOT NULL, function_id TEXT NOT NULL, config BLOB NOT NULL,
        PRIMARY KEY (topic, namespace, function_id)
    );
    """,
)
"""Each makes the next version of the schema out of the one before; `PRAGMA user_version` counts them."""

_COLUMNS: Final = (
    "key, position, id, lane, function_id, namespace, data, created_at_ms, job_group, traceparent, baggage, metadata, "
    "attempts, lost, due_ms, died_at_ms, code, message"
)
_MOVED: Final = "position = ?, attempts = ?, lost = ?, due_ms = ?, died_at_ms = ?, code = ?, message = ?"
_UPDATE: Final = f"UPDATE jobs SET {_MOVED} WHERE key = ?"


_MAX_ROWS: Final = 64


@functools.cache
def _put(rows: int) -> str:
    row = f"({', '.join('?' * 18)})"
    return f"INSERT INTO jobs ({_COLUMNS}) VALUES {', '.join([row] * rows)}"


@functools.cache
def _remove(rows: int) -> str:
    return f"DELETE FROM jobs WHERE key IN ({', '.join('?' * rows)})"


def _chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """The rows in chunks of few sizes, powers of two, so that their statements are known already."""
    at, size = 0, _MAX_ROWS
    while at < len(rows):
        while size > len(rows) - at:
            size //= 2
        yield rows[at : at + size]
        at += size


@final
class SqliteStore:
    """A store in `directory`, which is made if it is not there.

    Raises StorageError where it cannot be used: it is another engine's, of a newer version, or not writable. Blocks.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, synchronous: Literal["full", "normal", "off"] = "full"
    ) -> None:
        self.path = Path(directory) / FILE
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"jobs cannot be kept in {directory}: {error.strerror}; {_ELSEWHERE}") from None
        for needed in (
            self.path.parent,
            self.path,
        ):  # SQLite would say that of an I/O error, or not before the first job
            if needed.exists() and not os.access(needed, os.W_OK):
                raise StorageError(
                    f"jobs cannot be kept in {directory}: {needed} may not be written; {_MENDS[_READONLY]}"
                )
        # Whoever runs this module calls from one thread at a time, but not always from the same.
        with self._telling("opened"):
            self.connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0)
        try:
            with self._telling("opened"):
                self._open(synchronous)
        except BaseException:
            self.connection.close()
            raise

    @property
    def place(self) -> str:
        return str(self.path)

    def load(self) -> Loaded:
        """As `Store.load`."""
        with self._telling("read"):
            rows = self.connection.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY position")
            subscribers = self.connection.execute("SELECT topic, namespace, function_id, config FROM subscribers")
            return Loaded(self._records(rows), [Remember(*row) for row in subscribers.fetchall()])

    def write(self, changes: Sequence[Change]) -> None:
        """As `Store.write`: one transaction, of few statements: behind each, a busy loop may have the interpreter first."""
        execute = self.connection.execute
        with self._telling("written to"):
            execute("BEGIN IMMEDIATE")
            try:
                for records in _chunks([change.record for change in changes if type(change) is Put]):
                    execute(_put(len(records)), [value for record in records for value in astuple(record)])
                for change in changes:
                    match change:
                        case Update(record):
                            execute(_UPDATE, (
                                record.position, record.attempts, record.lost, record.due_ms, record.died_at_ms,
                                record.code, record.message, record.key,
                            ))  # fmt: skip
                        case Remember(topic, namespace, function_id, config):
                            execute(
                                "INSERT OR REPLACE INTO subscribers VALUES (?, ?, ?, ?)",
                                (topic, namespace, function_id, config),
                            )
                        case Forget(topic, namespace, function_id):
                            execute(
                                "DELETE FROM subscribers WHERE topic = ? AND namespace = ? AND function_id = ?",
                                (topic, namespace, function_id),
                            )
                for keys in _chunks([change.key for change in changes if type(change) is Remove]):
                    execute(_remove(len(keys)), keys)
                execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # a full disk may have ended it already
                    execute("ROLLBACK")
                raise

    def fetch(self, keys: Sequence[int]) -> dict[int, bytes]:
        """As `Store.fetch`."""
        with self._telling("read"):
            found = {}
            for key in keys:
                row = self.connection.execute("SELECT data FROM jobs WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = row[0]
            return found

    def close(self) -> None:
        """As `Store.close`."""
        self.connection.close()

    # --- inside

    def _records(self, rows: sqlite3.Cursor) -> Iterator[Record]:
        with self._telling("read"):
            for row in rows:
                yield Record(*row)

    def _open(self, synchronous: str) -> None:
        execute = self.connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")  # until it is closed, or its process is killed
        version_of(self.connection, MIGRATIONS, str(self.path))  # before anything of it is changed
        execute("PRAGMA journal_mode = WAL")
        execute(f"PRAGMA synchronous = {synchronous}")
        execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        execute("BEGIN EXCLUSIVE")
        execute("COMMIT")
        migrate(self.connection, MIGRATIONS, str(self.path))

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Say what SQLite raises in words that name the file and the mend."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", "")
            if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StorageError(
                    f"the jobs in {self.path} are in the hands of another engine; {_ELSEWHERE}"
                ) from None
            mend = _MENDS.get("_".join(code.split("_")[:2]), _ELSEWHERE)
            raise StorageError(f"the jobs in {self.path} cannot be {what}: {error}; {mend}") from None
        except (UnicodeError, OverflowError) as error:  # a value that SQLite has no place for
            raise StorageError(f"the jobs in {self.path} cannot be {what}: {error}") from None


def version_of(connection: sqlite3.Connection, migrations: Sequence[str], path: str) -> int:
    """The version of a file's schema, 0 if it is empty. Raises StorageError for one that is newer, or not ours."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != _APPLICATION and (application or version or tables):
        raise StorageError(f"{path} is a database of another program; {_ELSEWHERE}")
    if version > len(migrations):
        raise StorageError(
            f"the jobs in {path} are of version {version}, written by a newer iii-trio than this one, which knows "
            f"{len(migrations)}; use the newer one, or {_ELSEWHERE}"
        )
    return int(version)


def migrate(connection: sqlite3.Connection, migrations: Sequence[str], path: str) -> None:
    """Bring a file to the newest version of the schema, each step whole or not at all. Raises as `version_of`."""
    version = version_of(connection, migrations, path)
    for number, script in enumerate(migrations[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in script.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


_READONLY: Final = "SQLITE_READONLY"
_ELSEWHERE: Final = "name another directory (iii-trio: --data DIR)"
_MENDS: Final = {
    "SQLITE_FULL": "make room on its disk",
    _READONLY: f"make it writable, or {_ELSEWHERE}",
    "SQLITE_CANTOPEN": f"make its directory writable, or {_ELSEWHERE}",
    "SQLITE_IOERR": "see to its disk",
    "SQLITE_NOTADB": f"move the file away, or {_ELSEWHERE}",
    "SQLITE_CORRUPT": "restore it from a copy, or move it away",
}
