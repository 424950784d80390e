"""The check of a copy of a queue's file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from .sqlite_schema import MIGRATIONS, version_of
from .store import StorageError


def check_backup(path: str | os.PathLike[str]) -> int:
    """Open a backup, check all of it, and return the number of its jobs. Dead letters are among them. Blocks.

    Raises StorageError if it is damaged, or no file of a queue. The file is not changed, and no others are made.
    """
    try:
        # `immutable` keeps SQLite from making a write-ahead log beside a file that nothing else has open.
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?immutable=1", uri=True)) as connection:
            if not version_of(connection, MIGRATIONS, str(path)):
                raise StorageError(f"{path} is empty, and no backup of jobs")
            problems = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
            if problems != ["ok"]:
                raise StorageError(f"the backup {path} is damaged: {'; '.join(problems)}")
            (jobs,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
    except sqlite3.Error as error:
        raise StorageError(f"the backup {path} cannot be read: {error}") from None
    return int(jobs)
