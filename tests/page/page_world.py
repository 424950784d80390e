"""Requests of the page, over memory streams."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any, final

import attrs
import trio
import trio.testing

import iii_trio
from iii_trio.engine.admit import serve_stream
from iii_trio.engine.policy import ListenerPolicy


@attrs.frozen
class Answer:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes


@final
class Client:
    """One connection of a browser."""

    def __init__(self, engine: iii_trio.Engine, nursery: trio.Nursery, policy: ListenerPolicy | None = None) -> None:
        self.stream, far = trio.testing.memory_stream_pair()
        nursery.start_soon(serve_stream, engine._shell, far, "here", policy or ListenerPolicy())
        self.received = b""

    async def send(self, method: str, path: str, *lines: str, host: str = "localhost", body: bytes = b"") -> None:
        """Send a request."""
        head = "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""))
        await self.stream.send_all(head.encode() + body)

    async def answer(self) -> Answer:
        """Read a response to the end of the connection."""
        while data := await self.stream.receive_some():
            self.received += data
        head, _, body = self.received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Answer(int(first.split(" ")[1]), headers, body)

    async def event(self) -> dict[str, Any] | None:
        """Return the next event of a stream, or None at its end."""
        while True:
            text, end, rest = self.received.partition(b"\n\n")
            if end:
                self.received = rest
                data = [line[6:] for line in text.split(b"\n") if line.startswith(b"data: ")]
                if data:
                    found: dict[str, Any] = json.loads(b"".join(data))
                    return found
                continue
            more = await self.stream.receive_some()
            if not more:
                return None
            self.received += more


async def ask(
    engine: iii_trio.Engine,
    method: str,
    path: str,
    *lines: str,
    policy: ListenerPolicy | None = None,
    host: str = "localhost",
    body: bytes = b"",
) -> Answer:
    """Send one request, and return its answer."""
    async with trio.open_nursery() as nursery:
        client = Client(engine, nursery, policy)
        await client.send(method, path, *lines, host=host, body=body)
        answer = await client.answer()
        await client.stream.aclose()
    return answer


def call_lines(body: bytes) -> tuple[str, ...]:
    """Return the header lines of a call with this body."""
    return ("Content-Type: application/json", f"Content-Length: {len(body)}")


async def call(engine: iii_trio.Engine, function_id: str, payload: Any = None, **more: Any) -> Any:
    """Call a function as the page does, and return the reply."""
    body = json.dumps({"function_id": function_id, "payload": payload, **more}).encode()
    answer = await ask(engine, "POST", "/page/call", *call_lines(body), body=body)
    assert answer.status == 200, answer
    return json.loads(answer.body)


def basic(password: str) -> str:
    """Return the header line by which a browser sends a password."""
    return f"Authorization: Basic {b64encode(f'me:{password}'.encode()).decode()}"
