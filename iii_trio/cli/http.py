"""`iii-trio http`: the routes of an engine's HTTP module."""

from __future__ import annotations

import iii_trio

from .exits import Exit
from .options import Address
from .tables import AsJson, Every, Row, View, Watch, ask, ask_module, show

_HEADINGS = ("route", "calls", "worker", "requests", "under way", "failed", "cut", "left")


async def http(*, json: AsJson = False, watch: Watch = False, every: Every = 1.0, address: Address = None) -> Exit:
    """List the HTTP routes: what they call, and how many requests they served.

    "cut" counts responses that were broken off visibly, and "left" clients that went before the end.
    For example: iii-trio http --watch
    """

    async def fetch(worker: iii_trio.Worker) -> View:
        absent = "this engine serves no HTTP: name `iii-http` in its configuration file to have it do so"
        found = page = await ask_module(worker, "iii-http::routes", absent)
        while page.get("after") is not None:
            page = await ask_module(worker, "iii-http::routes", absent, {"after": page["after"]})
            found["routes"] += page["routes"]
        found.pop("after", None)
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
