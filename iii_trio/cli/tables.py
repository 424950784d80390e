"""`iii-trio functions`, `workers`, `channels`, `triggers`: what an engine has, as tables or JSON, once or watched."""

from __future__ import annotations

import json as json_module
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final, TypeAlias

import trio
from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

import iii_trio

from ..errors import CallError
from ..records import frozen
from ..triggers.table import MODULES
from ..wire import ErrorCode
from . import output
from .calling import Deadline, call, connect
from .exits import Exit, Failure, UsageError
from .options import Address, engine_address
from .progress import size

Row: TypeAlias = dict[str, Any]
AsJson: TypeAlias = Annotated[
    bool, Parameter(name="--json", negative="", help="One line of JSON, as the engine tells it, instead of a table.")
]
Watch: TypeAlias = Annotated[
    bool, Parameter(name=["--watch", "-w"], negative="", help="Show it again and again, until interrupted.")
]
Every: TypeAlias = Annotated[float, Parameter(name="--every", help="With --watch: the seconds between.")]
All: TypeAlias = Annotated[bool, Parameter(name="--all", negative="", help="The engine's own, too.")]

_MODULE_WORKERS: Final = frozenset(module.worker for module in MODULES)
"""The workers of the engine's own modules. Their functions are shown with `--all`."""
_INTERNAL_WORKERS: Final = _MODULE_WORKERS | {"iii-engine-functions"}
"""The workers that are shown with `--all`."""
_UUID: Final = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_ANSWER_SECONDS = 10.0
_PAGE_ROWS: Final = 1000


@frozen
class View:
    """One answer of the engine, and the table that shows it."""

    said: Any
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    """What stands below it."""
    spare: Sequence[str] = ()
    """The columns that are left out where there is no room for all, the first one first."""


async def functions(
    *, all_: All = False, json: AsJson = False, watch: Watch = False, every: Every = 1.0, address: Address = None
) -> Exit:
    """List the functions that can be called.

    For example: iii-trio functions --json
    """

    async def look(worker: iii_trio.Worker) -> View:
        said = await ask_list(worker, "engine::functions::list", "functions", {"include_internal": all_})
        rows = [
            (row["function_id"], row["namespace"], _worker_of(row), row.get("description") or "")
            for row in said["functions"]
            if all_ or row.get("worker_name") not in _MODULE_WORKERS
        ]
        return View(said, ("function", "namespace", "worker", "description"), rows)

    return await show(look, "functions", address, json, watch, every)


def _worker_of(row: Row) -> str:
    """Return a function's worker, its node if it is another one's, and how many others stand by for it."""
    waiting = len(row.get("standby_workers") or ())
    return (row.get("worker_name") or "") + _at_node(row) + (f" (+{waiting} standing by)" if waiting else "")


def _at_node(row: Row) -> str:
    return f" at node {row['node']}" if row.get("node") else ""


async def workers(
    *,
    all_: Annotated[
        bool,
        Parameter(
            name="--all",
            negative="",
            help="Those without a process id, such as browsers and unnamed sessions, and the engines' own, too.",
        ),
    ] = False,
    json: AsJson = False,
    watch: Watch = False,
    every: Every = 1.0,
    address: Address = None,
) -> Exit:
    """List the workers that are connected."""

    async def look(worker: iii_trio.Worker) -> View:
        said = await ask_list(worker, "engine::workers::list", "workers", {"include_internal": all_})
        said["workers"] = [
            row
            for row in said["workers"]
            if row["name"] != worker.name  # the worker of this command
            and (all_ or not _is_internal(row))
        ]
        rows = [
            (
                (row.get("name") or "") + _at_node(row),
                row["id"],
                row["namespace"],
                " ".join(filter(None, (row.get("runtime"), row.get("version")))),
                str(row["function_count"]),
                str(row["active_invocations"]),
                row.get("ip_address") or row.get("isolation") or "",
            )
            for row in said["workers"]
        ]
        headings = ("worker", "id", "namespace", "runtime", "functions", "calls", "at")
        return View(said, headings, rows, spare=("id", "at"))

    return await show(look, "workers", address, json, watch, every)


