"""`iii-trio nodes`: the nodes of the mesh that an engine belongs to."""

from __future__ import annotations

import iii_trio

from ..text import count_of
from .exits import Exit
from .options import Address
from .tables import AsJson, Every, Row, View, Watch, ask_module, show

_HEADINGS = ("node", "address", "version", "lease", "link", "functions", "calls", "queues", "")


async def nodes(*, json: AsJson = False, watch: Watch = False, every: Every = 1.0, address: Address = None) -> Exit:
    """List the nodes of the mesh: their leases, links and functions.

    "link" is the way from the engine that is asked to the other node. "calls" are those under way there. "queues" shows
    the shards of the queues that a node owns, and the configured queues in them, if the nodes share their queues.
    For example: iii-trio nodes --watch
    """

    async def fetch(worker: iii_trio.Worker) -> View:
        absent = "this engine is not a node of a mesh: start it with --cluster and --advertise"
        found = await ask_module(worker, "engine::cluster::nodes", absent)
        return View(found, _HEADINGS, [_row(row) for row in found["nodes"]], _note(found), spare=("version", "address"))

    return await show(fetch, "nodes", address, json, watch, every)


def _row(row: Row) -> tuple[str, ...]:
    return (
        row["node"],
        row["address"],
        row["version"],
        row["lease"],
        "(this one)" if row["here"] else row["link"],
        str(row["functions"]),
        str(row["calls"]),
        _owned(row.get("shards", []), row.get("queues", [])),
        row["problem"],
    )


def _owned(shards: list[int], queues: list[str]) -> str:
    return f"{count_of(len(shards), 'shard')}: {', '.join(queues)}".removesuffix(": ") if shards else ""


def _note(found: Row) -> str:
    behind = found["lines_behind"]
    lag = f"; {behind} changes behind the store" if behind else ""
    return f"mesh {found['mesh']}, asked at node {found['node']}{lag}"
