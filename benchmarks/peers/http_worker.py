"""A worker of ours with the routes of `http_app.py`, for the engine's HTTP module.

python -m benchmarks.peers.http_worker URL
"""

from __future__ import annotations

import sys

import trio

import iii_trio
from iii_trio.http import HttpResponse

from .http_app import CHUNK


def offer(worker: iii_trio.Worker) -> None:
    """Serve the three routes."""

    @worker.http("GET", "/json")
    async def small() -> dict[str, object]:
        return {"greeting": "hello", "n": 7}

    @worker.http("GET", "/download")
    async def download(response: HttpResponse, size: int) -> None:
        await response.start(200, {"content-length": str(size)})
        while size > 0:
            await response.send(CHUNK[:size])
            size -= len(CHUNK)

    @worker.http("POST", "/upload")
    async def upload(request_body: iii_trio.ChannelReader) -> int:
        return sum([len(chunk) async for chunk in request_body.chunks()])


async def main() -> None:
    async with iii_trio.open_worker(sys.argv[1], name="bench") as worker:
        offer(worker)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
