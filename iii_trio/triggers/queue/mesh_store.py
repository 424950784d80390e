"""The jobs of a shard of the queues that this node owns, in the store of its mesh.

The methods are those of `Store`, and return awaitables. `run_awaitable` waits for them, in place of a thread.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Sequence
from sys import intern
from typing import Any, Final, TypeVar, final

import msgspec
import trio
from msgspec.structs import replace

from ..mesh import Fenced, ShardJobs, StoredJob, StoreIsFull, StoreUnavailable
from .ownership import QueueLease
from .record import NEW, PLAIN, Record
from .store import (
    BadChange,
    Change,
    Damaged,
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
    StorageFull,
    Update,
)

T = TypeVar("T")
_RETRY_SECONDS: Final = 0.2
_record: Final = msgspec.msgpack.Decoder(Record)
_payload: Final = msgspec.msgpack.Decoder(Payload)
_remember: Final = msgspec.msgpack.Decoder(Remember)
_encode: Final = msgspec.msgpack.Encoder().encode


async def run_awaitable(function: Callable[[], T], /) -> T:
    """Call a function, and wait for what it returns if that is awaitable. It is the `RunBlocking` of these stores."""
    value: Any = function()
    if inspect.isawaitable(value):
        value = await value
    else:
        await trio.lowlevel.checkpoint()
    return value  # type: ignore[no-any-return]


@final
class MeshJobStore:
    """A store for the length of one lease."""

    def __init__(self, jobs: ShardJobs, lease: QueueLease) -> None:
        self._jobs = jobs
        self._lease = lease
        self._number = lease.number
        self._serial = 0

    @property
    def place(self) -> str:
        """As `Store.place`."""
        return self._jobs.place

    async def load(self) -> Loaded:
        """As `Store.load`. All jobs are read at once."""
        subscribers, lanes = await self._ask(lambda: self._jobs.tables(self._number))
        jobs: list[Record | Damaged] = []
        page = await self._page(0)
        while page:
            jobs += [_read(job) for job in page]
            page = await self._page(page[-1].key)
        return Loaded(
            jobs,
            [_remember.decode(value) for value in subscribers.values()],
            [SaveLane(lane.decode(), settings) for lane, settings in lanes.items()],
        )

    async def write(self, changes: Sequence[Change]) -> None:
        """As `Store.write`. It is tried until the store has answered, or the lease is over.

        A write without an answer may have been kept, so another one must not take its place.
        """
        try:
            steps = [part for change in changes for part in _steps(change)]
        except UnicodeEncodeError as error:
            raise BadChange(f"a job cannot be kept in {self.place}: {error}") from None
        adds = any(isinstance(change, Put) for change in changes)
        self._serial += 1
        serial = self._serial
        await self._ask(lambda: self._jobs.write(self._number, serial, steps, adds=adds))

    async def fetch(self, keys: Sequence[int]) -> dict[int, Payload]:
        """As `Store.fetch`."""
        found = await self._ask(lambda: self._jobs.payloads(self._number, keys))
        return {key: _payload.decode(one) for key, one in zip(keys, found, strict=True) if one is not None}

    def tidy(self) -> bool:
        """As `Store.tidy`. There is nothing to do."""
        return False

    def backup(self) -> Generator[bytes, None, None]:
        """As `Store.backup`. Raises StorageError, because there is no file."""
        raise StorageError(f"the jobs are in {self.place}; back up the append-only file of that store")

    def close(self) -> None:
        """As `Store.close`. The jobs stay in the store of the mesh."""

    async def _page(self, after: int) -> list[StoredJob]:
        page: list[StoredJob] = await self._ask(lambda: self._jobs.page(self._number, after))
        return page

    async def _ask(self, request: Callable[[], Any]) -> Any:
        """Ask the store until it has answered. Raises StorageError when the lease is over."""
        problem = "another node may own this shard of the queues by now"
        while self._lease.number == self._number and self._lease.holds():
            # The lease may have been renewed when this time has come.
            with trio.CancelScope(deadline=self._lease.until):
                try:
                    return await request()
                except Fenced:
                    self._lease.fenced()
                    problem = "another node owns this shard of the queues"
                    break
                except StoreIsFull as error:
                    raise StorageFull(f"{self.place} is full: {error}") from None
                except StoreUnavailable as error:
                    problem = str(error)
                await trio.sleep(_RETRY_SECONDS)
        raise StorageError(f"the jobs in {self.place} cannot be used by this node any more: {problem}")


def _steps(change: Change) -> Iterable[bytes]:
    """Return a change as a step of `ShardJobs.write`: a letter, a key, and two values."""
    match change:
        case Put(record):
            payload = _encode(Payload(record.data or b"", record.metadata))
            return b"P", b"%d" % record.key, _encode(replace(record, data=None, metadata=None)), payload
        case Update(record):
            return b"U", b"%d" % record.key, _encode(replace(record, data=None, metadata=None)), b""
        case Remove(key):
            return b"R", b"%d" % key, b"", b""
        case SetAside(key, problem):
            return b"D", b"%d" % key, problem.encode(), b""
        case Remember():
            return b"S", _name(change), _encode(change), b""
        case Forget():
            return b"F", _name(change), b"", b""
        case SaveLane(lane, settings):
            return b"L", lane.encode(), settings, b""
        case ForgetLane(lane):
            return b"G", lane.encode(), b"", b""


def _name(subscriber: Remember | Forget) -> bytes:
    return msgspec.json.encode([subscriber.topic, subscriber.namespace, subscriber.function_id])


def _read(stored: StoredJob) -> Record | Damaged:
    try:
        record, payload = _record.decode(stored.record), _payload.decode(stored.payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Damaged(stored.key, f"it cannot be read: {error}")
    if record.key != stored.key:
        return Damaged(stored.key, f"it says that its key is {record.key}")
    # Texts and values that many jobs have in common become one object.
    return replace(
        record,
        position=record.key if record.position == record.key else record.position,
        lane=intern(record.lane),
        function_id=intern(record.function_id),
        namespace=intern(record.namespace),
        data=payload.data,
        metadata=payload.metadata,
        progress=NEW if record.progress == NEW else record.progress,
        options=PLAIN if record.options == PLAIN else record.options,
    )
