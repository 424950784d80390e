"""A store in memory."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import final

import msgspec

from .record import Record
from .store import (
    Change,
    Forget,
    ForgetLane,
    Loaded,
    Payload,
    Put,
    Remember,
    Remove,
    SaveLane,
    SetAside,
    StorageError,
    Update,
)


@final
class MemoryStore:
    """A store that keeps jobs as long as the object lives."""

    def __init__(self) -> None:
        self._jobs: dict[int, Record] = {}
        self._subscribers: dict[tuple[str, str, str], Remember] = {}
        self._lanes: dict[str, SaveLane] = {}

    @property
    def place(self) -> str:
        """As `Store.place`."""
        return "memory"

    def load(self) -> Loaded:
        """As `Store.load`: the jobs of one engine for the next one in the same process."""
        jobs = sorted(self._jobs.values(), key=lambda record: record.key)
        return Loaded(
            [msgspec.structs.replace(record) for record in jobs],
            list(self._subscribers.values()),
            list(self._lanes.values()),
        )

    def write(self, changes: Sequence[Change]) -> None:
        """As `Store.write`. It always succeeds."""
        for change in changes:
            match change:
                case Put():
                    self._jobs[change.record.key] = msgspec.structs.replace(change.record)
                case Update():
                    there = self._jobs.get(change.record.key)
                    if there is not None:
                        self._jobs[there.key] = msgspec.structs.replace(
                            change.record, data=there.data, metadata=there.metadata
                        )
                case Remove() | SetAside():
                    self._jobs.pop(change.key, None)
                case Remember():
                    self._subscribers[change.topic, change.namespace, change.function_id] = change
                case Forget():
                    self._subscribers.pop((change.topic, change.namespace, change.function_id), None)
                case SaveLane():
                    self._lanes[change.lane] = change
                case ForgetLane():
                    self._lanes.pop(change.lane, None)

    def fetch(self, keys: Sequence[int]) -> dict[int, Payload]:
        """As `Store.fetch`."""
        found = [self._jobs[key] for key in keys if key in self._jobs]
        return {record.key: Payload(record.data, record.metadata) for record in found if record.data is not None}

    def tidy(self) -> bool:
        """As `Store.tidy`. There is nothing to do."""
        return False

    def backup(self) -> Generator[bytes, None, None]:
        """As `Store.backup`. Raises StorageError, because there is no file."""
        raise StorageError(
            "the jobs are in memory, so there is nothing to copy; "
            "give the engine a directory (--data DIR; in a program: QueueConfig(directory=…))"
        )

    def close(self) -> None:
        """As `Store.close`. The jobs stay in the object."""
