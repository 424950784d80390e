"""The ledger of functions and worker names, per namespace."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from msgspec import Raw

from ..wire import ABSENT
from .session import WorkerSession


@attrs.define(eq=False)
class Function:
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
    over_http: bool = False
    """Whether it asks to be invoked over HTTP, which this engine refuses."""
    size: int = 0
    """The bytes that it takes of its owner's registrations."""


class Registry:
    """The functions and names of all workers."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], Function] = {}
        self._names: dict[tuple[str, str], WorkerSession] = {}
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
        self.changes += earlier is None
        if function.owner is not None:
            function.owner.functions.add(key)
            function.owner.registration_bytes += function.size - (earlier.size if earlier is not None else 0)
        return None

    def remove(self, namespace: str, function_id: str, owner: WorkerSession) -> bool:
        """Remove a function if this session owns it. Return whether it did."""
        key = (namespace, function_id)
        function = self._functions.get(key)
        # Another session's function stays, whatever this one asks for.
        if function is None or function.owner is not owner:
            return False
        del self._functions[key]
        self.gone.add(key)
        self.changes += 1
        owner.functions.discard(key)
        owner.registration_bytes -= function.size
        return True

    def remove_all_of(self, owner: WorkerSession) -> None:
        """Remove the functions and the name of a session that has ended."""
        self.gone |= owner.functions
        for key in sorted(owner.functions):
            del self._functions[key]
        self.changes += len(owner.functions)
        owner.functions.clear()
        self.release_name(owner)

    def release_name(self, session: WorkerSession) -> None:
        """Free the name that a session holds, if any."""
        if session.lease is not None:
            del self._names[session.lease]
            session.lease = None

    def claim_name(self, namespace: str, name: str, session: WorkerSession) -> WorkerSession | None:
        """Lease a worker name to a session. Return the holder, and change nothing, if another session has it."""
        key = (namespace, name)
        holder = self._names.setdefault(key, session)
        if holder is not session:
            return holder
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

    def keys(self) -> frozenset[tuple[str, str]]:
        """Return the (namespace, id) of every function."""
        return frozenset(self._functions)
