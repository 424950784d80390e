"""`iii-trio traces`: the traces that an engine recorded, as a list, or one of them as a waterfall."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from cyclopts import Parameter

import iii_trio

from ..errors import CallError
from ..wire import ErrorCode
from . import output
from .exits import Exit, Failure, UsageError
from .options import Address, check_limit, check_seconds
from .tables import AsJson, Every, Row, View, Watch, ask, show

ABSENT: Final = "this engine records no traces: its configuration says so, or it is not one of iii-trio's"
_BAR: Final = 30
"""Columns of the bars of a waterfall."""
_DIGITS: Final = 32
_DAY_SECONDS: Final = 86_400.0
_MAX_CELL: Final = 80
"""Characters of a name in a table."""
_MAX_ROWS: Final = 1000


async def traces(
    trace: Annotated[str | None, Parameter(help="The id of a trace, or its beginning: show its spans.")] = None,
    /,
    *,
    name: Annotated[str | None, Parameter(name="--name", help="Those whose first span has this in its name.")] = None,
    failed: Annotated[bool, Parameter(name="--failed", negative="", help="Those whose first span failed.")] = False,
    slower: Annotated[
        float | None, Parameter(name="--slower", help="Those that took longer than this, in milliseconds.")
    ] = None,
    limit: Annotated[int | None, Parameter(name="--limit", help="At most so many, the latest ones (20).")] = None,
    json: AsJson = False,
    watch: Watch = False,
    every: Every = 1.0,
    address: Address = None,
) -> Exit:
    """List the traces that the engine recorded, the latest first, or show one as a waterfall.

    For example: iii-trio traces --failed, then iii-trio traces 4bf92f
    """
    check_limit(limit)
    check_seconds("--slower", slower)
    if trace is not None and (name is not None or failed or slower is not None or limit is not None):
        raise UsageError(
            "--name, --failed, --slower and --limit choose from the list; leave them out to show one trace"
        )

    async def fetch(worker: iii_trio.Worker) -> View:
        if trace is not None:
            return await _waterfall(worker, trace)
        which = {
            "sort_order": "desc",
            "limit": limit or 20,
            "name": name,
            "status": "error" if failed else None,
            "min_duration_ms": slower,
        }
        found = await ask_traces(worker, "engine::traces::list", which)
        rows = [
            (
                row["trace_id"],
                when(row["start_time_unix_nano"]),
                cut(row["name"]),
                cut(row["service_name"]),
                lasted(row),
                status(row),
            )
            for row in found["spans"]
        ]
        more = found["total"] - len(rows)
        note = f"and {more} more: see --limit" if more > 0 else ""
        return View(
            found,
            ("trace", "began", "first span", "service", "lasted", "status"),
            rows,
            note,
            spare=("began", "service"),
        )

    return await show(fetch, "traces", address, json, watch, every)


async def ask_traces(worker: iii_trio.Worker, function_id: str, payload: Row) -> Any:
    """Call a function of the recorder. Raises Failure for an engine that has none."""
    try:
        return await ask(worker, function_id, {key: value for key, value in payload.items() if value is not None})
    except CallError as error:
        # Only a missing function means that nothing is recorded.
        if error.code != ErrorCode.FUNCTION_NOT_FOUND:
            raise
        raise Failure(Exit.CALL_FAILED, f"{error.code}: {ABSENT}") from None


async def _waterfall(worker: iii_trio.Worker, given: str) -> View:
    trace_id = await _whole_id(worker, given.strip().lower())
    found = await ask_traces(worker, "engine::traces::tree", {"trace_id": trace_id})
    spans = list(_walk(found["roots"]))
    if not spans:
        raise Failure(Exit.CALL_FAILED, f"there is no trace {output.visible(given)}; see `iii-trio traces`")
    # A span of a worker with another clock may begin before the first one.
    first = min(row["start_time_unix_nano"] for _, row in spans)
    whole = max(max(row["end_time_unix_nano"] for _, row in spans) - first, 1)
    rows = [
        (
            "  " * depth + cut(row["name"]),
            cut(row["service_name"]),
            duration(row["start_time_unix_nano"] - first),
            duration(row["callee_waited_ns"]) if "callee_waited_ns" in row else "",
            lasted(row),
            status(row),
            bar(row["start_time_unix_nano"] - first, row["end_time_unix_nano"] - row["start_time_unix_nano"], whole),
        )
        for depth, row in spans
    ]
    note = f"trace {trace_id}, {len(rows)} span{'s' * (len(rows) != 1)}, began {when(first)}, took {duration(whole)}"
    headings = ("span", "service", "after", "waited", "lasted", "status", "")
    return View(found, headings, rows, note, spare=("waited", "service", "after"))


async def _whole_id(worker: iii_trio.Worker, given: str) -> str:
    """Return the id of the one trace that begins so. Raises UsageError if there are several, or none."""
    if len(given) == _DIGITS:
        return given
    if not given or any(letter not in "0123456789abcdef" for letter in given):
        raise UsageError(f"{output.visible(given)!r} is not an id of a trace, nor the beginning of one")
    listed = await ask_traces(
        worker, "engine::traces::list", {"limit": _MAX_ROWS, "sort_order": "desc", "include_internal": True}
    )
    ids = list(dict.fromkeys(row["trace_id"] for row in listed["spans"] if row["trace_id"].startswith(given)))
    # Guessing would show another trace than the one that is meant.
    if len(ids) != 1:
        raise UsageError(f"{len(ids)} of the latest traces begin with {given}; see `iii-trio traces`")
    return str(ids[0])


def _walk(rows: Sequence[Row], depth: int = 0) -> Iterator[tuple[int, Row]]:
    for row in rows:
        yield depth, row
        yield from _walk(row["children"], depth + 1)


def bar(offset: int, length: int, whole: int) -> str:
    """Return the bar of a span. Every span has at least one column."""
    start = min(_BAR - 1, offset * _BAR // whole)
    columns = max(1, min(_BAR - start, round(length * _BAR / whole)))
    return "." * start + _block() * columns + "." * (_BAR - start - columns)


def _block() -> str:
    """Return a letter for bars that standard output can show."""
    try:
        "█".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "#"
    return "█"


def status(row: Row) -> str:
    """Return the status of a span with the code of its error."""
    if row.get("pending"):
        return "at work"
    if row["status"] == "error":
        return f"error: {cut(row['status_description'])}" if row.get("status_description") else "error"
    return "ok" if row["status"] == "ok" else ""


def lasted(row: Row) -> str:
    """Return how long a span took."""
    return "" if row.get("pending") else duration(row["end_time_unix_nano"] - row["start_time_unix_nano"])


def duration(nanoseconds: int) -> str:
    """Return a length of time with three digits, for people. Clocks that were set back give none."""
    if nanoseconds < 0:
        return "?"
    for unit, length in (("s", 1e9), ("ms", 1e6)):
        if nanoseconds >= length:
            return (
                f"{nanoseconds / length:.3g} {unit}"
                if nanoseconds < 1000 * length
                else f"{nanoseconds / length:.0f} {unit}"
            )
    return f"{nanoseconds / 1e3:.3g} µs"


def when(nanoseconds: int) -> str:
    """Return a date as the time of day, in local time, and with its day if that is not today."""
    date = datetime.fromtimestamp(nanoseconds / 1e9)
    # A worker says what it likes, and the time of day alone would look like one of today.
    day = "" if abs(nanoseconds / 1e9 - time.time()) < _DAY_SECONDS else f"{date:%Y-%m-%d} "
    return f"{day}{date:%H:%M:%S}.{date.microsecond // 1000:03}"


def cut(text: str) -> str:
    """Return a text that a worker chose as a cell of a table can bear it. `--json` has all of it."""
    return text if len(text) <= _MAX_CELL else f"{text[: _MAX_CELL - 1]}…"
