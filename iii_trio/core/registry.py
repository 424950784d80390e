"""Who owns which function and which worker name, per namespace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import attrs
from msgspec import Raw

from ..wire import ABSENT, JsonValue

if TYPE_CHECKING:
    from .hub import Hub
    from .session import Session


@attrs.frozen
class Asked:
    """A call of a function of the engine itself."""

    session: Session
    given: JsonValue
    now: float
    baggage: str | None = None
    traceparent: str | None = None
    last_word: bool = False
    """Asked again, and not to be put off once more."""


Builtin = Callable[["Hub", Asked], object]
"""A function of the engine itself: structures its input, gives back what `to_json` can hold (or a `Later`), or raises
CallError."""


@attrs.define(eq=False)
class Function:
    """One registered function."""

    namespace: str
    id: str
    owner: Session | None
    """None for the engine's own."""
    builtin: Builtin | None = None
    description: str | None = None
    request_format: Raw = ABSENT
    response_format: Raw = ABSENT
    metadata: Raw = ABSENT
    size: int = 0
    """The bytes that it takes of its owner's registrations."""


class Registry:
    """The functions and names of all workers."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], Function] = {}
        self._names: dict[tuple[str, str], Session] = {}
        self.changes = 0
        """How often the set of (namespace, id) has changed."""
        self.gone: set[tuple[str, str]] = set()
        """What was removed since somebody last emptied this, whether or not it has come back."""

    def __iter__(self) -> Iterator[Function]:
        return iter(self._functions.values())

    def __len__(self) -> int:
        return len(self._functions)

    def find(self, namespace: str, function_id: str) -> Function | None:
        return self._functions.get((namespace, function_id))

    def namespaces_of(self, function_id: str) -> list[str]:
        """Every namespace in which this id is registered, sorted."""
        return sorted(namespace for namespace, id_ in self._functions if id_ == function_id)

    def add(self, function: Function) -> Function | None:
        """Register a function, or replace its owner's earlier one; give back the other owner's if it is taken."""
        key = (function.namespace, function.id)
        there = self._functions.get(key)
        if there is not None and there.owner is not function.owner:
            return there
        self._functions[key] = function
        self.changes += there is None
        if function.owner is not None:
            function.owner.functions.add(key)
            function.owner.registration_bytes += function.size - (there.size if there is not None else 0)
        return None

    def remove(self, namespace: str, function_id: str, owner: Session) -> bool:
        """Remove a function if this session owns it."""
        key = (namespace, function_id)
        there = self._functions.get(key)
        if there is None or there.owner is not owner:
            return False
        del self._functions[key]
        self.gone.add(key)
        self.changes += 1
        owner.functions.discard(key)
        owner.registration_bytes -= there.size
        return True

    def remove_all_of(self, owner: Session) -> None:
        """A session has ended: release its functions and its name."""
        self.gone |= owner.functions
        for key in sorted(owner.functions):
            del self._functions[key]
        self.changes += len(owner.functions)
        owner.functions.clear()
        self.release_name(owner)

    def release_name(self, session: Session) -> None:
        """A session no longer has a name."""
        if session.lease is not None:
            del self._names[session.lease]
            session.lease = None

    def claim_name(self, namespace: str, name: str, session: Session) -> Session | None:
        """Lease a worker name; give back its holder if another live session has it."""
        key = (namespace, name)
        holder = self._names.setdefault(key, session)
        if holder is not session:
            return holder
        if session.lease != key:
            self.release_name(session)
            session.lease = key
        return None

    def worker(self, namespace: str, name: str) -> Session | None:
        """Whoever has this name."""
        return self._names.get((namespace, name))

    def namespaces_of_worker(self, name: str) -> list[str]:
        """Every namespace in which some worker has this name, sorted."""
        return sorted(namespace for namespace, name_ in self._names if name_ == name)

    def keys(self) -> frozenset[tuple[str, str]]:
        """The (namespace, id) of every function."""
        return frozenset(self._functions)
