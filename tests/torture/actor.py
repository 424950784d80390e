"""A worker of a torture round: `python -m tests.torture.actor ADDRESS NAME BOOK MAX_LOST`.

It writes into its book when a job is begun, done, or failed. Its stdin ends it.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

import trio

from iii_trio import ConnectionFailed, open_worker

from .book import Book, key_of_job, key_of_message, subscription


async def main(address: str, name: str, path: str, max_lost: str) -> None:
    """Work."""
    book = Book(path)

    async def work(key: str, data: dict[str, Any], attempt: int) -> None:
        book.began(key, attempt)
        if data["conduct"] == "poison":
            os._exit(66)
        await trio.sleep(data["seconds"])
        book.ended(key, attempt, data["conduct"])

    while True:
        try:
            async with open_worker(address, name=name) as worker:

                @worker.function(f"{name}::work")
                async def queued(data: dict[str, Any], metadata: Any) -> None:
                    await work(key_of_job(data), data, metadata["job"]["attempt"])

                @worker.function(f"{name}::heard")
                async def heard(data: dict[str, Any], metadata: Any) -> None:
                    await work(key_of_message(data, name), data, metadata["job"]["attempt"])

                worker.register_trigger("durable:subscriber", f"{name}::heard", config=subscription(name, max_lost))
                await worker.wait_registered()
                print("ready", flush=True)
                await trio.to_thread.run_sync(sys.stdin.read)
                return
        except ConnectionFailed:  # the engine is being killed just now
            await trio.sleep(0.05)


if __name__ == "__main__":
    trio.run(partial(main, *sys.argv[1:]))
