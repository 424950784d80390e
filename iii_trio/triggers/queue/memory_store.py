"""Jobs in memory: they last as long as the engine does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import msgspec

from .record import Record
from .store import Change, Forget, Loaded, Put, Remember, Remove, Update


@final
class MemoryStore:
    """A store that keeps jobs for the length of its own life."""

    def __init__(self) -> None:
        self._jobs: dict[int, Record] = {}
        self._subscribers: dict[tuple[str, str, str], Remember] = {}

    @property
    def place(self) -> str:
        return "memory"

    def load(self) -> Loaded:
        """As `Store.load`: one engine's jobs for the next one of the same process."""
        jobs = sorted(self._jobs.values(), key=lambda record: record.position)
        return Loaded([msgspec.structs.replace(record) for record in jobs], list(self._subscribers.values()))

    def write(self, changes: Sequence[Change]) -> None:
        """As `Store.write`. It always succeeds."""
        for change in changes:
            match change:
                case Put():
                    self._jobs[change.record.key] = msgspec.structs.replace(change.record)
                case Update():
                    there = self._jobs.get(change.record.key)
                    if there is not None:
                        self._jobs[there.key] = msgspec.structs.replace(change.record, data=there.data)
                case Remove():
                    self._jobs.pop(change.key, None)
                case Remember():
                    self._subscribers[change.topic, change.namespace, change.function_id] = change
                case Forget():
                    self._subscribers.pop((change.topic, change.namespace, change.function_id), None)

    def fetch(self, keys: Sequence[int]) -> dict[int, bytes]:
        """As `Store.fetch`."""
        return {key: self._jobs[key].data or b"" for key in keys if key in self._jobs}

    def close(self) -> None:
        """As `Store.close`; what it keeps stays with whoever holds the store."""
