"""What queues are loaded with: batches of small jobs; and who counts them as their handlers start."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import TypedDict

import attrs


class JobData(TypedDict):
    """The payload of one job: of which batch, how many that has, and when it was about to be enqueued."""

    batch: str
    of: int
    sent: float


@attrs.frozen
class Batch:
    """What a producer is told: `count` jobs, `at_once` callers that each wait for an answer, then `pause` seconds."""

    batch: str
    count: int
    at_once: int = 1
    pause: float = 0.0

    def jobs(self) -> Iterator[JobData]:
        """To be shared by all callers."""
        for _ in range(self.count):
            yield {"batch": self.batch, "of": self.count, "sent": time.monotonic()}


class Produced:
    """Prints when its block began and ended, and the CPU time of this process in it."""

    def __enter__(self) -> None:
        self._cpu, self._began = time.process_time(), time.monotonic()

    def __exit__(self, *problem: object) -> None:
        if problem[0] is None:
            ended, cpu = time.monotonic(), time.process_time() - self._cpu
            print(json.dumps({"began": self._began, "ended": ended, "cpu_seconds": cpu}), flush=True)


class Tally:
    """Prints when the first and the last job of a batch started, and how long they had taken to come to that."""

    def __init__(self) -> None:
        self._started: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._lock = threading.Lock()  # huey runs handlers in threads

    def count(self, batch: str, of: int, sent: float) -> None:
        with self._lock:
            started = self._started[batch]
            started.append((time.monotonic(), sent))
            if len(started) == of:
                del self._started[batch]
                self._report(batch, started)

    def _report(self, batch: str, started: list[tuple[float, float]]) -> None:
        waited = sorted(at - sent for at, sent in started)
        found = {
            "batch": batch,
            "first": min(at for at, _ in started),
            "last": max(at for at, _ in started),
            "p50": statistics.median(waited),
            "p99": waited[int(0.99 * (len(waited) - 1))],
        }
        print(json.dumps(found), flush=True)
