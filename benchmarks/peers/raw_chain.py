"""The floor of a hop: an echo behind one raw Trio relay, and behind two. Each is a process of its own.

`python -m benchmarks.peers.raw_chain echo`, `relay PORT` and `client PORT COUNT`. The first two print their port.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import trio

_MESSAGE = bytes(250)  # about as long as a call and its answer


async def serve(handler: Callable[[trio.SocketStream], Awaitable[object]]) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(handler, listeners)


async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    async for data in source:
        await sink.send_all(data)


async def echo(stream: trio.SocketStream) -> None:
    await pump(stream, stream)


async def relay(stream: trio.SocketStream) -> None:
    other = await trio.open_tcp_stream("127.0.0.1", int(sys.argv[2]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, stream, other)
        nursery.start_soon(pump, other, stream)


async def client(port: int, count: int) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await stream.send_all(_MESSAGE)
        received = 0
        while received < len(_MESSAGE):
            received += len(await stream.receive_some(65_536))
        times.append(time.perf_counter() - began)
    print(statistics.mean(times), statistics.median(times))


if __name__ == "__main__":
    if sys.argv[1] == "client":
        trio.run(client, int(sys.argv[2]), int(sys.argv[3]))
    else:
        trio.run(serve, echo if sys.argv[1] == "echo" else relay)
