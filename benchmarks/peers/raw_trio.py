"""The floor: a Trio relay of bytes that looks at nothing behind the head."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress

import trio


async def main() -> None:
    readers: dict[bytes, list[trio.SocketStream]] = defaultdict(list)
    arrived = trio.lowlevel.ParkingLot()

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            more = await stream.receive_some(4096)
            if not more:
                return
            head += more
        await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        _, name, direction = head.split(b" ", 2)[1].split(b"/")
        if direction == b"read":
            readers[name].append(stream)
            arrived.unpark_all()
            with suppress(trio.BrokenResourceError):  # until the client has gone
                await stream.receive_some(1)
            return
        while not readers[name]:
            await arrived.park()
        reader = readers.pop(name)[0]
        # A process that is killed resets its connections, and the reader's task closes its own.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await stream.receive_some(262_144):
                await reader.send_all(data)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await reader.send_eof()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        print(listener.socket.getsockname()[1], flush=True)
        await trio.serve_listeners(serve, [listener], handler_nursery=nursery)


trio.run(main)
