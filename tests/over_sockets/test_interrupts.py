"""A worker's process that is interrupted ends, whatever the threads of its handlers do."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import trio

import iii_trio
from iii_trio import CallError, EngineConfig
from iii_trio.config import Listener
from tests.helpers.cli_processes import read_line

pytestmark = pytest.mark.slow  # it starts a process, which waits two seconds for its handler

WORKER = """
import signal, sys, time, trio, iii_trio

# A shell starts what runs in the background with this signal ignored, and the children of a test inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main():
    async with iii_trio.open_worker(sys.argv[1], name="sleeper") as worker:
        @worker.function("t::sleep")
        def sleep() -> None:
            print("asleep", flush=True)
            time.sleep(1000)
        await worker.wait_registered()
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("signals", [1, 3])
async def test_a_process_with_a_handler_that_sleeps_in_a_thread_ends_when_it_is_interrupted(signals: int) -> None:
    config = EngineConfig(listeners=(Listener(port=0),))
    with trio.fail_after(60):
        async with iii_trio.open_engine(config) as engine, engine.open_worker("app") as app:
            (url,) = await engine.listen()
            process = await trio.lowlevel.open_process(
                [sys.executable, "-c", WORKER, str(url)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            try:
                assert await read_line(process.stdout) == "ready"
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def interrupt() -> None:
                        assert await read_line(process.stdout) == "asleep"
                        for _ in range(signals):
                            process.send_signal(signal.SIGINT)
                            await trio.sleep(0.1)

                    with pytest.raises(CallError, match="the worker left"):  # it has said goodbye
                        await app.trigger("t::sleep", None)
                assert await process.wait() in (-signal.SIGINT, 1, 130)
            finally:
                if process.returncode is None:
                    process.kill()
                    with trio.CancelScope(shield=True):
                        await process.wait()
