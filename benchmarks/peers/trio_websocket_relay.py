"""A relay on trio-websocket as its documentation shows it."""

from __future__ import annotations

from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket


async def main() -> None:
    pipes: dict[str, tuple[trio.MemorySendChannel[bytes | str], trio.MemoryReceiveChannel[bytes | str]]] = {}

    async def relay(request: WebSocketRequest) -> None:
        _, name, direction = request.path.split("/")
        pipe = pipes.setdefault(name, trio.open_memory_channel(4))
        connection: WebSocketConnection = await request.accept()
        try:
            if direction == "read":
                async for message in pipe[1]:
                    await connection.send_message(message)
                await connection.aclose()
            else:
                async with pipe[0]:
                    while True:
                        await pipe[0].send(await connection.get_message())
        except ConnectionClosed:
            pass
        finally:
            if direction == "read":
                pipes.pop(name, None)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, relay, "127.0.0.1", 0, None, max_message_size=2**26))
        print(server.port, flush=True)


trio.run(main)
