"""A relay on picows: frames in Cython, on asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server


class Pair:
    """One writer and one reader, once both are there."""

    def __init__(self) -> None:
        self.writer: WSTransport | None = None
        self.reader: WSTransport | None = None


pairs: dict[str, Pair] = {}


class End(WSListener):
    def __init__(self, pair: Pair, direction: str) -> None:
        self.pair, self.direction = pair, direction

    def on_ws_connected(self, transport: WSTransport) -> None:
        setattr(self.pair, "writer" if self.direction == "write" else "reader", transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        other = self.pair.reader if self.direction == "write" else None
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            if other is not None:
                other.send_close(WSCloseCode.OK)
        elif other is not None:
            other.send(frame.msg_type, frame.get_payload_as_memoryview(), frame.fin)

    def pause_writing(self) -> None:
        if self.pair.writer is not None:
            self.pair.writer.underlying_transport.pause_reading()

    def resume_writing(self) -> None:
        if self.pair.writer is not None:
            self.pair.writer.underlying_transport.resume_reading()


def listener_for(request: WSUpgradeRequest) -> Any:
    _, name, direction = request.path.decode().split("/")
    return End(pairs.setdefault(name, Pair()), direction)


async def main() -> None:
    server = await ws_create_server(listener_for, "127.0.0.1", 0, max_frame_size=2**26)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