def _is_internal(row: Row) -> bool:
    # Only workers in the engine's own process have this status, so no other worker hides itself by such a name.
    return row.get("status") == "available" and row["name"] in _INTERNAL_WORKERS


async def triggers(
    *, all_: All = False, json: AsJson = False, watch: Watch = False, every: Every = 1.0, address: Address = None
) -> Exit:
    """List the trigger types, and the functions that are bound to them."""

    async def look(worker: iii_trio.Worker) -> View:
        wanted = {"include_internal": all_}
        said = await ask_list(worker, "engine::triggers::list", "triggers", wanted)
        wanted |= {"include_waiting": True}
        said |= await ask_list(worker, "engine::registered-triggers::list", "registered_triggers", wanted)
        types, bound = said["triggers"], said["registered_triggers"]
        rows = [
            (row["trigger_type"], row["function_id"], row.get("worker_name") or "", row["id"], _brief(row))
            for row in bound
        ]
        in_use = {row["trigger_type"] for row in bound}
        unused = [each for each in types if each["id"] not in in_use]
        rows += [(each["id"], "", each.get("worker_name") or "", "", each.get("description") or "") for each in unused]
        return View(said, ("type", "function", "worker", "binding", "details"), sorted(rows))

    return await show(look, "triggers", address, json, watch, every)


async def channels(
    *,
    ended: Annotated[
        bool, Parameter(name="--ended", negative="", help="Those that ended last, and why, instead of the open ones.")
    ] = False,
    json: AsJson = False,
    watch: Watch = False,
    every: Every = 1.0,
    address: Address = None,
) -> Exit:
    """List the open channels: who waits for whom, and why; or how the last ones ended.

    With --watch also their rates. For example: iii-trio channels --ended
    """
    passed: dict[str, tuple[float, int]] = {}

    async def look(worker: iii_trio.Worker) -> View:
        if ended:
            return _ended(await ask(worker, "engine::channels::ended", {}))
        said = await ask_list(worker, "engine::channels::list", "channels", {})
        now = trio.current_time()
        rows = []
        for row in said["channels"]:
            before = passed.get(row["id"])
            rate = ""
            if before is not None and now > before[0]:
                rate = f"{size((row['bytes_passed'] - before[1]) / (now - before[0]))}/s"
            rows.append((
                row["id"], row["phase"], _named(row, "owner"), _named(row, "writer"), _named(row, "reader"),
                size(row["bytes_passed"]), rate, f"{size(row['bytes_waiting'])} of {size(row['max_bytes'])}",
                f"{row['age_seconds']:.0f} s", f"{row['idle_seconds']:.0f} s", _who_waits(row),
            ))  # fmt: skip
        passed.clear()
        passed.update({row["id"]: (now, row["bytes_passed"]) for row in said["channels"]})
        headings = ("channel", "phase", "owner", "writer", "reader", "passed", "rate", "in the pipe", "age", "idle", "")
        return View(said, headings, rows, spare=("age", "idle", "owner", "passed", "phase", "writer", "reader"))

    return await show(look, "channels", address, json, watch, every)


def _ended(said: Any) -> View:
    rows = [
        (
            row["id"],
            row["outcome"],
            ": ".join(filter(None, (row["code"], row["reason"]))),
            f"{row['ended_seconds_ago']:.0f} s ago",
            f"{row['lasted_seconds']:.0f} s",
        )
        for row in said["channels"]
    ]
    return View(said, ("channel", "outcome", "why", "ended", "lasted"), rows)


def _named(row: Row, role: str) -> str:
    return str(row.get(f"{role}_name") or row[role] or "")


def _who_waits(row: Row) -> str:
    """Describe which end waits for which, and why."""
    writer, reader = _named(row, "writer") or "the writer", _named(row, "reader") or "the reader"
    missing = {"awaiting_reader": "a reader is to come", "awaiting_writer": "a writer is to come"}.get(row["phase"], "")
    why = {
        "writer for reader": f"{writer} waits for {reader}: the pipe is full",
        "reader for writer": f"{reader} waits for {writer}: the pipe is empty",
    }.get(row.get("waiting", ""), "")
    return ", ".join(filter(None, (missing, why)))


