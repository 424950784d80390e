"""huey on SQLite: this module is what `huey_consumer` is given; `queue_produce` runs its producer.

The file and whether it is synced come from the environment: HUEY_FILE, HUEY_FSYNC (1, 0, or unset for huey's default).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

from huey import SqliteHuey  # type: ignore[import-untyped]

from benchmarks.queue_load import Batch, JobData, Produced, Tally  # huey_consumer imports this by its path

_fsync = os.environ.get("HUEY_FSYNC")
huey = SqliteHuey(filename=os.environ["HUEY_FILE"], fsync=None if _fsync is None else _fsync == "1")
_tally = Tally()


@huey.task()  # type: ignore[untyped-decorator]
def job(batch: str, of: int, sent: float) -> None:
    _tally.count(batch, of, sent)


@huey.on_startup()  # type: ignore[untyped-decorator]
def say_ready() -> None:
    print("ready", flush=True)


def produce(batch: Batch) -> None:
    lock = threading.Lock()

    def caller(jobs: Iterator[JobData]) -> None:
        while True:
            with lock:
                data = next(jobs, None)
            if data is None:
                return
            job(**data)
            if batch.pause:
                time.sleep(batch.pause)

    jobs = batch.jobs()
    threads = [threading.Thread(target=caller, args=(jobs,)) for _ in range(batch.at_once)]
    with Produced():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
