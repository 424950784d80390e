"""An engine of a torture round: `python -m tests.torture.engine DIRECTORY SOCKET MAX_LOST [PORT]`.

It says `ready`, and runs until its stdin ends; or, after a line there, until it has drained for a moment.
"""

from __future__ import annotations

import logging
import sys
from functools import partial

import attrs
import trio

from iii_trio import EngineConfig, Listener, QueueConfig, QueueSettings, open_engine

from .plan import MAX_ATTEMPTS

_GRACE_SECONDS = 0.02


async def main(directory: str, socket: str, max_lost: str, port: str | None = None) -> None:
    """Serve."""
    plain = QueueSettings(
        max_attempts=MAX_ATTEMPTS,
        concurrency=8,
        backoff_seconds=0.03,
        backoff="fixed",
        max_lost_deliveries=int(max_lost),
        missing_function_seconds=None,
    )
    fifo = attrs.evolve(plain, fifo=True, group_by="group")
    config = EngineConfig(modules={"queue": QueueConfig(queues={"plain": plain, "fifo": fifo}, directory=directory)})
    async with open_engine(config) as engine:
        at_port = () if port is None else (Listener(port=int(port)),)
        await engine.listen(Listener(unix=socket), *at_port)
        print("ready", flush=True)
        if await trio.to_thread.run_sync(sys.stdin.readline):
            await engine.drain(_GRACE_SECONDS)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    trio.run(partial(main, *sys.argv[1:]))
