"""`iii-trio jobs`, `job`, `cancel`, `purge`, `pause`, `resume` and `unsubscribe`: the queue in an operator's hands."""

from __future__ import annotations

import json as json_module
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal, TypeAlias

import trio
from cyclopts import Parameter

import iii_trio

from ..errors import CallError, ConnectionFailed
from ..text import count_of
from ..worker import Queues
from .calling import Deadline, connect
from .exits import Exit, Failure, UsageError
from .options import Address, check_limit, check_page, check_seconds, check_timeout, engine_address
from .output import say, to_json, visible
from .payload import json_hint
from .progress import size
from .queues import DryRun, Kind, Queue, check_queue, duration, in_words, list_queues
from .tables import AsJson, Row, View, ask, show

JobId: TypeAlias = Annotated[str, Parameter(name="ID", help="The job's id, which is its receipt.")]
Subscriber: TypeAlias = Annotated[
    str | None, Parameter(name="FUNCTION", help="One subscriber of the topic: the id of its function.")
]
InNamespace: TypeAlias = Annotated[
    str | None, Parameter(name=["--namespace", "-n"], help="The namespace of that function; `default` if not said.")
]
State: TypeAlias = Literal["waiting", "waiting_for_function", "delayed", "running", "ending", "dead"]
_WHY_SECONDS: Final = 2.0
_BEGINNING: Final = re.compile(r"[0-9a-fA-F][0-9a-fA-F-]{3,34}…?")
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
    check_limit(limit)
    check_page(after)
    check_seconds("--older", older)
    check_seconds("--newer", newer)

    async def look(worker: iii_trio.Worker) -> View:
        which = await check_queue(worker, queue, kind)
        filters = {
            "state": state, "function_id": function, "older_than_seconds": older, "newer_than_seconds": newer
        }  # fmt: skip
        said = await ask(worker, "engine::queue::jobs", {**which, **filters, "limit": limit, "after": after})
        note = "" if said["after"] is None else f"there are more: --after {said['after']}"
        return View(said, _COLUMNS, [_row(row) for row in said["jobs"]], note, spare=("size", "age"))

    return await show(look, "jobs", address, json)


def _row(row: Row) -> tuple[str, ...]:
    state = row["state"]
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
    wait: Annotated[
        bool, Parameter(negative="", help="Wait until it is done, dead or removed. Only then, 0 means that it is done.")
    ] = False,
    timeout: Annotated[float | None, Parameter(help="Seconds to wait, with --wait; for ever if not said.")] = None,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """Show one job: its state, its attempts, its last error, its trace and its payload. With --wait, how it ended.

    For example: iii-trio job 6f1c9a52-6f0e-4d8a-9a53-0c6f0f1c3d77 --wait --timeout 60
    """
    check_timeout(timeout)
    _check_id(id_)
    if timeout is not None and not wait:
        raise UsageError("--timeout is for --wait; say it, too")
    deadline = Deadline(timeout)
    ended: dict[str, Any] = {}

    async def look(worker: iii_trio.Worker) -> View:
        with hint_at_whole_id(id_):
            if wait:
                said = await wait_for(worker, id_, deadline)
                ended.update(said)
            else:
                said = await ask(worker, "engine::queue::job", {"id": id_, "payload_bytes": payload_bytes})
        rows = [(name, _text(value)) for name, value in said.items() if value is not None]
        return View(said, ("", id_), rows)

    done = await show(look, "job", address, json, deadline=deadline)
    check_done(ended)
    return done


def _check_id(id_: str) -> None:
    """Raise UsageError for an empty id, as of a shell's variable that is not set."""
    if not id_:
        raise UsageError("the job's id is empty; give its receipt, as `iii-trio enqueue` prints it")


@contextmanager
def hint_at_whole_id(id_: str) -> Iterator[None]:
    """Add to the error about an unknown job that its id is not whole, if it looks like the beginning of one."""
    try:
        yield
    except CallError as error:
        if error.code == "job_not_found" and _BEGINNING.fullmatch(id_):
            mend = "; give the whole id, of 36 characters, as `iii-trio jobs QUEUE --json` shows it"
            raise CallError(error.code, error.message + mend) from None
        raise


async def wait_for(worker: iii_trio.Worker, id_: str, deadline: Deadline) -> dict[str, Any]:
    """Wait until a job is done, dead or removed, and return its row. Raises Failure when the time is over."""
    with trio.CancelScope(deadline=deadline.at):
        return await Queues(worker).wait(id_)
    raise deadline.passed(f"job {id_} was not over", await _why_not_over(worker, id_))


