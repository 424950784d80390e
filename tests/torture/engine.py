"""An engine of a torture round: `python -m tests.torture.engine DIRECTORY SOCKET MAX_LOST [VARIANT CLOCK [PORT]]`.

VARIANT 1 has other settings of the queue `plain`, and 2 has no queue `fifo`. CLOCK is added to the calendar's, in seconds.

It says `ready`, and runs until its stdin ends; or, after a line there, until it has drained for a moment.
"""

from __future__ import annotations

import logging
import sys
import time
from functools import partial

import attrs
import trio

from iii_trio import EngineConfig, Listener, QueueConfig, QueueSettings, open_engine
from iii_trio.environment import Environment

from .plan import MAX_ATTEMPTS

_GRACE_SECONDS = 0.02


async def main(
    directory: str, socket: str, max_lost: str, variant: str = "0", clock: str = "0", port: str | None = None
) -> None:
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
    if variant == "1":
        plain = attrs.evolve(plain, concurrency=2, backoff_seconds=0.05)
    queues = {"plain": plain} if variant == "2" else {"plain": plain, "fifo": fifo}
    config = EngineConfig(modules={"queue": QueueConfig(queues=queues, directory=directory)})
    environment = Environment(wall_clock=lambda: time.time() + float(clock))
    async with open_engine(config, environment=environment) as engine:
        at_port = () if port is None else (Listener(port=int(port)),)
        await engine.listen(Listener(unix=socket), *at_port)
        print("ready", flush=True)
        if await trio.to_thread.run_sync(sys.stdin.readline):
            await engine.drain(_GRACE_SECONDS)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    trio.run(partial(main, *sys.argv[1:]))
