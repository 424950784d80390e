"""`iii-trio http`: the routes of an engine's HTTP module."""

from __future__ import annotations

import iii_trio

from ..errors import CallError
from ..wire import ErrorCode
from .exits import Exit, Failure
from .options import Address
from .tables import AsJson, Every, Row, View, Watch, ask, show

_HEADINGS = ("route", "calls", "worker", "requests", "under way", "failed", "cut", "left")


async def http(*, json: AsJson = False, watch: Watch = False, every: Every = 1.0, address: Address = None) -> Exit:
    """List the HTTP routes: what they call, and how many requests they served.

    "cut" counts responses that were broken off visibly, and "left" clients that went before the end.
    For example: iii-trio http --watch
    """

    async def fetch(worker: iii_trio.Worker) -> View:
        try:
            found = await ask(worker, "iii-http::routes", {})
        except CallError as error:
            if error.code != ErrorCode.FUNCTION_NOT_FOUND:
                raise
            sentence = "this engine serves no HTTP: name `iii-http` in its configuration file to have it do so"
            raise Failure(Exit.CALL_FAILED, f"{error.code}: {sentence}") from None
        owners = await ask(worker, "engine::functions::list", {"include_internal": False})
        workers = {row["function_id"]: row.get("worker_name") or "" for row in owners["functions"]}
        rows = [_row(row, workers) for row in found["routes"]]
        connections = found["connections"]
        return View(found, _HEADINGS, rows, f"{connections} connection{'s' * (connections != 1)}")

    return await show(fetch, "http", address, json, watch, every)


def _row(row: Row, workers: dict[str, str]) -> tuple[str, ...]:
    return (
        f"{row['method']} /{row['path'].lstrip('/')}",
        row["function_id"],
        workers.get(row["function_id"], "(no worker offers it)"),
        *(str(row[key]) for key in ("requests", "in_flight", "failed", "truncated", "abandoned")),
    )