def _brief(row: Row) -> str:
    if row.get("waiting"):
        return f"waits: {row['waiting']}"
    summary = row.get("config_summary")
    if summary is None or isinstance(summary, str):
        return summary or ""
    return json_module.dumps(summary, ensure_ascii=False)


async def ask(worker: iii_trio.Worker, function: str, payload: Row) -> Any:
    """Call one of the engine's own functions. Raises CallError, ConnectionFailed, and Failure for no answer."""
    return await call(worker, function, payload, namespace=None, deadline=Deadline(_ANSWER_SECONDS))


async def ask_list(worker: iii_trio.Worker, function: str, name: str, payload: Row) -> Any:
    """Call one of the engine's lists, page after page, and return all its rows under `name`. Raises as `ask` does."""
    rows: list[Row] = []
    # An engine without pages ignores the limit, and answers with the whole list and no `after`.
    page: Row = {"after": None}
    while True:
        page = await ask(worker, function, {**payload, "limit": _PAGE_ROWS, "after": page["after"]})
        rows += page[name]
        if page.get("after") is None:
            return {name: rows}


async def ask_module(worker: iii_trio.Worker, function_id: str, absent: str, payload: Row | None = None) -> Any:
    """Call a module's function. Raises Failure, which says `absent`, if the engine lacks the module."""
    try:
        return await ask(worker, function_id, payload or {})
    except CallError as error:
        # Only a missing function means that the engine lacks the module.
        if error.code != ErrorCode.FUNCTION_NOT_FOUND:
            raise
        raise Failure(Exit.CALL_FAILED, f"{error.code}: {absent}") from None


async def show(
    look: Callable[[iii_trio.Worker], Awaitable[View]],
    command: str,
    address: str | None,
    json: bool,
    watch: bool = False,
    every: float = 1.0,
    deadline: Deadline | None = None,
) -> Exit:
    """Look once, or, watching, until a signal ends the command. `deadline` is for the connection."""
    # Zero would load the engine without a pause.
    if not every > 0:
        raise UsageError(f"--every is {every:g}; give a number of seconds above 0")
    async with connect(engine_address(address), command, deadline) as worker:
        # Redrawing needs a terminal, and a program wants one answer after the other.
        if watch and not json and output.is_terminal(sys.stdout):
            with output.screen(output.new_console()):
                while True:
                    view, console = await look(worker), output.new_console()  # a new one: it may be resized
                    output.redraw(_shown(view, console), console)
                    await trio.sleep(every)
        while True:
            view = await look(worker)
            if json:
                output.say(output.to_json(view.said))
            else:
                console = output.new_console()
                output.draw(_shown(view, console), console)
            if not watch:
                return Exit.DONE
            await trio.sleep(every)


def _shown(view: View, console: Console) -> Group:
    """Draw the table as wide as there is room. Ids are shortened before they are folded, and spare columns left out."""
    headings, rows = list(view.headings), [list(row) for row in view.rows]
    spare = list(view.spare)
    table = _table(headings, rows)
    # The beginning of an id is enough for a person to tell rows apart.
    if table.__rich_measure__(console, console.options).maximum > console.width:
        rows = [[_UUID.sub(r"\1…", cell) for cell in row] for row in rows]
        table = _table(headings, rows)
    # A folded table is harder to read than one without its least important columns.
    while spare and table.__rich_measure__(console, console.options).maximum > console.width:
        column = headings.index(spare.pop(0))
        headings.pop(column)
        for row in rows:
            row.pop(column)
        table = _table(headings, rows)
    return Group(table if rows else "none", *([Text(output.visible(view.note))] if view.note else ()))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*headings, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row in rows:
        table.add_row(*(Text(output.visible(cell)) for cell in row))
    return table
