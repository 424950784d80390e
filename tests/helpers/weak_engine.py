"""An engine that makes channels with the weaknesses that such relays have; for the conformance kit to find.

A cut looks like a clean end; one key opens both ends; a second claimant gets an empty stream; what has ended is never
forgotten; a reader's pings wait for the writer; owners do not matter.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream


@attrs.define(eq=False)
class Deafened(trio.abc.Stream):
    """A stream that can be read only while it is not deaf."""

    stream: trio.abc.Stream
    deaf: bool = False
    hears: trio.Event = attrs.field(factory=trio.Event)

    def hear(self) -> None:
        self.hears.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.stream.receive_some(max_bytes)
        if self.deaf:
            await self.hears.wait()
        return data

    async def aclose(self) -> None:
        await self.stream.aclose()


@attrs.define(eq=False)
class WeakEngine:
    """What it keeps: keys and pipes, for ever; sessions and functions."""

    keys: dict[str, str] = attrs.field(factory=dict)
    writers: dict[str, trio.MemorySendChannel[Any]] = attrs.field(factory=dict)
    readers: dict[str, trio.MemoryReceiveChannel[Any]] = attrs.field(factory=dict)
    functions: dict[str, WebSocketConnection] = attrs.field(factory=dict)

    async def serve(self, stream: trio.abc.Stream) -> None:
        deafened = Deafened(stream)
        try:
            async with trio.open_nursery() as nursery:
                await self.answer_request(nursery, deafened)
                nursery.cancel_scope.cancel()
        except* Exception:  # whatever it is, it is said to nobody
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def answer_request(self, nursery: trio.Nursery, stream: Deafened) -> None:
        request = await wrap_server_stream(nursery, stream, max_message_size=1 << 26)
        parts = urlsplit(request.path)
        if not parts.path.startswith("/ws/channels/"):
            await self.serve_worker(await request.accept())
            return
        channel_id, asked = parts.path.rpartition("/")[2], dict(parse_qsl(parts.query))
        if self.keys.get(channel_id) != asked.get("key"):
            await request.reject(404)
        elif asked["dir"] == "write":
            await self.serve_writer(await request.accept(), self.writers.pop(channel_id, None))
        else:
            socket = await request.accept()
            stream.deaf = True  # while there is nothing to write, nobody looks at what the reader says
            await self.serve_reader(socket, self.readers.pop(channel_id, None))
            stream.hear()
            await socket.aclose()

    async def serve_writer(self, socket: WebSocketConnection, pipe: trio.MemorySendChannel[Any] | None) -> None:
        if pipe is None:
            await socket.aclose()
            return
        with pipe:  # whatever the end is, the reader sees the same
            try:
                while True:
                    await pipe.send(await socket.get_message())
            except (ConnectionClosed, trio.BrokenResourceError):
                pass

    async def serve_reader(self, socket: WebSocketConnection, pipe: trio.MemoryReceiveChannel[Any] | None) -> None:
        if pipe is not None:
            with pipe:
                try:
                    async for message in pipe:
                        await socket.send_message(message)
                except ConnectionClosed:
                    pass

    async def serve_worker(self, socket: WebSocketConnection) -> None:
        await socket.send_message(json.dumps({"type": "workerregistered", "worker_id": str(uuid.uuid4())}))
        try:
            while True:
                message = json.loads(await socket.get_message())
                if message["type"] == "registerfunction":
                    self.functions[message["id"]] = socket
                elif message["type"] == "invokefunction":
                    if message["function_id"] in self.functions:
                        await self.functions[message["function_id"]].send_message(json.dumps(message))
                    else:
                        await socket.send_message(json.dumps({**self.answer(message), "type": "invocationresult"}))
        except ConnectionClosed:
            pass

    def answer(self, call: dict[str, Any]) -> dict[str, Any]:
        about = {key: call[key] for key in ("function_id", "invocation_id")}
        match call["function_id"]:
            case "engine::channels::create":
                channel_id, key = str(uuid.uuid4()), str(uuid.uuid4())
                self.keys[channel_id] = key
                room = (call.get("data") or {}).get("buffer_size") or 64
                self.writers[channel_id], self.readers[channel_id] = trio.open_memory_channel[Any](room)
                ref = {"channel_id": channel_id, "access_key": key}
                return {
                    **about,
                    "result": {"writer": ref | {"direction": "write"}, "reader": ref | {"direction": "read"}},
                }
            case "engine::workers::register" | "engine::workers::list":
                return {**about, "result": {}}
        return {**about, "error": {"code": "function_not_found", "message": "there is no such function"}}


@asynccontextmanager
async def open_weak_engine() -> AsyncIterator[str]:
    """Its URL."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, WeakEngine().serve, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()
