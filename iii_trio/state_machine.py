"""State tables: a lifecycle is a set of states, a set of events and a table of transitions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeAlias, TypeVar

import msgspec

from .errors import IllegalTransition

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)
Table: TypeAlias = Mapping[S, Mapping[E, S]]


class TableEnum(Enum):
    """A state or an event.

    Members are hashed by identity, because a table is consulted for every message and `Enum.__hash__` is Python code.
    """

    __hash__ = object.__hash__


class StateMachine(msgspec.Struct, Generic[S, E], eq=False):
    """The current state of one object, and the only way to change it."""

    table: Table[S, E]
    current: S

    def advance(self, event: E) -> S:
        """Follow the transition for `event` and return the new state.

        Raises IllegalTransition, and changes nothing, if the table has no such transition.
        """
        try:
            self.current = self.table[self.current][event]
        except KeyError:
            raise IllegalTransition(self.current, event) from None
        return self.current

    def can(self, event: E) -> bool:
        """Return whether the table has a transition for `event` from the current state."""
        return event in self.table[self.current]

    @property
    def is_final(self) -> bool:
        """Whether no event leads out of the current state."""
        return not self.table[self.current]
