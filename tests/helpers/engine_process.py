"""An engine in a process of its own: says its port on stdout, logs to stderr, ends with its stdin.

python -m tests.helpers.engine_process [SILENT_WORKER_SECONDS]
"""

from __future__ import annotations

import logging
import sys

import trio

from iii_trio import EngineConfig, Listener, Timeouts, open_engine


async def main() -> None:
    patience = Timeouts(silent_worker_seconds=float(sys.argv[1])) if sys.argv[1:] else Timeouts()
    async with open_engine(EngineConfig(timeouts=patience)) as engine:
        (url,) = await engine.listen(Listener(port=0))
        print(url, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    trio.run(main)
