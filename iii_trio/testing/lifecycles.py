"""Checks and drawings of state tables `{state: {event: next_state}}`."""

from __future__ import annotations

from collections.abc import Set
from enum import Enum
from typing import TypeVar

from ..state_machine import Table

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


def states_that_reach(goal: S, table: Table[S, E], without: Set[E] = frozenset()) -> set[S]:
    """Return the states from which `goal` can be reached without some events, `goal` among them."""
    found = {goal}
    while True:
        more = {
            state
            for state, row in table.items()
            if any(to in found for event, to in row.items() if event not in without)
        }
        # Nothing new in a round means that no later round can find anything either.
        if more <= found:
            return found
        found |= more


def check_lifecycle(table: Table[S, E], start: S, end_well: S, mishaps: Set[E] = frozenset()) -> None:
    """Check that a lifecycle has no gaps and no dead ends, and that it can always still end well.

    - Every state has a row and can be reached from `start`.
    - Every event has an effect in some state.
    - From every state an end can be reached.
    - From every state that is not an end, `end_well` can be reached without any of `mishaps`.

    Raises AssertionError, which names the states or events at fault.
    """
    states = set(type(start))
    events = {event for row in table.values() for event in row}
    _nothing_in(states - set(table), "states without a row")
    # The enum of the events is known only from an event, and a table may have none.
    if events:
        _nothing_in(set(type(next(iter(events)))) - events, "events without an effect")
    _nothing_in({state for state in states if start not in states_that_reach(state, table)}, "states never reached")
    ends = {state for state in states if not table[state]}
    can_end = {state for end in ends for state in states_that_reach(end, table)}
    _nothing_in(states - can_end, "states that cannot end")
    doomed = states - ends - states_that_reach(end_well, table, mishaps)
    _nothing_in(doomed, "states that cannot end well without a mishap")


def _nothing_in(wrong: Set[Enum], what: str) -> None:
    if wrong:
        raise AssertionError(f"{what}: {', '.join(sorted(member.name for member in wrong))}")


def draw_lifecycle(table: Table[S, E], start: S) -> str:
    """Draw the lifecycle as a Mermaid state diagram, in which edges with the same ends are one.

    The same table gives the same text.
    """
    lines = ["stateDiagram-v2", f"    [*] --> {start.name}"]
    for state, row in table.items():
        edges: dict[S, list[str]] = {}
        for event, to in row.items():
            edges.setdefault(to, []).append(event.name.lower())
        lines += [f"    {state.name} --> {to.name}: {', '.join(events)}" for to, events in edges.items()]
        # Mermaid shows a state as final only if it has an edge to the end mark.
        if not row:
            lines.append(f"    {state.name} --> [*]")
    return "\n".join(lines) + "\n"
