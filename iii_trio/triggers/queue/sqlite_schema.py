"""The tables of the SQLite store, and how older files get them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from .store import StorageError

ELSEWHERE: Final = "name another directory (iii-trio: --data DIR; in a program: QueueConfig(directory=…))"
_APPLICATION: Final = 0x69696971  # "iiiq"

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
    """
    ALTER TABLE jobs ADD COLUMN pause_ms INTEGER;
    ALTER TABLE subscribers ADD COLUMN away_since_ms INTEGER;
    CREATE TABLE lanes (lane TEXT PRIMARY KEY, settings BLOB NOT NULL);
    CREATE TABLE damaged_jobs (
        key, position, id, lane, function_id, namespace, data, created_at_ms, job_group, traceparent, baggage, metadata,
        attempts, lost, due_ms, died_at_ms, code, message, pause_ms, problem TEXT
    );
    """,
    """
    ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE jobs ADD COLUMN unique_key TEXT;
    ALTER TABLE jobs ADD COLUMN unique_ms INTEGER;
    ALTER TABLE jobs ADD COLUMN keep_result_ms INTEGER;
    ALTER TABLE damaged_jobs ADD COLUMN priority;
    ALTER TABLE damaged_jobs ADD COLUMN unique_key;
    ALTER TABLE damaged_jobs ADD COLUMN unique_ms;
    ALTER TABLE damaged_jobs ADD COLUMN keep_result_ms;
    """,
    """
    CREATE INDEX dead_jobs ON jobs (lane) WHERE died_at_ms IS NOT NULL;
    CREATE INDEX redriven_jobs ON jobs (position) WHERE position <> key;
    """,
)
"""Each script makes the next version of the schema. `PRAGMA user_version` counts them."""

COLUMNS: Final = (
    "key, position, id, lane, function_id, namespace, data, created_at_ms, job_group, traceparent, baggage, metadata, "
    "attempts, lost, due_ms, pause_ms, died_at_ms, code, message, priority, unique_key, unique_ms, keep_result_ms"
)
"""In the order of the fields of `Record`."""


def version_of(connection: sqlite3.Connection, migrations: Sequence[str], path: str) -> int:
    """Return the version of a file's schema, 0 for an empty file.

    Raises StorageError for a newer version, and for the file of another program.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != _APPLICATION and (application or version or tables):
        raise StorageError(f"{path} is a database of another program; {ELSEWHERE}")
    if version > len(migrations):
        raise StorageError(
            f"the jobs in {path} are of version {version}, written by a newer iii-trio than this one, which knows "
            f"{len(migrations)}; use the newer one, or {ELSEWHERE}"
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
