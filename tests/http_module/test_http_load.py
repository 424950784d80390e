"""The HTTP module with real processes: large bodies, many streams, and clients that are slow, silent or killed.

By hand, with larger bodies: `HTTP_GB=10 pytest tests/http_module/test_http_load.py -k flat`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import iii_trio
from iii_trio.triggers.http import HttpConfig, HttpLimits, open_http

GB = float(os.environ.get("HTTP_GB", "1"))
MIB = 1024 * 1024
pytestmark = pytest.mark.slow

WORKER = """
import sys, trio, iii_trio
from iii_trio.http import HttpResponse, open_events

CHUNK = bytes(range(256)) * 1024

async def main():
    written = 0
    waiting, release = 0, trio.Event()
    async with iii_trio.open_worker(sys.argv[1], name="load") as worker:
        @worker.http("GET", "/download")
        async def download(response: HttpResponse, size: int) -> None:
            nonlocal written
            await response.start(200, {"content-length": str(size)})
            written = 0
            while size > 0:
                await response.send(CHUNK[:size])
                written += len(CHUNK[:size])
                size -= len(CHUNK)

        @worker.http("GET", "/written")
        async def how_much() -> int:
            return written

        @worker.http("POST", "/upload")
        async def upload(request_body: iii_trio.ChannelReader) -> int:
            size = 0
            async for chunk in request_body.chunks():
                size += len(chunk)
            return size

        @worker.http("GET", "/stream")
        async def stream(response: HttpResponse) -> None:
            nonlocal waiting
            async with open_events(response) as events:
                await events.send_event("first")
                waiting += 1
                await release.wait()
                await events.send_event("second")

        @worker.http("GET", "/waiting")
        async def how_many() -> int:
            return waiting

        @worker.http("POST", "/release")
        async def release_all() -> None:
            release.set()

        await trio.sleep_forever()

trio.run(main)
"""
CONFIG = """
workers:
  - name: iii-worker-manager
    config: {{ host: 127.0.0.1, port: {port} }}
  - name: iii-http
    config: {{ host: 127.0.0.1, port: {http}, concurrency_request_limit: 2000 }}
