"""The numbers of calls that workers have answered, altogether and by function."""

from __future__ import annotations

from typing import Final, final

_MAX_FUNCTIONS: Final = 1000
"""Functions that are counted apart. Calls of further ones are counted altogether only, because callers choose the ids."""


@final
class CallCounts:
    """Counts the calls that were given to a worker and have ended. Calls that the engine answers itself are left out."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed = 0
        self.enqueued = 0
        """The calls that were made into jobs."""
        self.sessions_started = 0
        self.sessions_ended = 0
        self.by_function: dict[str, list[int]] = {}
        """The numbers of calls and of failures, by function id."""

    def count(self, function_id: str, *, failed: bool) -> None:
        """Count a call that has ended."""
        counts = self.by_function.get(function_id)
        if counts is None:
            counts = [0, 0]
            if len(self.by_function) < _MAX_FUNCTIONS:
                self.by_function[function_id] = counts
        counts[0] += 1
        if failed:
            counts[1] += 1
            self.failed += 1
        else:
            self.succeeded += 1

    def to_json(self) -> dict[str, object]:
        """Return the numbers as a part of an answer."""
        return {
            "calls_ended": {
                "succeeded": self.succeeded,
                "failed": self.failed,
                "enqueued": self.enqueued,
                "by_function": self.by_function,
                "sessions_started": self.sessions_started,
                "sessions_ended": self.sessions_ended,
            }
        }
