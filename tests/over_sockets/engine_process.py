"""An engine in a process of its own: says its port on stdout, logs to stderr, ends with its stdin."""

from __future__ import annotations

import logging
import sys

import trio

from iii_trio import EngineConfig, Listener, open_engine


async def main() -> None:
    async with open_engine(EngineConfig()) as engine:
        (url,) = await engine.listen(Listener(port=0))
        print(url, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    trio.run(main)
