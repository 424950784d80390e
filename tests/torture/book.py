"""What the workers of a round have in common: their jobs, and the book in which they write what became of them."""

from __future__ import annotations

import os
import time
from typing import Any, final

from .plan import MAX_ATTEMPTS


@final
class Book:
    """A file of lines, each in it whole as soon as it is written: what is in it outlives a kill."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def began(self, key: str, attempt: int) -> None:
        self._note("began", key, attempt)

    def ended(self, key: str, attempt: int, conduct: str) -> None:
        """Raises ValueError for a job that is to fail now."""
        if conduct == "doomed" or (conduct == "flaky" and attempt == 1):
            self._note("failed", key, attempt)
            raise ValueError(conduct)
        self._note("done", key, attempt)

    def _note(self, what: str, key: str, attempt: int) -> None:
        os.write(self._file, f"{time.monotonic_ns()} {what} {key} {attempt}\n".encode())


def key_of_job(data: dict[str, Any]) -> str:
    """How it is called in the book."""
    return f"{data['kind']}/{data['group']}/{data['n']}"


def key_of_message(data: dict[str, Any], subscriber: str) -> str:
    """How it is called in the book, at this subscriber."""
    return f"topic-{subscriber}/{data['group']}/{data['n']}"


def subscription(name: str, max_lost: str) -> dict[str, Any]:
    """What this worker subscribes to; `b` wants its groups in order."""
    queue_config: dict[str, Any] = {
        "maxRetries": MAX_ATTEMPTS - 1,
        "backoffDelayMs": 30,
        "backoffType": "fixed",
        "maxLostDeliveries": int(max_lost),
    }
    if name == "b":
        queue_config |= {"type": "fifo", "messageGroupField": "group"}
    return {"topic": "news", "queue_config": queue_config}
