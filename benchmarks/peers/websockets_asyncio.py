"""A relay on `websockets` and asyncio."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


async def main() -> None:
    readers: dict[str, asyncio.Future[ServerConnection]] = defaultdict(asyncio.get_running_loop().create_future)

    async def relay(connection: ServerConnection) -> None:
        assert connection.request is not None
        _, name, direction = connection.request.path.split("/")
        if direction == "read":
            readers[name].set_result(connection)
            await connection.wait_closed()
            return
        reader = await readers.pop(name) if readers[name].done() else await readers[name]
        try:
            async for message in connection:
                await reader.send(message)
            await reader.close()
        except ConnectionClosed:
            await reader.close(1011)

    async with serve(relay, "127.0.0.1", 0, max_size=2**26, compression=None, close_timeout=1) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
