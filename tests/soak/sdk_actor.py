"""A worker of the soak on iii's Python SDK: `python -m tests.soak.sdk_actor URL NAME`.

It offers what `actor` does (`read`, `write`, `echo`), begins nothing of its own, and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from .ends import PREFIX, say
from .plans import Plan, Receipt


async def read(data: Any) -> dict[str, Any]:
    """Take all that comes: for this SDK any end is the end."""
    plan = Plan.from_json(data["plan"])
    receipt, saw = Receipt(plan), "left"
    try:
        async for piece in data["reader"]:
            receipt.take(piece)
        saw = "any end"
    except Exception as error:
        saw = f"failed: {error}"
    finally:
        report = {"saw": saw, **receipt.to_json()}
        say("reader", plan=plan.to_json(), report=report)
    return report


async def write(data: Any) -> dict[str, Any]:
    """Write the whole stream, and close it."""
    plan, saw = Plan.from_json(data["plan"]), "left"
    try:
        for piece in plan.pieces() if plan.size else [b""]:  # one that writes nothing never connects, nor closes
            await data["writer"].write(piece)
            await asyncio.sleep(plan.pause)
        await data["writer"].close_async()
        saw = "closed"
    except Exception as error:
        saw = f"failed: {error}"
    finally:
        report = {"saw": saw}
        say("writer", plan=plan.to_json(), report=report)
    return report


async def echo(data: Any) -> Any:
    return data["value"]


async def here(data: Any) -> str:
    return "sdk"


def main(url: str, name: str) -> None:
    from iii import InitOptions, InvocationError, register_worker  # type: ignore[import-untyped]
    from iii_helpers.observability import ReconnectionConfig

    worker = register_worker(
        url,
        InitOptions(
            worker_name=name,
            otel={"enabled": False},
            reconnection_config=ReconnectionConfig(initial_delay_ms=50, max_delay_ms=200),
        ),
    )
    offered = [read, write, echo, here]
    handles = [worker.register_function(f"{PREFIX}{name}::{each.__name__}", each) for each in offered]
    while True:  # a call of its own that comes back is the proof that the engine routes to it
        try:
            worker.trigger({"function_id": f"{PREFIX}{name}::here", "dispatch": "remote", "timeout_ms": 1000})
            break
        except InvocationError:
            time.sleep(0.05)
    say("ready", offers=len(handles))
    while line := sys.stdin.readline():
        if "settle" in line:
            say("settled")
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
