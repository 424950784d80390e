"""A worker that writes and reads as it is told, on our worker or on iii's Python SDK: `… ends_worker KIND URL`.

It offers `KIND::write`, which writes messages of `size` bytes for `seconds`, and `KIND::read`, which counts them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import trio

import iii_trio

_YIELD = 64  # messages of the SDK's between two turns of its loop


async def ours(url: str) -> None:
    async with iii_trio.open_worker(url, name="bench-ours") as worker:

        @worker.function("ours::write")
        async def write(writer: iii_trio.ChannelWriter, size: int, seconds: float) -> int:
            data, sent, deadline = os.urandom(size), 0, time.monotonic() + seconds
            async with writer:
                while time.monotonic() < deadline:
                    await writer.send(data)
                    sent += 1
            return sent

        @worker.function("ours::read")
        async def read(reader: iii_trio.ChannelReader) -> int:
            return sum([1 async for _ in reader])

        print("ready", flush=True)
        await trio.sleep_forever()


def sdk(url: str) -> None:
    from iii import InitOptions, register_worker  # type: ignore[import-untyped]

    worker = register_worker(url, InitOptions(worker_name="bench-sdk", otel={"enabled": False}))

    async def write(data: Any) -> int:
        blob, sent, deadline = os.urandom(data["size"]), 0, time.monotonic() + data["seconds"]
        writer = data["writer"]
        while time.monotonic() < deadline:
            await writer.write(blob)
            sent += 1
            if sent % _YIELD == 0:
                await asyncio.sleep(0)
        await writer.close_async()
        return sent

    async def read(data: Any) -> int:
        return sum([1 async for _ in data["reader"]])

    handles = [worker.register_function("sdk::write", write), worker.register_function("sdk::read", read)]
    print("ready", flush=True)
    while handles:
        time.sleep(60)


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        trio.run(ours, sys.argv[2])
    else:
        sdk(sys.argv[2])
