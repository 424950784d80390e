"""A worker of a torture round: `python -m iii_trio.testing.torture.actor SOCKET NAME LOG MOST_LOST`.

It writes into its log when a job is begun, done, or failed. Its stdin ends it.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from typing import Any

import trio

from iii_trio import ConnectionFailed, open_worker

from .plan import MAX_ATTEMPTS


async def main(socket: str, name: str, log: str, most_lost: str) -> None:
    """Work."""
    book = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(what: str, key: str, attempt: int) -> None:
        os.write(book, f"{time.monotonic_ns()} {what} {key} {attempt}\n".encode())  # what is written outlives a kill

    async def work(key: str, data: dict[str, Any], attempt: int) -> None:
        note("began", key, attempt)
        await trio.sleep(data["seconds"])
        if data["conduct"] == "doomed" or (data["conduct"] == "flaky" and attempt == 1):
            note("failed", key, attempt)
            raise ValueError(data["conduct"])
        note("done", key, attempt)

    while True:
        try:
            async with open_worker(f"unix:{socket}", name=name) as worker:

                @worker.function(f"{name}::work")
                async def queued(data: dict[str, Any], metadata: Any) -> None:
                    await work(f"{data['kind']}/{data['group']}/{data['n']}", data, metadata["job"]["attempt"])

                @worker.function(f"{name}::heard")
                async def heard(data: dict[str, Any], metadata: Any) -> None:
                    await work(f"topic-{name}/{data['group']}/{data['n']}", data, metadata["job"]["attempt"])

                queue_config = {
                    "maxRetries": MAX_ATTEMPTS - 1,
                    "backoffDelayMs": 30,
                    "backoffType": "fixed",
                    "maxLostDeliveries": int(most_lost),
                }
                if name == "b":
                    queue_config |= {"type": "fifo", "messageGroupField": "group"}
                worker.register_trigger(
                    "durable:subscriber", f"{name}::heard", config={"topic": "news", "queue_config": queue_config}
                )
                await worker.wait_registered()
                print("ready", flush=True)
                await trio.to_thread.run_sync(sys.stdin.read)
                return
        except ConnectionFailed:  # the engine is being killed just now
            await trio.sleep(0.05)


if __name__ == "__main__":
    trio.run(partial(main, *sys.argv[1:]))
