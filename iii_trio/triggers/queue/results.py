"""The results of jobs that asked for it. They are in memory, bounded in number, size and age."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

MAX_RESULT_BYTES: Final = 64 * 1024
_MAX_BYTES: Final = 16 * 1024 * 1024  # of all results
_ENTRY_BYTES: Final = 256  # of one, beside its text


@final
class Results:
    """The last results, by the ids of their jobs. The oldest give way."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0

    def keep(self, job_id: str, result: bytes, until: float) -> None:
        """Keep a result until a time. One that is too large is not kept."""
        self._drop(job_id)
        if len(result) > MAX_RESULT_BYTES:
            return
        self._kept[job_id] = until, result
        self._bytes += len(result) + _ENTRY_BYTES
        while self._bytes > _MAX_BYTES:
            self._drop(next(iter(self._kept)))

    def get(self, job_id: str, now: float) -> bytes | None:
        """Return the result of a job, or None if it is not kept any more."""
        until, result = self._kept.get(job_id, (now, b""))
        if until > now:
            return result
        self._drop(job_id)
        return None

    def _drop(self, job_id: str) -> None:
        entry = self._kept.pop(job_id, None)
        if entry is not None:
            self._bytes -= len(entry[1]) + _ENTRY_BYTES
