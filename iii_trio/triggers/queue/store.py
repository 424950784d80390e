"""What a store of jobs has to do: four verbs, and the changes that it writes.

The ledger decides, and remembers what waits; a store only has to keep what it was told, and tell it again at the next
start. Verbs may block: they are called from one thread at a time. `iii_trio.testing.check_job_store` is a store's test.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

import attrs
import msgspec

from ...errors import StorageError
from .record import Record


class Put(msgspec.Struct, frozen=True):
    """A new job, with its data."""

    record: Record


class Update(msgspec.Struct, frozen=True):
    """A job has moved: everything of it but its data is as in this record."""

    record: Record


class Remove(msgspec.Struct, frozen=True):
    """A job is over."""

    key: int


class Remember(msgspec.Struct, frozen=True):
    """A subscriber of a topic: what is published from now on is for it too. `config` is that of its binding, as JSON."""

    topic: str
    namespace: str
    function_id: str
    config: bytes


class Forget(msgspec.Struct, frozen=True):
    """A subscriber that does not want what is published from now on."""

    topic: str
    namespace: str
    function_id: str


Change: TypeAlias = Put | Update | Remove | Remember | Forget


@attrs.frozen
class Loaded:
    """What a store has kept."""

    jobs: Iterable[Record] = ()
    """With their data, in the order of their positions; read once, at once."""
    subscribers: Sequence[Remember] = ()


class Store(Protocol):
    """Keeps jobs."""

    @property
    def place(self) -> str:
        """Where it keeps them, for people: `memory`, or a path."""

    def load(self) -> Loaded:
        """What was kept when the store was used last. Called first of all. Raises StorageError, also while it is read."""

    def write(self, changes: Sequence[Change]) -> None:
        """Keep these, all or none; returning means that they are kept. Raises StorageError; none is kept then.

        A key is put once, before all else that is said of it, and removed after all else.
        """

    def fetch(self, keys: Sequence[int]) -> dict[int, bytes]:
        """The data of these jobs. Raises StorageError."""

    def close(self) -> None:
        """Let go of everything."""


__all__ = ["Change", "Forget", "Loaded", "Put", "Remember", "Remove", "StorageError", "Store", "Update"]