async def _why_not_over(worker: iii_trio.Worker, id_: str) -> str:
    """Say what a job waits for, or nothing if the engine does not tell at once."""
    # The time of the command is over, so an engine that does not answer must not add to it.
    with trio.move_on_after(_WHY_SECONDS):
        try:
            row = await Queues(worker).job(id_, payload_bytes=0)
            queues = await Queues(worker).list()
        # It is over meanwhile, or the engine is another one.
        except (CallError, ConnectionFailed):
            return ""
        return _what_it_waits_for(row, queues)
    return ""


def _what_it_waits_for(row: Row, queues: list[Row]) -> str:
    """Say what a job waits for, of its own row and those of the queues."""
    there = next((one for one in queues if (one["kind"], one["name"]) == (row["kind"], row["queue"])), {})
    function = visible(row["function_id"])
    if row["namespace"] != "default":
        function += f" in namespace {visible(row['namespace'])}"
    failed = f" after {count_of(row['failed'], 'failed call')}" if row["failed"] else ""
    # A paused queue starts nothing, whatever else its jobs wait for.
    if there.get("paused") and row["state"] != "running":
        name = visible(row["queue"])
        return f"{row['kind']} {name} is paused; `iii-trio resume {name}` starts its jobs again"
    match row["state"]:
        case "waiting_for_function":
            return f"it waits for the function {function}, which no worker offers"
        case "delayed":
            return f"it is to be called in {duration(row['due_seconds'])}{failed}"
        case "running":
            return f"{function} still runs"
        case "waiting":
            return "it waits for its turn"
    return ""


def check_done(row: Row, pairs: Sequence[str] = ()) -> None:
    """Raise CallError with the last error of a job that is dead, and Failure for one that was removed.

    The error ends with a hint if one of the job's `key=value` pairs is the cause.
    """
    match row.get("state"):
        case "dead":
            raise CallError(row["code"], row["message"] + json_hint(row["message"], pairs))
        case "removed":
            raise Failure(Exit.FAILED, f"job {row['id']} was cancelled or purged")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_module.dumps(value, ensure_ascii=False)


async def cancel(id_: JobId, /, *, json: AsJson = False, address: Address = None) -> Exit:
    """Remove one job that waits or runs. A handler that runs is cancelled, if its SDK supports that.

    For example: iii-trio cancel 6f1c9a52-6f0e-4d8a-9a53-0c6f0f1c3d77
    """
    _check_id(id_)
    async with connect(engine_address(address), "cancel") as worker:
        with hint_at_whole_id(id_):
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
    name = visible(queue if function is None else f"{function} of {queue}")
    if json:
        say(to_json(said))
    elif not said["purged"]:
        say(f"no job of {name} waits")
    else:
        say(
            f"{count_of(said['purged'], 'job')} of {name} {_removed(said['purged'], dry_run)}: {in_words(said['by_state'])}"
        )
    return Exit.DONE


def _removed(count: int, dry_run: bool) -> str:
    return "would be removed" if dry_run else "is removed" if count == 1 else "are removed"


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
        request = {"topic": topic, "dry_run": dry_run} | _one(function, namespace)
        said = await ask(worker, "engine::queue::unsubscribe", request)
        if not said["unsubscribed"]:
            raise UsageError(await _no_subscriber(worker, topic, function, namespace))
    if json:
        say(to_json(said))
        return Exit.DONE
    ends = "would not be a subscriber" if dry_run else "is not a subscriber"
    count = said["purged"]
    jobs = f"; {count_of(count, 'job')} {_removed(count, dry_run)}: {in_words(said['by_state'])}" if count else ""
    say(f"{visible(function)} {ends} of {visible(topic)} any more{jobs}")
    return Exit.DONE


async def _no_subscriber(worker: iii_trio.Worker, topic: str, function: str, namespace: str | None) -> str:
    """Say who the subscribers are, because a misspelt name or namespace is the usual reason."""
    rows = (await list_queues(worker))["queues"]
    there = [one for row in rows if (row["kind"], row["name"]) == ("topic", topic) for one in row["subscribers"]]
    if not there:
        return f"topic `{topic}` has no subscribers; `iii-trio queues` shows the topics that have some"
    names = ", ".join(
        one["function_id"]
        if one["namespace"] == "default"
        else f"{one['function_id']} (--namespace {one['namespace']})"
        for one in there
    )
    asked = function if namespace is None else f"{function} in {namespace}"
    return f"{asked} is not a subscriber of topic `{topic}`; there are {names}"


def _one(function: str | None, namespace: str | None) -> dict[str, Any]:
    """Return the members of a payload that name one subscriber."""
    given = {"function_id": function, "namespace": namespace}
    return {key: value for key, value in given.items() if value is not None}
