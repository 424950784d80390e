"""`iii-trio top`: what an engine is busy with, live."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final

import trio
from cyclopts import Parameter

import iii_trio

from ..errors import CallError
from ..wire import ErrorCode
from . import output
from .exits import Exit
from .options import Address
from .progress import size
from .tables import AsJson, Every, Row, View, ask, show

_FUNCTIONS: Final = 10


async def top(
    *,
    json: AsJson = False,
    once: Annotated[bool, Parameter(name="--once", negative="", help="Look once, also on a terminal.")] = False,
    every: Every = 1.0,
    address: Address = None,
) -> Exit:
    """Show what the engine is busy with: calls, channels, queues, and its processor time and memory.

    On a terminal it is live, until interrupted. Elsewhere, and with --json, it looks once; rates need two looks.
    """
    before: dict[str, tuple[float, float]] = {}

    async def fetch(worker: iii_trio.Worker) -> View:
        found = await ask(worker, "engine::statistics", {"calls": True})
        found["channels_open"] = (await ask(worker, "engine::channels::list", {}))["channels"]
        found["queues"] = await _queues(worker)
        rates = _Rates(before, trio.current_time())
        rows = [*_engine_rows(found, rates), *_queue_rows(found, rates), *_function_rows(found, rates)]
        rates.keep()
        return View(found, ("what", "now", "a second", "in all"), rows)

    # A program wants one answer, and a person at a terminal wants to see it move.
    live = not json and not once and output.is_terminal(sys.stdout)
    return await show(fetch, "top", address, json, live, every)


class _Rates:
    """The growth of counters since the last look."""

    def __init__(self, before: dict[str, tuple[float, float]], now: float) -> None:
        self._before = before
        self._now = now
        self._latest: dict[str, tuple[float, float]] = {}

    def of(self, name: str, total: float) -> float | None:
        """Return the growth of a counter a second, or None at the first look."""
        self._latest[name] = (self._now, total)
        # A counter that is new was not looked at before, so nothing is known of its growth.
        then = self._before.get(name)
        if then is None or self._now <= then[0]:
            return None
        return max(0.0, total - then[1]) / (self._now - then[0])

    def shown(self, name: str, total: float) -> str:
        """Return the growth of a counter for people."""
        rate = self.of(name, total)
        return "" if rate is None else f"{rate:.1f}"

    def keep(self) -> None:
        """Make this look the last one."""
        self._before.clear()
        self._before.update(self._latest)


async def _queues(worker: iii_trio.Worker) -> list[Row]:
    try:
        found: list[Row] = (await ask(worker, "engine::queue::list", {}))["queues"]
    except CallError as error:
        # An engine without a queue has everything else.
        if error.code != ErrorCode.FUNCTION_NOT_FOUND:
            raise
        return []
    return found


def _engine_rows(found: Mapping[str, Any], rates: _Rates) -> list[tuple[str, ...]]:
    calls, channels = found["calls_ended"], found["channels_open"]
    busy = rates.of("processor time", found["cpu_seconds"])
    passed = sum(row["bytes_passed"] for row in channels)
    rate = rates.of("bytes", passed)
    memory = found.get("rss_bytes")
    return [
        ("processor time", "" if busy is None else f"{busy:.0%}", "", f"{found['cpu_seconds']:.1f} s"),
        ("memory", "" if memory is None else size(memory), "", ""),
        # The command itself is connected like a worker, and is no news to who runs it.
        ("workers", str(found["sessions"] - 1), "", str(calls["sessions_started"] - 1)),
        (
            "calls",
            str(found["calls"]),
            rates.shown("calls", calls["succeeded"] + calls["failed"]),
            str(calls["succeeded"] + calls["failed"]),
        ),
        ("calls that failed", "", rates.shown("failed", calls["failed"]), str(calls["failed"])),
        ("channels", str(found["channels"]), "", ""),
        (
            "bytes in open channels",
            size(sum(row["bytes_waiting"] for row in channels)),
            "" if rate is None else size(rate),
            size(passed),
        ),
    ]


def _queue_rows(found: Mapping[str, Any], rates: _Rates) -> list[tuple[str, ...]]:
    return [
        (
            f"{row['kind']} {row['name']}",
            f"{row['depth']} waiting, {row['running']} running" + (f", {row['dead']} dead" if row["dead"] else ""),
            f"{row['done_per_second']:.1f}",
            "",
        )
        for row in found["queues"]
    ]


def _function_rows(found: Mapping[str, Any], rates: _Rates) -> list[tuple[str, ...]]:
    """Return the functions that are called most often now, or at the first look altogether."""
    rows = []
    for name, (total, failed) in found["calls_ended"]["by_function"].items():
        rate = rates.of(f"function {name}", total)
        in_all = f"{total}" + (f", {failed} failed" if failed else "")
        rows.append((total if rate is None else rate, (name, "", "" if rate is None else f"{rate:.1f}", in_all)))
    # The busiest functions of this moment are of more interest than those of the whole day.
    rows.sort(key=lambda row: -row[0])
    return [cells for _, cells in rows[:_FUNCTIONS]]
