"""An engine in a process of its own, with a small budget of memory: says its address on stdout, ends with its stdin.

python -m tests.helpers.hostile_engine MEMORY_BYTES
"""

from __future__ import annotations

import logging
import sys

import trio

from iii_trio import EngineConfig, Limits, Listener, open_engine


async def main() -> None:
    limits = Limits(memory_bytes=int(sys.argv[1]))
    async with open_engine(EngineConfig(limits=limits)) as engine:
        (url,) = await engine.listen(Listener(port=0))
        print(url, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    trio.run(main)
