"""`iii-trio dead-letters`, `redrive` and `discard`: the jobs that failed for good, and what becomes of them."""

from __future__ import annotations

import time
from typing import Annotated, Final

from cyclopts import Parameter

import iii_trio

from ..errors import CallError
from .calling import connect
from .exits import Exit, UsageError
from .options import Address, check_function, check_limit, engine_address
from .output import say, to_json, visible
from .progress import size
from .queues import DryRun, Kind, Queue, check_queue, duration
from .tables import AsJson, Row, View, ask, show


async def dead_letters(
    queue: Queue,
    /,
    *,
    limit: Annotated[int, Parameter(help="How many are shown, the newest first.")] = 50,
    kind: Kind = None,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """List the dead letters of a queue or topic: jobs that failed for the last time, and why.

    For example: iii-trio dead-letters mail
    """
    check_limit(limit)

    async def look(worker: iii_trio.Worker) -> View:
        which = await check_queue(worker, queue, kind)
        # The table shows no payloads, and they may be large.
        said = await ask(worker, "engine::queue::dlq_messages", {**which, "limit": limit, "payloads": json})
        there = (await ask(worker, "engine::queue::topic_stats", which))["dlq_depth"]
        note = f"{len(said)} of {there} are shown; --limit shows more" if there > len(said) else ""
        return View(said, ("id", "function", "error", "calls", "died", "size"), [_row(row) for row in said], note)

    return await show(look, "dead-letters", address, json)


def _row(row: Row) -> tuple[str, ...]:
    function = row["function_id"] if row["namespace"] == "default" else f"{row['function_id']} in {row['namespace']}"
    lost = f", {row['lost']} lost" if row["lost"] else ""
    return (
        row["id"],
        function,
        " ".join(row["error"].split()),
        f"{row['retries']} failed{lost}",
        f"{duration(max(0.0, time.time() - row['failed_at']))} ago",
        size(row["size_bytes"]),
    )


One = Annotated[
    str | None, Parameter(name="ID", help="The id of one dead letter, or how it begins. Without it: all of them.")
]
_WHOLE_ID: Final = 36
_PAGE: Final = 100


async def redrive(
    queue: Queue,
    id_: One = None,
    /,
    *,
    to: Annotated[str | None, Parameter(help="The id of another function, which is to do them.")] = None,
    limit: Annotated[int | None, Parameter(help="The largest number of dead letters, the oldest first.")] = None,
    kind: Kind = None,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """Make dead letters jobs again, with all their attempts, behind what waits.

    For example: iii-trio redrive mail
    """
    if id_ is not None and (to is not None or limit is not None):
        raise UsageError("--to and --limit are for all dead letters of a queue; leave out the id")
    if to is not None:
        check_function(to)
    check_limit(limit)
    async with connect(engine_address(address), "redrive") as worker:
        which = await check_queue(worker, queue, kind)
        if id_ is None:
            request = {**which, "count": limit, "to_function_id": to}
            count = (await ask(worker, "iii::queue::redrive", request))["redriven"]
        else:
            whole = await _find(worker, queue, which, id_)
            said = await ask(worker, "iii::queue::redrive_message", {**which, "message_id": whole})
            count = _checked(said["redriven"], queue, id_)
    if json:
        say(to_json({"queue": queue, "redriven": count}))
    else:
        _tell(queue, count, "is a job again", "are jobs again")
    return Exit.DONE


async def discard(
    queue: Queue,
    id_: Annotated[str | None, Parameter(name="ID", help="The id of one dead letter, or how it begins.")] = None,
    /,
    *,
    all_: Annotated[bool, Parameter(name="--all", negative="", help="All of them.")] = False,
    dry_run: DryRun = False,
    kind: Kind = None,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """Throw dead letters away: one, or with --all every one of the queue.

    For example: iii-trio discard mail --all
    """
    if (id_ is None) is not all_:
        raise UsageError("name one dead letter, or say --all" + ("; not both" if all_ else ""))
    async with connect(engine_address(address), "discard") as worker:
        which = await check_queue(worker, queue, kind)
        if id_ is None:
            count = (await ask(worker, "engine::queue::discard", {**which, "dry_run": dry_run}))["discarded"]
        else:
            whole = await _find(worker, queue, which, id_)
            count = 1
            if not dry_run:
                said = await ask(worker, "iii::queue::discard_message", {**which, "message_id": whole})
                count = _checked(said["redriven"], queue, id_)
    if json:
        say(to_json({"queue": queue, "discarded": count, "dry_run": dry_run}))
    elif dry_run:
        _tell(queue, count, "would be gone", "would be gone")
    else:
        _tell(queue, count, "is gone", "are gone")
    return Exit.DONE


async def _find(worker: iii_trio.Worker, queue: str, which: dict[str, str], given: str) -> str:
    """Return the whole id of the dead letter whose id begins with `given`.

    Raises UsageError if several do, and CallError if none does.
    """
    start = given.removesuffix("…")  # as tables show it
    if not start:
        raise UsageError("the id of the dead letter is empty; give its first characters at least")
    if len(start) == _WHOLE_ID:
        return start
    found: list[str] = []
    offset = 0
    while True:
        request = {**which, "offset": offset, "limit": _PAGE, "payloads": False}
        page = await ask(worker, "engine::queue::dlq_messages", request)
        found += [row["id"] for row in page if row["id"].startswith(start)]
        offset += len(page)
        # A page may be short because its rows are long.
        if not page or "more" not in page[-1]:
            break
    if len(found) > 1:
        raise UsageError(f"{len(found)} dead letters of {queue} have ids that begin with {start}; give more of the id")
    if not found:
        raise _none_of(queue, given)
    return found[0]


def _none_of(queue: str, id_: str) -> CallError:
    """Return the error that other commands about one job get of the engine, so that its exit code is theirs."""
    return CallError(
        "job_not_found", f"{queue} has no dead letter {id_}; `iii-trio dead-letters {queue}` shows what it has"
    )


def _checked(count: int, queue: str, id_: str) -> int:
    if not count:
        raise _none_of(queue, id_)
    return count


def _tell(queue: str, count: int, of_one: str, of_several: str) -> None:
    match count:
        case 0:
            say(f"{visible(queue)} has no dead letters")
        case 1:
            say(f"1 dead letter of {visible(queue)} {of_one}")
        case _:
            say(f"{count} dead letters of {visible(queue)} {of_several}")