"""


@attrs.define
class Processes:
    """An engine and a worker, each in a process of its own."""

    base: str
    port: int
    engine: subprocess.Popen[bytes]
    worker: subprocess.Popen[bytes]

    def memory(self) -> dict[str, int]:
        """Return the resident memory of each, in bytes."""
        found = {}
        for name, process in (("engine", self.engine), ("worker", self.worker)):
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            found[name] = pages * os.sysconf("SC_PAGE_SIZE")
        return found

    async def get(self, path: str, *options: str) -> bytes:
        """Fetch a path with curl."""
        done = await trio.run_process(["curl", "-sS", "--fail", *options, self.base + path], capture_stdout=True)
        return done.stdout

    @asynccontextmanager
    async def flat(self, most: int) -> AsyncIterator[None]:
        """Assert that neither process grows by more than so many bytes meanwhile."""
        before, grown = self.memory(), dict.fromkeys(("engine", "worker"), 0)

        async def watch() -> None:
            while True:
                for name, size in self.memory().items():
                    grown[name] = max(grown[name], size - before[name])
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            yield
            nursery.cancel_scope.cancel()
        print({name: f"{size / MIB:.1f} MiB more" for name, size in grown.items()})
        assert max(grown.values()) < most, grown

    async def wait_free(self) -> None:
        """Wait until no channel is open, as a worker of its own asks."""
        async with iii_trio.open_worker(f"ws://127.0.0.1:{self.port}", name="asks") as asks:
            with trio.fail_after(20):
                while (await asks.trigger("engine::channels::list", {}))["channels"]:  # noqa: ASYNC110
                    await trio.sleep(0.05)


def _free_ports() -> tuple[int, int]:
    import socket

    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    port, http = _free_ports()
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(port=port, http=http))
    root = Path(iii_trio.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    serve = [sys.executable, "-m", "iii_trio", "serve", "--config", str(config), "--data", "memory"]
    with (tmp_path / "engine.log").open("wb") as log:
        engine = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=log, env=environment)  # noqa: ASYNC220
    try:
        assert engine.stdout is not None
        await trio.to_thread.run_sync(engine.stdout.readline)
        worker = subprocess.Popen([sys.executable, "-c", WORKER, f"ws://127.0.0.1:{port}"], env=environment)  # noqa: ASYNC220
        found = Processes(f"http://127.0.0.1:{http}", port, engine, worker)
        try:
            ready = [
                "curl",
                "-s",
                "--retry-connrefused",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                f"{found.base}/waiting",
            ]
            with trio.fail_after(30):
                while (await trio.run_process(ready, capture_stdout=True, check=False)).stdout != b"200":  # noqa: ASYNC110
                    await trio.sleep(0.05)
            yield found
        finally:
            worker.kill()
            await trio.to_thread.run_sync(worker.wait)
    finally:
        engine.kill()
        await trio.to_thread.run_sync(engine.wait)
        engine.stdout.close()  # type: ignore[union-attr]


async def test_H4_a_large_download_and_upload_take_flat_memory(processes: Processes) -> None:
    size = int(GB * 1e9)
    await processes.get("/download?size=50000000", "-o", "/dev/null")  # what a first one makes them take
    async with processes.flat(64 * MIB):
        began = time.monotonic()
        out = await processes.get(f"/download?size={size}", "-o", "/dev/null", "-w", "%{size_download}")
        assert int(out) == size
        print(f"down: {size / 1e6 / (time.monotonic() - began):.0f} MB/s")
    async with processes.flat(64 * MIB):
        began = time.monotonic()
        zeros = f"head -c {size} /dev/zero | curl -sS --fail -T - -X POST {processes.base}/upload"
        done = await trio.run_process(["sh", "-c", zeros], capture_stdout=True)
        assert int(done.stdout) == size
        print(f"up: {size / 1e6 / (time.monotonic() - began):.0f} MB/s")
    await processes.wait_free()


async def test_H4_a_client_that_takes_nothing_makes_its_handler_wait(processes: Processes) -> None:
    async with processes.flat(64 * MIB):
        stream = await trio.open_tcp_stream("127.0.0.1", int(processes.base.rsplit(":", 1)[1]))
        async with stream:
            await stream.send_all(b"GET /download?size=2000000000 HTTP/1.1\r\nHost: h\r\n\r\n")
            before = -1
            with trio.fail_after(20):
                while (now := int(await processes.get("/written"))) != before or not now:
                    before = now
                    await trio.sleep(0.5)
            # Kernel buffers, two outboxes and a channel: the handler waits far before the end.
            assert 0 < before < 64 * MIB
            assert int(await processes.get("/written")) == before
    await processes.wait_free()


async def test_H3_a_client_that_is_killed_in_mid_download_frees_everything(processes: Processes) -> None:
    for _ in range(5):
        curl = subprocess.Popen(  # noqa: ASYNC220
            ["curl", "-sN", f"{processes.base}/download?size=2000000000"], stdout=subprocess.PIPE
        )
        assert curl.stdout is not None
        await trio.to_thread.run_sync(curl.stdout.read, 1_000_000)
        curl.send_signal(signal.SIGKILL)
        curl.stdout.close()
        await trio.to_thread.run_sync(curl.wait)
        await processes.wait_free()


async def test_H5_a_thousand_streams_at_one_time(processes: Processes) -> None:
    port, count = int(processes.base.rsplit(":", 1)[1]), 1000
    firsts, wholes = 0, 0

    async def client() -> None:
        nonlocal firsts, wholes
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            got = b""
            while b"data: first\n\n" not in got:
                got += await _some(stream)
            firsts += 1
            while not got.endswith(b"0\r\n\r\n"):
                got += await _some(stream)
            assert got.count(b"data: ") == 2 and b"data: second\n\n" in got
            wholes += 1

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(client)
            await trio.sleep(0.001)
        with trio.fail_after(60):
            while firsts < count:  # noqa: ASYNC110
                await trio.sleep(0.05)
        assert int(await processes.get("/waiting")) == count and wholes == 0
        # A small request is served beside them.
        await processes.get("/release", "-X", "POST")
    assert wholes == count
    await processes.wait_free()


async def _some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(65_536)
    assert data, "the connection ended"
    return bytes(data)


async def test_H10_slow_clients_are_told_and_others_are_served(tmp_path: Path) -> None:
    """Slowloris: 300 clients send their heads, or their bodies, letter by letter."""
    limits = HttpLimits(head_seconds=1.0, body_seconds=1.0)
    async with (
        iii_trio.open_engine() as engine,
        open_http(engine.address, HttpConfig(port=0, limits=limits)) as http,
        engine.open_worker("app") as app,
    ):

        @app.http("POST", "/take")
        async def take(request_body: iii_trio.ChannelReader) -> int:
            return len(await request_body.read_all())

        await app.wait_registered()
        port = int(http.urls[0].rsplit(":", 1)[1])
        told: list[bytes] = []

        async def slow(begin: bytes, pause: float) -> None:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(begin)
                async with trio.open_nursery() as nursery:

                    async def trickle() -> None:
                        while True:
                            await trio.sleep(pause)
                            try:
                                await stream.send_all(b"a")
                            except trio.BrokenResourceError:
                                return

                    nursery.start_soon(trickle)
                    got = b""
                    try:
                        while data := await stream.receive_some(1000):
                            got += data
                    except trio.BrokenResourceError:
                        pass
                    told.append(got)
                    nursery.cancel_scope.cancel()

        body = b"POST /take HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"
        async with trio.open_nursery() as nursery:
            for _ in range(150):
                nursery.start_soon(slow, b"GET / HTTP/1.1\r\nX: ", 0.2)
                nursery.start_soon(slow, body, 5.0)
            for _ in range(5):
                with trio.fail_after(10):
                    quick: Any = await trio.open_tcp_stream("127.0.0.1", port)
                    async with quick:
                        await quick.send_all(body.replace(b"1000", b"4") + b"fast")
                        assert (await quick.receive_some(1000)).startswith(b"HTTP/1.1 200")
        assert sum(got.startswith(b"HTTP/1.1 408") for got in told) == 150
        assert len(told) == 300
        with trio.fail_after(10):  # a refused client has a moment to take its answer
            while http.server.connections or engine.statistics().channels:  # noqa: ASYNC110
                await trio.sleep(0.05)
