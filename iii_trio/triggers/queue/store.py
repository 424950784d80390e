"""The interface of job stores, and the changes that they write.

The ledger decides and remembers the waiting jobs. A store only keeps records and returns them at the next start. Its
methods may block, and are called from one thread at a time. `iii_trio.testing.check_job_store` tests a store.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from ...errors import StorageError
from .record import Record


class StorageFull(StorageError):
    """There is no room for new jobs. Other changes can still be written."""


class BadChange(StorageError):
    """One of the changes cannot be kept by any means, because of a value in it. Others can be."""


class Put(msgspec.Struct, frozen=True):
    """A new job, with its data."""

    record: Record


class Update(msgspec.Struct, frozen=True):
    """New values for a job. Its data and metadata stay as they are."""

    record: Record


class Remove(msgspec.Struct, frozen=True):
    """The removal of a job."""

    key: int


class SetAside(msgspec.Struct, frozen=True):
    """The removal of a damaged record. A store may keep it elsewhere, for people to look at."""

    key: int
    problem: str


class Remember(msgspec.Struct, frozen=True):
    """A subscriber of a topic, which gets the messages from now on. `config` is its binding's, as JSON.

    `away_since_ms` is the time at which it left. None: it is here, or was here when its engine ended.
    """

    topic: str
    namespace: str
    function_id: str
    config: bytes
    away_since_ms: int | None = None


class Forget(msgspec.Struct, frozen=True):
    """The end of a subscription."""

    topic: str
    namespace: str
    function_id: str


class SaveLane(msgspec.Struct, frozen=True):
    """The settings of a lane, as JSON. They stay with the lane's jobs when nothing configures it any more (Q12)."""

    lane: str
    """The text of the lane's key."""
    settings: bytes


class ForgetLane(msgspec.Struct, frozen=True):
    """The removal of a lane's settings, because it has no jobs and is not configured."""

    lane: str


Change: TypeAlias = Put | Update | Remove | SetAside | Remember | Forget | SaveLane | ForgetLane


class Payload(msgspec.Struct, frozen=True):
    """The parts of a job that are not always in memory."""

    data: bytes
    metadata: bytes | None = None


class Damaged(msgspec.Struct, frozen=True):
    """A record that a store has, and cannot make sense of."""

    key: int
    problem: str


class Backlog(msgspec.Struct, frozen=True):
    """What a store knows of its jobs before it has read them."""

    last: int
    """The largest key or position of a job, or a number above it. New jobs have larger ones."""
    unfinished: Mapping[str, int]
    """The number of jobs that are not dead letters, by the texts of the keys of their lanes."""


class Loaded(msgspec.Struct, frozen=True):
    """The content of a store."""

    jobs: Iterable[Record | Damaged] = ()
    """With their data, in the order of their keys. Iterated over once, where the store may block. After a StorageError
    `iter` is called again, and goes on with the job that could not be read."""
    subscribers: Sequence[Remember] = ()
    lanes: Sequence[SaveLane] = ()
    warnings: Sequence[str] = ()
    """Sentences for the log, about damage that the store has noticed."""
    backlog: Backlog | None = None
    """If there is one, changes are written while the jobs are iterated over. Jobs that were put meanwhile may be among
    them. None: the queue opens when all jobs are read."""


class Store(Protocol):
    """A keeper of jobs."""

    @property
    def place(self) -> str:
        """Where it keeps them, for people: `memory`, or a path."""

    def load(self) -> Loaded:
        """Return the content of the last use. Called first. Raises StorageError, also from the iteration over the jobs."""

    def write(self, changes: Sequence[Change]) -> None:
        """Keep these changes, all or none. When it returns they are kept.

        A key is put before all other changes of it, and removed after them.

        Raises StorageError, and keeps none of them then. It is StorageFull where only new jobs have no room, and
        BadChange where a single change is to blame.
        """

    def fetch(self, keys: Sequence[int]) -> dict[int, Payload]:
        """Return the payloads of these jobs. Jobs that are not there, or have none, are left out. Raises StorageError."""

    def tidy(self) -> bool:
        """Do a short piece of housekeeping. Called again, while the queue is idle, until it returns False.

        Raises StorageError.
        """

    def backup(self) -> Generator[bytes, None, None]:
        """Yield the pieces of a file with all jobs, as they are when the first piece is asked for.

        Changes are written between the pieces. The generator is closed at the end. Raises StorageError where there is no
        such file, or when the pieces are asked for too slowly.
        """

    def close(self) -> None:
        """Release all resources."""


__all__ = [
    "Backlog", "BadChange", "Change", "Damaged", "Forget", "ForgetLane", "Loaded", "Payload", "Put", "Remember", "Remove",
    "SaveLane", "SetAside", "StorageError", "StorageFull", "Store", "Update",
]  # fmt: skip
