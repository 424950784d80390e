"""A tap on the wire between workers and an engine: every byte is handed on as it came, and what was said is kept.

It reads frames with wsproto alone, so that nothing of ours has to be right for it to see what was really sent.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Message, TextMessage

from iii_trio.nursery import open_service_nursery


@attrs.frozen
class Said:
    """One message. `content` is its JSON, or the bytes of what is none."""

    path: str
    by_worker: bool
    content: Any

    @property
    def kind(self) -> str:
        """What it is: its type and, where that means something of its own, its variety."""
        if isinstance(self.content, bytes):
            return f"{self.path} {self.content[:4].decode(errors='replace')}"
        kind = str(self.content["type"])
        match self.content:
            case {"action": {"type": variety}}:
                return f"{kind} {variety}"
            case {"code": variety} | {"error": {"code": variety}} if kind != "invocationresult":
                return f"{kind} {variety}"
            case {"error": {}}:
                return f"{kind} error"
        return kind


@attrs.define(eq=False)
class Tap:
    """What was said so far, by whoever connected to `url` and by the engine to them."""

    url: str
    said: list[Said] = attrs.field(factory=list)
    _links: set[trio.SocketStream] = attrs.field(factory=set)

    def kinds(self, *, by_worker: bool) -> set[str]:
        return {said.kind for said in self.said if said.by_worker is by_worker}

    def cut(self) -> None:
        """Lose every connection, without a word to either side."""
        for link in list(self._links):
            link.socket.close()


@asynccontextmanager
async def open_tap(engine_url: str) -> AsyncIterator[Tap]:
    """A tap in front of the engine that listens at `engine_url`."""
    target = urlsplit(engine_url)
    assert target.hostname is not None
    assert target.port is not None
    engine_host, engine_port = target.hostname, target.port
    async with open_service_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tap = Tap(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}")

        async def hand_on(worker: trio.SocketStream) -> None:
            engine = await trio.open_tcp_stream(engine_host, engine_port)
            path: list[str] = []
            links = {worker, engine}
            tap._links |= links
            try:
                async with trio.open_nursery() as both:
                    both.start_soon(_copy, worker, engine, _Ear(tap.said, path, by_worker=True).hear)
                    both.start_soon(_copy, engine, worker, _Ear(tap.said, path, by_worker=False).hear)
            finally:
                tap._links -= links
                for link in links:
                    link.socket.close()

        nursery.start_soon(trio.serve_listeners, hand_on, [listener])
        yield tap
        nursery.cancel_scope.cancel()


async def _copy(source: trio.SocketStream, target: trio.SocketStream, hear: Callable[[bytes], None]) -> None:
    try:
        async for data in source:
            hear(data)
            await target.send_all(data)
        await target.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        source.socket.close()
        target.socket.close()


class _Ear:
    """One direction of one connection: first the head, then frames."""

    def __init__(self, said: list[Said], path: list[str], *, by_worker: bool) -> None:
        self._said = said
        self._path = path  # of both directions: the request has it
        self._by_worker = by_worker
        self._head: bytes | None = b""
        self._frames = Connection(ConnectionType.SERVER if by_worker else ConnectionType.CLIENT)
        self._begun: list[Any] = []

    def hear(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            if self._by_worker:
                self._path.append(urlsplit(head.split(b" ")[1].decode()).path)
            self._head = None
        if self._path[0] not in ("/", "/otel"):
            return  # channels have no messages of their own
        self._frames.receive_data(data)
        for event in self._frames.events():
            if isinstance(event, Message):
                self._begun.append(event.data)
                if event.message_finished:
                    self._finish(event)

    def _finish(self, event: Message) -> None:
        empty: Any = "" if isinstance(event, TextMessage) else b""
        whole, self._begun = empty.join(self._begun), []
        content = bytes(whole) if isinstance(event, BytesMessage) else json.loads(whole)
        self._said.append(Said(self._path[0], self._by_worker, content))
