"""`iii-trio queues`: the queues and topics of an engine, and where their jobs are."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter

import iii_trio

from ..text import count_of
from .exits import Exit, UsageError
from .options import Address
from .tables import AsJson, Every, Row, View, Watch, ask_module, show

Queue: TypeAlias = Annotated[str, Parameter(help="The name of a queue, or of a topic.")]
Kind: TypeAlias = Annotated[
    Literal["queue", "topic"] | None,
    Parameter(name="--kind", help="Which one is meant, where a queue and a topic have the same name."),
]
DryRun: TypeAlias = Annotated[
    bool, Parameter(name="--dry-run", negative="", help="Only say how many jobs it would be.")
]


async def queues(*, json: AsJson = False, watch: Watch = False, every: Every = 1.0, address: Address = None) -> Exit:
    """List the queues and topics: how many jobs are where, how many are done a second, and what they wait for.

    A subscriber of a topic that is away is named, with the time since when. For example: iii-trio queues --watch
    """

    async def look(worker: iii_trio.Worker) -> View:
        said = await list_queues(worker)
        headings = ("queue", "kind", "jobs", "running", "delayed", "dead", "done", "oldest", "waits for")
        return View(said, headings, [_row(row) for row in said["queues"]], f"jobs are kept in {said['storage']}")

    return await show(look, "queues", address, json, watch, every)


def _row(row: Row) -> tuple[str, ...]:
    oldest = row["oldest_seconds"]
    return (
        row["name"],
        row["kind"],
        *(str(row[key]) for key in ("depth", "running", "delayed", "dead")),
        f"{row['done_per_second']:.1f}/s",
        "" if oldest is None else duration(oldest),
        ", ".join([*_own(row), *_functions(row), *_away(row)]),
    )


def _own(row: Row) -> list[str]:
    """Say what its jobs wait for that is not a function: the end of a pause, or of the engine's start."""
    found = []
    if row.get("paused"):
        found.append("resume (it is paused)")
    if row.get("loading"):
        found.append(f"the engine's start ({row['loading']} are loading)")
    return found


def _functions(row: Row) -> list[str]:
    """Name the functions that are missing, but not the subscribers that `_away` names."""
    away = [one for one in row.get("subscribers", ()) if one["away_since_ms"] is not None]
    named = {f"{one['function_id']} in {one['namespace']}" for one in away}
    return [function for function in row["waits_for"] if function not in named]


def _away(row: Row) -> list[str]:
    """Name the subscribers of a topic that are away, each with how long it has been, and those that are paused."""
    found = []
    for one in row.get("subscribers", ()):
        if one["away_since_ms"] is not None:
            away = duration(max(0.0, time.time() - one["away_since_ms"] / 1000))
            found.append(f"{one['function_id']} (away for {away}, {count_of(one['depth'], 'job')})")
        # A paused topic is named once, and not again for each subscriber.
        elif one.get("paused") and not row.get("paused"):
            found.append(f"{one['function_id']} (paused)")
    return found


async def list_queues(worker: iii_trio.Worker) -> Any:
    """Return the engine's description of its queues. Raises Failure for an engine that has none."""
    absent = "this engine has no queue: its configuration says so, or it is not one of iii-trio's"
    return await ask_module(worker, "engine::queue::list", absent)


async def check_queue(worker: iii_trio.Worker, name: str, kind: str | None = None) -> dict[str, str]:
    """Return the queue or topic that is meant, as the payload of the queue's functions.

    Raises UsageError if there is none, and if there are both and `kind` does not say which.
    """
    rows = (await list_queues(worker))["queues"]
    kinds = [row["kind"] for row in rows if row["name"] == name]
    # A name of the other kind must not be taken by mistake.
    if kind is not None and kind not in kinds:
        kinds = []
    if not kinds:
        names = ", ".join(dict.fromkeys(row["name"] for row in rows if kind in (None, row["kind"])))
        there = f"there are {names}" if names else f"there is no {kind or 'queue or topic'} at all"
        raise UsageError(f"there is no {kind or 'queue or topic'} `{name}`; {there}")
    # Guessing could purge the wrong jobs.
    if kind is None and len(kinds) > 1:
        raise UsageError(f"there are a queue and a topic `{name}`; say --kind queue or --kind topic")
    return {kind or kinds[0]: name}


def in_words(counts: dict[str, int]) -> str:
    """Return numbers of jobs by state, for people: `2 waiting, 1 delayed`."""
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def duration(seconds: float) -> str:
    """Return a length of time in its largest unit, for people."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        # Below two of a unit, the smaller unit is more exact.
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
