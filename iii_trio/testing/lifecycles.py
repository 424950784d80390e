"""Checks and drawings of lifecycles: a lifecycle is a table, so it can be looked at whole."""

from __future__ import annotations

from collections.abc import Set
from enum import Enum
from typing import TypeVar

from ..state_machine import Table

P = TypeVar("P", bound=Enum)
C = TypeVar("C", bound=Enum)


def phases_that_reach(goal: P, table: Table[P, C], without: Set[C] = frozenset()) -> set[P]:
    """The phases from which `goal` can be reached without any of these cues; `goal` is one of them."""
    found = {goal}
    while True:
        more = {
            phase for phase, row in table.items() if any(to in found for cue, to in row.items() if cue not in without)
        }
        if more <= found:
            return found
        found |= more


def check_lifecycle(table: Table[P, C], start: P, end_well: P, mishaps: Set[C] = frozenset()) -> None:
    """Check that a lifecycle has no gaps and no dead ends, and can always still end well.

    Every phase has a row and can be reached from `start`; every cue is listened to somewhere; from every phase an end can
    be reached; and from every phase that is no end itself, `end_well` can be reached without any of `mishaps`.
    Raises AssertionError, naming the phases or cues at fault.
    """
    phases = set(type(start))
    cues = {cue for row in table.values() for cue in row}
    _nothing_in(phases - set(table), "phases without a row")
    if cues:
        _nothing_in(set(type(next(iter(cues)))) - cues, "cues nobody listens to")
    _nothing_in({phase for phase in phases if start not in phases_that_reach(phase, table)}, "phases never reached")
    ends = {phase for phase in phases if not table[phase]}
    can_end = {phase for end in ends for phase in phases_that_reach(end, table)}
    _nothing_in(phases - can_end, "phases that cannot end")
    doomed = phases - ends - phases_that_reach(end_well, table, mishaps)
    _nothing_in(doomed, "phases that cannot end well without a mishap")


def _nothing_in(wrong: Set[Enum], what: str) -> None:
    if wrong:
        raise AssertionError(f"{what}: {', '.join(sorted(member.name for member in wrong))}")


def draw_lifecycle(table: Table[P, C], start: P) -> str:
    """The lifecycle as a Mermaid state diagram, edges with the same ends drawn as one. The same table, the same text."""
    lines = ["stateDiagram-v2", f"    [*] --> {start.name}"]
    for phase, row in table.items():
        edges: dict[P, list[str]] = {}
        for cue, to in row.items():
            edges.setdefault(to, []).append(cue.name.lower())
        lines += [f"    {phase.name} --> {to.name}: {', '.join(cues)}" for to, cues in edges.items()]
        if not row:
            lines.append(f"    {phase.name} --> [*]")
    return "\n".join(lines) + "\n"
