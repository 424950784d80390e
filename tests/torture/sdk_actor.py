"""As `actor`, on iii's Python SDK: `python -m tests.torture.sdk_actor URL NAME BOOK MAX_LOST`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from .book import Book, key_of_job, key_of_message, subscription


def main(url: str, name: str, path: str, max_lost: str) -> None:
    """Work."""
    from iii import InitOptions, InvocationError, register_worker  # type: ignore[import-untyped]
    from iii_helpers.observability import ReconnectionConfig

    book = Book(path)

    async def work(key: str, data: dict[str, Any], attempt: int) -> None:
        book.began(key, attempt)
        await asyncio.sleep(data["seconds"])
        book.ended(key, attempt, data["conduct"])

    async def queued(data: Any, metadata: Any = None) -> None:
        await work(key_of_job(data), data, metadata["job"]["attempt"])

    async def heard(data: Any, metadata: Any = None) -> None:
        await work(key_of_message(data, name), data, metadata["job"]["attempt"])

    reconnection = ReconnectionConfig(initial_delay_ms=50, max_delay_ms=200)
    options = InitOptions(worker_name=name, otel={"enabled": False}, reconnection_config=reconnection)
    worker = register_worker(url, options)
    worker.register_function(f"{name}::work", queued)
    worker.register_function(f"{name}::heard", heard)
    binding = {"type": "durable:subscriber", "function_id": f"{name}::heard", "config": subscription(name, max_lost)}
    worker.register_trigger(binding)
    while True:  # the SDK does not tell when the engine has heard all that: another call comes after it
        try:
            worker.trigger({"function_id": "engine::workers::list", "payload": {}, "timeout_ms": 1000})
            break
        except InvocationError:
            time.sleep(0.05)
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
