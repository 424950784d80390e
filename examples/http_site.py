"""Serve a file, take an upload and send events over HTTP: three routes of one worker, tried by a small client."""

from __future__ import annotations

import tempfile
import urllib.request
from pathlib import Path

import trio

import iii_trio
from iii_trio.http import HttpRequest, HttpResponse, open_events, serve_file
from iii_trio.triggers.http import HttpConfig, open_http


def offer(worker: iii_trio.Worker, folder: Path) -> None:
    """Serve the files of a folder, and a clock."""

    @worker.http("GET", "/files/{rest:path}")
    async def files(rest: str, request: HttpRequest, response: HttpResponse) -> None:
        await serve_file(response, rest, request, root=folder)

    @worker.http("GET", "/ticks")
    async def ticks(response: HttpResponse, count: int = 3) -> None:
        async with open_events(response) as events:
            for tick in range(count):
                await events.send_event({"tick": tick}, id=str(tick))

    @worker.http("POST", "/sizes")
    async def sizes(request_body: iii_trio.ChannelReader) -> dict[str, int]:
        size = 0
        async for chunk in request_body.chunks():
            size += len(chunk)
        return {"bytes": size}


def fetch(url: str, data: bytes | None = None, **headers: str) -> bytes:
    """Fetch a page, in a thread."""
    request = urllib.request.Request(url, data, {"Content-Type": "application/octet-stream", **headers})
    with urllib.request.urlopen(request, timeout=30) as response:
        body: bytes = response.read()
        return body


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        await trio.Path(folder, "hello.txt").write_text("hello, world")
        async with (
            iii_trio.open_engine() as engine,
            open_http(engine.address, HttpConfig(port=0)) as http,
            engine.open_worker("site") as site,
        ):
            offer(site, Path(folder))
            await site.wait_registered()
            while len(http.server.router) < 3:  # noqa: ASYNC110 - nothing tells a worker that its routes are served
                await trio.sleep(0.01)
            url = http.urls[0].rstrip("/")
            print(
                "a range:", (await trio.to_thread.run_sync(lambda: fetch(f"{url}/files/hello.txt", Range="bytes=7-")))
            )
            print("an upload:", (await trio.to_thread.run_sync(lambda: fetch(f"{url}/sizes", bytes(1_000_000)))))
            print((await trio.to_thread.run_sync(lambda: fetch(f"{url}/ticks?count=2"))).decode())


if __name__ == "__main__":
    trio.run(main)
