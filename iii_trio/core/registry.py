"""The ledger of functions and worker names, per namespace.

An id has one active function. Other workers that register it stand by, in the order in which they came, and the first of
them takes over in the step in which the active one goes (promises R1 to R4 in docs/names.md).

           PROMOTED             REMOVED
    STANDBY ───────► ACTIVE ──────────────► REMOVED
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from enum import auto
from typing import Final

import msgspec
from msgspec import Raw

from ..records import reprs_without
from ..state_machine import StateMachine, Table, TableEnum
from ..wire import ABSENT
from .session import WorkerSession

MAX_STANDBYS: Final = 64
"""The standbys of one function. Further workers are refused without one."""


class FunctionState(TableEnum):
    """The state of one registration of a function."""

    STANDBY = auto()  # another worker has the id
    ACTIVE = auto()
    REMOVED = auto()


class FunctionEvent(TableEnum):
    """What happened to a registration."""

    PROMOTED = auto()  # the worker before it has gone
    REMOVED = auto()


FUNCTION: Final[Table[FunctionState, FunctionEvent]] = {
    FunctionState.STANDBY: {
        FunctionEvent.PROMOTED: FunctionState.ACTIVE,
        FunctionEvent.REMOVED: FunctionState.REMOVED,
    },
    FunctionState.ACTIVE: {FunctionEvent.REMOVED: FunctionState.REMOVED},
    FunctionState.REMOVED: {},
}


class Function(msgspec.Struct, eq=False):
    """One registered function."""

    namespace: str
    id: str
    owner: WorkerSession | None
    """None for the engine's own functions."""
    description: str | None = None
    request_format: Raw = ABSENT
    response_format: Raw = ABSENT
    metadata: Raw = ABSENT
    marked_internal: bool = False
    """Whether its metadata marks it as internal."""
    invocation: Raw = ABSENT
    """Where it is to be invoked in place of its owner, or absent. Its headers can hold secrets."""
    local_id: str | None = None
    """The id that its owner knows, where access rules made it another one."""
    node: str | None = None
    """The engine that it is relayed to."""
    worker_name: str | None = None
    """The worker there that it belongs to."""
    exported: bytes | None = None
    """Its row for other engines, once it was made."""
    size: int = 0
    """The bytes that it takes of its owner's registrations."""
    state: StateMachine[FunctionState, FunctionEvent] = msgspec.field(
        default_factory=lambda: StateMachine(FUNCTION, FunctionState.ACTIVE)
    )

    __repr__, __rich_repr__ = reprs_without("invocation")


