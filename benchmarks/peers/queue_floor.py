"""The floor: bare SQLite, one thread that writes, group commit. `… queue_floor FILE COUNT AT_ONCE end_to_end|enqueue`.

As many rows as `at_once` are on their way at any time: each is inserted, and, end to end, deleted once it is on disk.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import sys
import threading
import time
import uuid

_ROW = "INSERT INTO jobs (id, lane, function_id, namespace, data) VALUES (?, ?, ?, ?, ?)"


def write(connection: sqlite3.Connection, asked: queue.SimpleQueue[object], told: queue.SimpleQueue[int]) -> None:
    while True:
        wanted = [asked.get()]
        while not asked.empty():
            wanted.append(asked.get())
        if None in wanted:
            return
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_ROW, [one for one in wanted if isinstance(one, tuple)])
        connection.executemany("DELETE FROM jobs WHERE key = ?", [(one,) for one in wanted if isinstance(one, int)])
        connection.execute("COMMIT")
        told.put(sum(isinstance(one, tuple) for one in wanted))


def main(file: str, count: int, at_once: int, end_to_end: bool) -> None:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE jobs (key INTEGER PRIMARY KEY, id TEXT, lane TEXT, function_id TEXT, namespace TEXT, data BLOB)"
    )
    asked: queue.SimpleQueue[object] = queue.SimpleQueue()
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    writer = threading.Thread(target=write, args=(connection, asked, told))
    writer.start()
    cpu, began = time.process_time(), time.monotonic()
    sent = kept = 0
    turns = []
    while kept < count:
        turn = time.monotonic()
        while sent < count and sent - kept < at_once:
            asked.put((str(uuid.uuid4()), '["queue","default"]', "bench::job", "default", b'{"batch":"b","of":20000}'))
            sent += 1
        new = told.get()
        if end_to_end:
            for key in range(kept + 1, kept + 1 + new):
                asked.put(key)
        kept += new
        turns.append(time.monotonic() - turn)
    turns.sort()
    ended, cpu = time.monotonic(), time.process_time() - cpu
    asked.put(None)
    writer.join()
    found = {"began": began, "ended": ended, "cpu_seconds": cpu}
    print(json.dumps(found | {"p50": turns[len(turns) // 2], "p99": turns[int(0.99 * (len(turns) - 1))]}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "end_to_end")
