"""A lifecycle is a phase and a table of edges. Nothing else moves a phase."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeAlias, TypeVar

import attrs

from .errors import IllegalCue

P = TypeVar("P", bound=Enum)
C = TypeVar("C", bound=Enum)
Table: TypeAlias = Mapping[P, Mapping[C, P]]


class Step(Enum):
    """A phase or a cue. Members are one of a kind, so they are hashed by identity: tables are asked with every message."""

    __hash__ = object.__hash__


@attrs.define(eq=False)
class Lifecycle(Generic[P, C]):
    """Where something is in its life, and the only door to the next phase."""

    table: Table[P, C]
    phase: P

    def take(self, cue: C) -> P:
        """Follow the edge for `cue`; with no such edge, raise `IllegalCue` and stay put."""
        try:
            self.phase = self.table[self.phase][cue]
        except KeyError:
            raise IllegalCue(self.phase, cue) from None
        return self.phase

    def accepts(self, cue: C) -> bool:
        """Whether `cue` has an edge from here."""
        return cue in self.table[self.phase]

    @property
    def over(self) -> bool:
        """Whether no cue leads anywhere from here."""
        return not self.table[self.phase]
