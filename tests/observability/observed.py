"""An engine with a recorder, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import trio

import iii_trio
from iii_trio.environment import Environment
from iii_trio.tracing import Sampling
from iii_trio.triggers.observability.settings import ObservabilityConfig

ALL = Sampling()
VIRTUAL = Environment(wall_clock=lambda: 1_700_000_000 + trio.current_time())
"""Dates go by the virtual clock."""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"


def observed(**settings: Any) -> ObservabilityConfig:
    """Settings that record everything, but for what `settings` say."""
    return ObservabilityConfig(**{"sampling": ALL, "exporter": "memory", **settings})


@asynccontextmanager
async def open_observed(
    settings: ObservabilityConfig | None = None, **modules: Any
) -> AsyncIterator[tuple[iii_trio.Engine, iii_trio.Worker]]:
    """An engine with a recorder, and a worker `app` of it."""
    config = iii_trio.EngineConfig(modules={"observability": settings or observed(), **modules})
    async with iii_trio.open_engine(config, environment=VIRTUAL) as engine, engine.open_worker("app") as app:
        yield engine, app


async def spans(worker: iii_trio.Worker, **which: Any) -> list[dict[str, Any]]:
    """The spans that are recorded, in the order of their beginnings."""
    which = {"search_all_spans": True, "include_internal": True, "limit": 1000, **which}
    answer = await worker.trigger("engine::traces::list", which)
    found: list[dict[str, Any]] = answer["spans"]
    for span in found:
        span["attributes"] = dict(map(tuple, span["attributes"]))
    return found


async def tree(worker: iii_trio.Worker, trace_id: str = TRACE) -> list[dict[str, Any]]:
    answer = await worker.trigger("engine::traces::tree", {"trace_id": trace_id})
    roots: list[dict[str, Any]] = answer["roots"]
    return roots


def names(rows: list[dict[str, Any]]) -> list[Any]:
    """A tree as nested lists of names."""
    return [[row["name"], *names(row["children"])] for row in rows]


def walk(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield row
        yield from walk(row["children"])
