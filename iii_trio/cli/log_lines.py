"""`iii-trio logs`: the lines that an engine and its workers logged, once or as they come."""

from __future__ import annotations

import fcntl
import math
import os
import stat
import sys
from typing import Annotated, Any, Final, Literal, TypeAlias

import trio
from cyclopts import Parameter

import iii_trio

from . import output
from .calling import connect
from .exits import Exit
from .options import Address, check_limit, engine_address
from .tables import AsJson, Row
from .traces import ask_traces, when

LineLevel: TypeAlias = Literal["trace", "debug", "info", "warn", "error"]
_SEVERITIES: Final[dict[str, int]] = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17}
_WAITING: Final = 4096
"""Lines that wait for a slow terminal. Further ones are left out, and counted."""


async def logs(
    *,
    follow: Annotated[
        bool, Parameter(name=["--follow", "-f"], negative="", help="Then show what comes, until interrupted.")
    ] = False,
    level: Annotated[LineLevel, Parameter(name="--level", help="This level and those above it.")] = "trace",
    trace: Annotated[str | None, Parameter(name="--trace", help="The lines of one trace, by its whole id.")] = None,
    limit: Annotated[
        int | None, Parameter(name="--limit", help="At most so many of the past, the latest ones (50).")
    ] = None,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """Show what the engine and its workers logged, the oldest line first.

    With --json: one object a line. For example: iii-trio logs --follow --level warn
    """
    check_limit(limit)
    lowest = _SEVERITIES[level]
    send, receive = trio.open_memory_channel[Row](_WAITING)
    lost = 0
    async with connect(engine_address(address), "logs") as worker:
        if follow:
            # The binding comes before the list, so that no line falls between the two.
            async def take(line: dict[str, Any]) -> None:
                nonlocal lost
                try:
                    send.send_nowait(line)
                except trio.WouldBlock:
                    lost += 1

            function = f"iii-trio-logs::{os.getpid()}"
            worker.register_function(function, take)
            worker.register_trigger("log", function, config={"level": "all"})
            await worker.wait_registered()
        which = {"limit": limit or 50, "severity_min": lowest, "trace_id": trace}
        found = await ask_traces(worker, "engine::logs::list", which)
        shown = set()
        # The function gives the latest line first, and people read downwards.
        for line in reversed(found["logs"]):
            if not _is_own(line, worker):
                shown.add(_key(line))
                _say(line, json)
        if not follow:
            return Exit.DONE
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_reader)
            async for line in receive:
                fits = (line["severity_number"] or math.inf) >= lowest and trace in (None, line.get("trace_id"))
                if fits and _key(line) not in shown and not _is_own(line, worker):
                    _say(line, json)
                # A gap that is not shown would look like silence.
                if lost:
                    output.complain(f"{lost} lines were left out, because they came faster than they could be shown")
                    lost = 0
    return Exit.DONE


async def _watch_reader() -> None:
    """Raise ReaderLeft once nobody reads standard output, if it is a pipe. A quiet engine would not tell."""
    try:
        descriptor = sys.stdout.fileno()
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        # One that this process could read as well has a reader for ever.
        is_pipe = is_pipe and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    except (OSError, ValueError):
        is_pipe = False  # a stream of a test or an embedder, or one that was closed
    if is_pipe:
        # The writing end of a pipe is never readable. It wakes this task by the error that its reader leaves behind.
        await trio.lowlevel.wait_readable(descriptor)
        raise output.ReaderLeft


def _key(line: Row) -> tuple[Any, ...]:
    return line["observed_timestamp_unix_nano"], line["service_name"], line["body"]


def _is_own(line: Row, worker: iii_trio.Worker) -> bool:
    """Return whether a line is about this very command."""
    return worker.worker_id is not None and line["attributes"].get("iii.session") == worker.worker_id


def _say(line: Row, json: bool) -> None:
    if json:
        output.say(output.to_json(line))
        return
    level = line["severity_text"] or "-"
    trace = f"  [{line['trace_id'][:8]}]" if line.get("trace_id") else ""
    words = f"{when(line['timestamp_unix_nano'])} {level:<5} {line['service_name']}: {line['body']}{trace}"
    output.say(output.visible(words))
