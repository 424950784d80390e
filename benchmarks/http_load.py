"""A client that loads an HTTP server, in a process of its own: `python -m benchmarks.http_load JOB PORT COUNT CONNECTIONS`.

It prints one JSON object: the seconds that it took, and how many requests or bytes there were.
"""

from __future__ import annotations

import json
import sys
import time

import trio

_CHUNK = bytes(262_144)


async def read_response(stream: trio.SocketStream, rest: bytes, keep: bool = True) -> tuple[int, bytes]:
    """Read one response with a Content-Length. Return the length of its body, and what came behind it."""
    while b"\r\n\r\n" not in rest:
        data = await stream.receive_some(65_536)
        if not data:
            raise SystemExit("the server closed the connection")
        rest += bytes(data)
    head, _, body = rest.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(head.decode())
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0])
    left = length - len(body)
    while left > 0:
        data = await stream.receive_some(1_048_576)
        if not data:
            raise SystemExit("the server closed the connection within a body")
        left -= len(data)
    return length, body[length:] if left <= 0 and len(body) > length else b""


async def requests(port: int, count: int, path: str) -> None:
    """Send requests one after the other on one connection."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    request, rest = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode(), b""
    for _ in range(count):
        await stream.send_all(request)
        _, rest = await read_response(stream, rest)
    await stream.aclose()


async def upload(port: int, size: int) -> None:
    """Send one large body."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(
        f"POST /upload HTTP/1.1\r\nHost: bench\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Length: {size}\r\n\r\n".encode()
    )
    left = size
    while left > 0:
        await stream.send_all(memoryview(_CHUNK)[: min(left, len(_CHUNK))])
        left -= len(_CHUNK)
    await read_response(stream, b"")
    await stream.aclose()


async def main() -> None:
    job, port, count, connections = sys.argv[1], *map(int, sys.argv[2:5])
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            if job == "json":
                nursery.start_soon(requests, port, count // connections, "/json")
            elif job == "download":
                nursery.start_soon(requests, port, 1, f"/download?size={count // connections}")
            else:
                nursery.start_soon(upload, port, count // connections)
    done = count // connections * connections
    print(json.dumps({"seconds": time.monotonic() - began, "count": done}))


if __name__ == "__main__":
    trio.run(main)