class Registry:
    """The functions and names of all workers."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], Function] = {}
        self._standbys: dict[tuple[str, str], list[Function]] = {}
        """The standbys of each function that has some, oldest first."""
        self._names: dict[tuple[str, str], WorkerSession] = {}
        self.revision = 0
        """The number of changes of any kind so far, also of what stands by and of names."""
        self.fingerprint = 0
        """A number that stands for the set of (namespace, id), the same one in every process."""
        self.changes = 0
        """The number of changes of the set of (namespace, id) so far."""
        self.gone: set[tuple[str, str]] = set()
        """The functions removed since this set was last emptied, even if they have come back."""

    def __iter__(self) -> Iterator[Function]:
        return iter(self._functions.values())

    def __len__(self) -> int:
        return len(self._functions)

    def find(self, namespace: str, function_id: str) -> Function | None:
        return self._functions.get((namespace, function_id))

    def owned_by(self, owner: WorkerSession | None) -> list[Function]:
        """Return a worker's functions, or for None the engine's own, sorted."""
        if owner is None:
            return sorted((one for one in self if one.owner is None), key=lambda one: (one.namespace, one.id))
        return [self._functions[key] for key in sorted(owner.functions)]

    def namespaces_of(self, function_id: str) -> list[str]:
        """Return every namespace in which this id is registered, sorted."""
        return sorted(namespace for namespace, id_ in self._functions if id_ == function_id)

    def add(self, function: Function) -> Function | None:
        """Register a function, or replace its owner's earlier one.

        Returns the other owner's function, and changes nothing, if the id is taken.
        """
        key = (function.namespace, function.id)
        earlier = self._functions.get(key)
        # The first owner keeps the id until it leaves.
        if earlier is not None and earlier.owner is not function.owner:
            return earlier
        self._functions[key] = function
        self.revision += 1
        if earlier is None:
            self._changed(key)
        if function.owner is not None:
            function.owner.functions.add(key)
            function.owner.registration_bytes += function.size - (earlier.size if earlier is not None else 0)
        return None

    def standbys(self, function: Function) -> list[Function]:
        """Return the standbys of an active function, the next one first."""
        return self._standbys.get((function.namespace, function.id), [])

    def add_standby(self, function: Function) -> bool:
        """Let a function stand by, or replace its owner's earlier standby. Return False if there are too many."""
        assert function.owner is not None
        key = (function.namespace, function.id)
        waiting = self._standbys.setdefault(key, [])
        earlier = next((one for one in waiting if one.owner is function.owner), None)
        # A worker that describes its function again keeps its place.
        if earlier is None and len(waiting) >= MAX_STANDBYS:
            return False
        function.state = StateMachine(FUNCTION, FunctionState.STANDBY)
        if earlier is not None:
            waiting[waiting.index(earlier)] = function
            earlier.state.advance(FunctionEvent.REMOVED)
        else:
            waiting.append(function)
        self.revision += 1
        function.owner.standbys.add(key)
        function.owner.registration_bytes += function.size - (earlier.size if earlier is not None else 0)
        return True

    def remove(self, namespace: str, function_id: str, owner: WorkerSession) -> Function | None:
        """Remove a session's function, or its standby. Return the standby that took over, if one did (promise R2)."""
        key = (namespace, function_id)
        function = self._functions.get(key)
        if function is not None and function.owner is owner:
            return self._remove_active(key, function)
        # Another session's function stays, whatever this one asks for.
        self._remove_standby(key, owner)
        return None

    def remove_all_of(self, owner: WorkerSession) -> list[Function]:
        """Remove the functions, the standbys and the name of a session that has ended. Return what took over."""
        for key in sorted(owner.standbys):
            self._remove_standby(key, owner)
        promoted = [self._remove_active((one.namespace, one.id), one) for one in self.owned_by(owner)]
        self.release_name(owner)
        return [function for function in promoted if function is not None]

    def _remove_active(self, key: tuple[str, str], function: Function) -> Function | None:
        """Remove an active function and promote its first standby, which it returns."""
        function.state.advance(FunctionEvent.REMOVED)
        del self._functions[key]
        self.gone.add(key)
        self.revision += 1
        self._changed(key)
        assert function.owner is not None
        function.owner.functions.discard(key)
        function.owner.registration_bytes -= function.size
        waiting = self._standbys.get(key)
        if not waiting:
            return None
        successor = waiting.pop(0)
        if not waiting:
            del self._standbys[key]
        assert successor.owner is not None
        successor.state.advance(FunctionEvent.PROMOTED)
        successor.owner.standbys.discard(key)
        successor.owner.functions.add(key)
        self._functions[key] = successor
        self._changed(key)
        return successor

    def _changed(self, key: tuple[str, str]) -> None:
        """Count a function that came or went. The same step takes it into the fingerprint and out of it."""
        self.changes += 1
        digest = hashlib.blake2b("\0".join(key).encode(errors="surrogatepass"), digest_size=8)
        self.fingerprint ^= int.from_bytes(digest.digest(), "big")

    def _remove_standby(self, key: tuple[str, str], owner: WorkerSession) -> None:
        waiting = self._standbys.get(key, [])
        for function in [one for one in waiting if one.owner is owner]:
            waiting.remove(function)
            self.revision += 1
            function.state.advance(FunctionEvent.REMOVED)
            owner.standbys.discard(key)
            owner.registration_bytes -= function.size
        if not waiting:
            self._standbys.pop(key, None)

    def release_name(self, session: WorkerSession) -> None:
        """Free the name that a session holds, if any."""
        if session.lease is not None:
            self.revision += 1
            del self._names[session.lease]
            session.lease = None

    def claim_name(self, namespace: str, name: str, session: WorkerSession) -> WorkerSession | None:
        """Lease a worker name to a session. Return the holder, and change nothing, if another session has it."""
        key = (namespace, name)
        holder = self._names.setdefault(key, session)
        if holder is not session:
            return holder
        self.revision += 1
        # A session has at most one name, so a new one replaces the earlier one.
        if session.lease != key:
            self.release_name(session)
            session.lease = key
        return None

    def worker(self, namespace: str, name: str) -> WorkerSession | None:
        """Return the session that holds this name."""
        return self._names.get((namespace, name))

    def namespaces_of_worker(self, name: str) -> list[str]:
        """Return every namespace in which a worker has this name, sorted."""
        return sorted(namespace for namespace, name_ in self._names if name_ == name)
