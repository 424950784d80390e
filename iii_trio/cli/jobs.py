"""`iii-trio jobs`, `job`, `cancel`, `purge`, `pause`, `resume` and `unsubscribe`: the queue in an operator's hands."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter

import iii_trio

from .calling import connect
from .exits import Exit, UsageError
from .options import Address, engine_address
from .output import say, to_json, visible
from .progress import size
from .queues import DryRun, Kind, Queue, check_queue, duration
from .tables import AsJson, Row, View, ask, show

JobId: TypeAlias = Annotated[str, Parameter(name="ID", help="The job's id, which is its receipt.")]
Subscriber: TypeAlias = Annotated[
    str | None, Parameter(name="FUNCTION", help="One subscriber of the topic: the id of its function.")
]
InNamespace: TypeAlias = Annotated[
    str | None, Parameter(name=["--namespace", "-n"], help="The namespace of that function; `default` if not said.")
]
State: TypeAlias = Literal["waiting", "running", "delayed", "waiting_for_function", "dead"]
_COLUMNS = ("id", "function", "state", "age", "failed", "error", "size")


async def jobs(
    queue: Queue,
    /,
    *,
    state: Annotated[State | None, Parameter(help="Only jobs in this state.")] = None,
    function: Annotated[str | None, Parameter(help="Only jobs that call this function.")] = None,
    older: Annotated[float | None, Parameter(help="Only jobs that came more than so many seconds ago.")] = None,
    newer: Annotated[float | None, Parameter(help="Only jobs that came less than so many seconds ago.")] = None,
    limit: Annotated[int, Parameter(help="The largest number of jobs on a page, up to 500.")] = 50,
    after: Annotated[int, Parameter(help="The page to show: the number that stands below the page before.")] = 0,
    kind: Kind = None,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """List the jobs of a queue or topic by page, the oldest first.

    For example: iii-trio jobs mail --state delayed
    """
    if limit < 1:
        raise UsageError(f"--limit is {limit}; give at least 1")

    async def look(worker: iii_trio.Worker) -> View:
        which = await check_queue(worker, queue, kind)
        filters = {
            "state": state, "function_id": function, "older_than_seconds": older, "newer_than_seconds": newer
        }  # fmt: skip
        said = await ask(worker, "engine::queue::jobs", {**which, **filters, "limit": limit, "after": after})
        note = "" if said["after"] is None else f"there are more: --after {said['after']}"
        return View(said, _COLUMNS, [_row(row) for row in said["jobs"]], note, spare=("size", "age"))

    return await show(look, "jobs", address, json, watch=False, every=1.0)


def _row(row: Row) -> tuple[str, ...]:
    state = row["state"].replace("_", " ")
    if row["due_seconds"] is not None:
        state += f" for {duration(row['due_seconds'])}"
    error = "" if row["code"] is None else " ".join(f"{row['code']}: {row['message']}".split())
    failed = f"{row['failed']}" + (f", {row['lost']} lost" if row["lost"] else "")
    return (
        row["id"], row["function_id"], state, duration(row["age_seconds"]), failed, error, size(row["size_bytes"])
    )  # fmt: skip


async def job(
    id_: JobId,
    /,
    *,
    payload_bytes: Annotated[int, Parameter(help="How much of the payload is shown.")] = 4096,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """Show one job: its state, its attempts, its last error, its trace and its payload.

    For example: iii-trio job 6f1c9a52-6f0e-4d8a-9a53-0c6f0f1c3d77 --json
    """

    async def look(worker: iii_trio.Worker) -> View:
        said = await ask(worker, "engine::queue::job", {"id": id_, "payload_bytes": payload_bytes})
        rows = [(name, _text(value)) for name, value in said.items() if value is not None]
        return View(said, ("", id_), rows)

    return await show(look, "job", address, json, watch=False, every=1.0)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_module.dumps(value, ensure_ascii=False)


async def cancel(id_: JobId, /, *, json: AsJson = False, address: Address = None) -> Exit:
    """Remove one job that waits or runs. A handler that runs is cancelled, if its SDK supports that.

    For example: iii-trio cancel 6f1c9a52-6f0e-4d8a-9a53-0c6f0f1c3d77
    """
    async with connect(engine_address(address), "cancel") as worker:
        said = await ask(worker, "engine::queue::cancel", {"id": id_})
    say(to_json(said) if json else f"job {visible(id_)} is cancelled; it was {said['was'].replace('_', ' ')}")
    return Exit.DONE


async def purge(
    queue: Queue,
    function: Subscriber = None,
    /,
    *,
    dry_run: DryRun = False,
    namespace: InNamespace = None,
    kind: Kind = None,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """Remove all jobs that wait in a queue, a topic, or for one subscriber. Jobs that run go on.

    For example: iii-trio purge mail --dry-run
    """
    async with connect(engine_address(address), "purge") as worker:
        which = await check_queue(worker, queue, kind)
        about = _one(function, namespace)
        said = await ask(worker, "engine::queue::purge", {**which, **about, "dry_run": dry_run})
    if json:
        say(to_json(said))
    else:
        say(f"{said['purged']} waiting jobs of {visible(queue)} {'would be' if dry_run else 'are'} removed")
    return Exit.DONE


async def pause(
    queue: Queue,
    function: Subscriber = None,
    /,
    *,
    namespace: InNamespace = None,
    kind: Kind = None,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """Start no more jobs of a queue, a topic, or one subscriber, also after a restart. Jobs that run go on.

    For example: iii-trio pause mail
    """
    return await _pause_or_resume("pause", queue, function, namespace, kind, json, address)


async def resume(
    queue: Queue,
    function: Subscriber = None,
    /,
    *,
    namespace: InNamespace = None,
    kind: Kind = None,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """Start the jobs again of a queue, a topic, or one subscriber that was paused.

    For example: iii-trio resume mail
    """
    return await _pause_or_resume("resume", queue, function, namespace, kind, json, address)


async def _pause_or_resume(
    verb: str,
    queue: str,
    function: str | None,
    namespace: str | None,
    kind: str | None,
    json: bool,
    address: str | None,
) -> Exit:
    async with connect(engine_address(address), verb) as worker:
        which = await check_queue(worker, queue, kind)
        said = await ask(worker, f"engine::queue::{verb}", which | _one(function, namespace))
    name = visible(queue if function is None else f"{function} of {queue}")
    say(to_json(said) if json else f"{name} is {verb}d")
    return Exit.DONE


async def unsubscribe(
    topic: Annotated[str, Parameter(help="The name of the topic.")],
    function: Annotated[str, Parameter(name="FUNCTION", help="The id of the subscriber's function.")],
    /,
    *,
    dry_run: DryRun = False,
    namespace: InNamespace = None,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """End the subscription of a subscriber that is away, and remove the jobs that wait for it.

    For example: iii-trio unsubscribe orders shop::on_order --dry-run
    """
    async with connect(engine_address(address), "unsubscribe") as worker:
        await check_queue(worker, topic, "topic")
        request = {"topic": topic, "dry_run": dry_run} | _one(function, namespace)
        said = await ask(worker, "engine::queue::unsubscribe", request)
    if not said["unsubscribed"]:
        raise UsageError(f"{topic} has no subscriber {function}; `iii-trio queues --json` shows which it has")
    if json:
        say(to_json(said))
    else:
        would = "would be" if dry_run else "are"
        say(f"{visible(function)} and its {said['purged']} jobs of {visible(topic)} {would} removed")
    return Exit.DONE


def _one(function: str | None, namespace: str | None) -> dict[str, Any]:
    """Return the members of a payload that name one subscriber."""
    given = {"function_id": function, "namespace": namespace}
    return {key: value for key, value in given.items() if value is not None}
