"""H1 with real processes: a worker that is killed in mid-response, and curl as the client.

By hand, with more rounds: `KILL_ROUNDS=200 pytest tests/http_module/test_http_kills.py`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest
import trio

import iii_trio
from iii_trio.triggers.http import HttpConfig, open_http

ROUNDS = int(os.environ.get("KILL_ROUNDS", "20"))
WORKER = """
import sys, trio, iii_trio
from iii_trio.http import HttpResponse

async def main():
    async with iii_trio.open_worker(sys.argv[1], name="victim") as worker:
        @worker.http("GET", "/endless")
        async def endless(response: HttpResponse) -> None:
            while True:
                await response.send(bytes(50_000))
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_H1_curl_fails_each_time_that_the_worker_is_killed_in_mid_response() -> None:
    chance = random.Random(7)
    config = iii_trio.EngineConfig(listeners=(iii_trio.Listener(port=0),))
    async with iii_trio.open_engine(config) as engine, open_http(engine.address, HttpConfig(port=0)) as http:
        (url,) = await engine.listen()
        target = f"{http.urls[0].rstrip('/')}/endless"
        for _ in range(ROUNDS):
            victim = subprocess.Popen([sys.executable, "-c", WORKER, url])  # noqa: ASYNC220 - a fork, no wait
            try:
                with trio.fail_after(30):
                    while not len(http.server.router):  # noqa: ASYNC110 - the route comes from another process
                        await trio.sleep(0.02)
                curl = await trio.lowlevel.open_process(
                    ["curl", "-sN", "--max-time", "30", target], stdout=subprocess.PIPE
                )
                taken, enough = 0, chance.randrange(1, 3_000_000)
                assert curl.stdout is not None
                while taken < enough:
                    taken += len(await curl.stdout.receive_some(65_536))
                victim.send_signal(signal.SIGKILL)
                with trio.fail_after(20):
                    while await curl.stdout.receive_some(65_536):
                        pass
                    assert await curl.wait() not in (0, 28)  # 28 is its own time limit
            finally:
                victim.kill()
                await trio.to_thread.run_sync(partial(victim.wait, 10))
            with trio.fail_after(10):
                while len(http.server.router):  # noqa: ASYNC110 - as above
                    await trio.sleep(0.02)
        assert sum(counters.in_flight for counters in http.server.counters.values()) == 0
