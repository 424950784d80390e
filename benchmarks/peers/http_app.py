"""The same small application for servers that run it in their own process: JSON, a download, an upload.

python -m benchmarks.peers.http_app hypercorn|uvicorn|h11 PORT
"""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import parse_qs

CHUNK = bytes(65_536)
JSON = b'{"greeting":"hello","n":7}'


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer as benchmarks/peers/http_worker.py does."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/json":
        await _reply(send, [(b"content-type", b"application/json"), (b"content-length", str(len(JSON)).encode())], JSON)
    elif scope["path"] == "/upload":
        size = 0
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        body = str(size).encode()
        await _reply(send, [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())], body)
    else:
        left = int(parse_qs(scope["query_string"].decode())["size"][0])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(left).encode())]})
        while left > 0:
            chunk = CHUNK[:left]
            left -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _reply(send: Any, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def bare_h11(port: int) -> None:
    """Serve the same with h11 in a loop, and nothing else."""
    import h11
    import trio

    async def serve(stream: trio.SocketStream) -> None:
        connection, size, path = h11.Connection(h11.SERVER), 0, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(65_536)))
            elif isinstance(event, h11.Request):
                path, size = event.target, 0
            elif isinstance(event, h11.Data):
                size += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                await answer(connection, stream, path, size)
                connection.start_next_cycle()
            else:
                return

    async def answer(connection: h11.Connection, stream: trio.SocketStream, path: bytes, size: int) -> None:
        left = int(path.partition(b"size=")[2] or 0)
        body = b"" if left else str(size).encode() if path == b"/upload" else JSON
        headers = [("content-type", "application/json"), ("content-length", str(left or len(body)))]
        out = connection.send(h11.Response(status_code=200, headers=headers)) or b""
        while left > 0:
            data = CHUNK[:left]
            left -= len(data)
            await stream.send_all(out)
            for part in connection.send_with_data_passthrough(h11.Data(data=data)) or []:
                await stream.send_all(part)
            out = b""
        if body:
            out += connection.send(h11.Data(data=body)) or b""
        await stream.send_all(out + (connection.send(h11.EndOfMessage()) or b""))

    async def main() -> None:
        await trio.serve_tcp(serve, port, host="127.0.0.1")

    trio.run(main)


def main() -> None:
    """Serve until killed."""
    server, port = sys.argv[1], int(sys.argv[2])
    if server == "h11":
        bare_h11(port)
    elif server == "uvicorn":
        import uvicorn

        uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)
    else:
        import hypercorn
        import hypercorn.trio
        import trio

        config = hypercorn.Config()
        config.bind = [f"127.0.0.1:{port}"]
        config.loglevel = "error"
        config.keep_alive_max_requests = 10**9  # it would close a connection after 1,000
        trio.run(hypercorn.trio.serve, app, config)


if __name__ == "__main__":
    main()
