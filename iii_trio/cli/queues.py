"""`iii-trio queues`: the queues and topics of an engine, and where their jobs are."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter

import iii_trio

from ..errors import CallError
from ..wire import ErrorCode
from .exits import Exit, Failure, UsageError
from .options import Address
from .tables import AsJson, Every, Row, View, Watch, ask, show

Queue: TypeAlias = Annotated[str, Parameter(help="The name of a queue, or of a topic.")]


async def queues(*, json: AsJson = False, watch: Watch = False, every: Every = 1.0, address: Address = None) -> Exit:
    """List the queues and topics: how many jobs are where, how many are done a second, and what they wait for.

    For example: iii-trio queues --watch
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
        ", ".join(row["waits_for"]),
    )


async def list_queues(worker: iii_trio.Worker) -> Any:
    """What the engine says of its queues. Raises Failure for an engine that has none."""
    try:
        return await ask(worker, "engine::queue::list", {})
    except CallError as error:
        if error.code != ErrorCode.FUNCTION_NOT_FOUND:
            raise
        sentence = "this engine has no queue: its configuration says so, or it is not one of iii-trio's"
        raise Failure(Exit.CALL_FAILED, f"{error.code}: {sentence}") from None


async def check_queue(worker: iii_trio.Worker, name: str) -> None:
    """Raises UsageError for a queue or topic that is not there, and says which are."""
    names = [row["name"] for row in (await list_queues(worker))["queues"]]
    if name not in names:
        raise UsageError(f"there is no queue or topic `{name}`; there are {', '.join(names)}")


def duration(seconds: float) -> str:
    """How long, for people: its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
