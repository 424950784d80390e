"""An engine on a loopback port, a well-behaved session beside whatever else happens to it, and clients that say bytes."""

from __future__ import annotations

import base64
import json
import logging
import os
import socket
import struct
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from iii_trio import Engine, EngineConfig, Limits, Listener, Ref, Timeouts, open_engine
from iii_trio.wire import attach_target

QUICK: Final = EngineConfig(
    listeners=(Listener(port=0),),
    limits=Limits(handshake_seconds=0.3, message_bytes=1024 * 1024),
    timeouts=Timeouts(goodbye_seconds=0.3),
)
"""An engine that loses patience soon."""


@attrs.define(eq=False)
class Target:
    """The engine, and the session that must not notice anything."""

    engine: Engine
    url: str
    good: WebSocketConnection
    answers: dict[str, Any] = attrs.field(factory=dict)
    news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def call(self, function_id: str, data: Any) -> Any:
        """What the good session is answered: a result, or an error's body."""
        invocation_id = str(uuid.uuid4())
        message = {"type": "invokefunction", "function_id": function_id, "invocation_id": invocation_id, "data": data}
        await self.good.send_message(json.dumps(message))
        with trio.fail_after(10):
            while invocation_id not in self.answers:
                await self.news.park()
        answer = self.answers.pop(invocation_id)
        return answer.get("error") or answer.get("result")

    async def new_channel(self, **options: Any) -> tuple[Ref, Ref]:
        """The refs of a new channel of the good session: writer, reader."""
        told = await self.call("engine::channels::create", options)
        return Ref.from_json(told["writer"]), Ref.from_json(told["reader"])

    async def answer_calls(self) -> None:
        """The good session serves `echo`, and notes what it is answered."""
        while True:
            message = json.loads(await self.good.get_message())
            if message["type"] == "invokefunction":
                answer = {"type": "invocationresult", "function_id": "echo", "invocation_id": message["invocation_id"],
                          "result": message["data"]}  # fmt: skip
                await self.good.send_message(json.dumps(answer))
            elif message["type"] == "invocationresult":
                self.answers[message["invocation_id"]] = message
                self.news.unpark_all()

    async def check_healthy(self) -> None:
        """The engine answers everybody as if nothing had happened."""
        client = await Client.connect(self.port)
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: engine\r\n\r\n")
        with trio.fail_after(10):
            said = await client.read_to_the_end()
        client.drop()
        assert said.startswith(b"HTTP/1.1 200 OK\r\n") and said.endswith(b'{"status":"ready"}'), said
        assert (await self.call("echo", {"n": [1, "é"]}))["n"] == [1, "é"]

    async def wait_nothing_left(self, **besides: int) -> None:
        """Wait until the engine holds nothing but the good session, its function, and what is said `besides`."""
        nothing = ("calls", "channels", "attached_channels", "trigger_types", "bindings")
        expected = dict.fromkeys(nothing, 0) | {"sessions": 1, "functions": 1, "connections": 1}
        await wait_until(lambda: attrs.asdict(self.engine.statistics()) == expected | besides, self.engine.statistics)


async def wait_until(true: Callable[[], bool], said: Callable[[], object] = lambda: "") -> None:
    """Wait for what other processes or the kernel do: nothing else tells."""
    with trio.move_on_after(10):
        while not true():  # noqa: ASYNC110
            await trio.sleep(0.002)
    assert true(), said()


@asynccontextmanager
async def open_target(config: EngineConfig = QUICK) -> AsyncIterator[Target]:
    """A target; at its end the good session leaves, the engine must hold nothing, and has logged no error of its own."""
    errors = LoggedErrors()
    logger = logging.getLogger("iii_trio.engine")
    logger.addHandler(errors)
    try:
        with trio.fail_after(60):
            async with open_engine(config) as engine:
                (url,) = await engine.listen(Listener(port=0))
                async with open_websocket_url(url) as good, trio.open_nursery() as nursery:
                    target = Target(engine, url, good)
                    await good.send_message(
                        '{"type":"invokefunction","function_id":"engine::workers::register","data":{"runtime":"test"}}'
                    )
                    await good.send_message('{"type":"registerfunction","id":"echo"}')
                    nursery.start_soon(target.answer_calls)
                    yield target
                    await target.check_healthy()
                    nursery.cancel_scope.cancel()
                await wait_until(lambda: not any(attrs.astuple(engine.statistics())), engine.statistics)
    finally:
        logger.removeHandler(errors)
    assert not errors.texts, errors.texts


class LoggedErrors(logging.Handler):
    """Collects the errors that the engine logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


class Client:
    """A client that says bytes, and ends as it is told."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock

    @classmethod
    async def connect(cls, port: int) -> Client:
        sock = trio.socket.socket()
        await sock.connect(("127.0.0.1", port))
        return cls(sock)

    @classmethod
    async def upgraded(cls, port: int, target: str | Ref, headers: bytes = b"") -> Client:
        """A client whose upgrade was granted; asserts that it was."""
        client = await cls.connect(port)
        await client.send(upgrade(target, headers))
        head = await client.read_head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return client

    async def send(self, data: bytes) -> bool:
        """Whether the engine's side was still there."""
        try:
            while data:
                data = data[await self.sock.send(data) :]
        except OSError:
            return False
        return True

    async def read_head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            more = await self.sock.recv(1)
            if not more:
                break
            head += more
        return head

    async def read_to_the_end(self) -> bytes:
        """What comes until the engine ends the connection, in whichever way."""
        said = bytearray()
        try:
            while more := await self.sock.recv(65536):
                said += more
        except OSError:
            pass
        return bytes(said)

    def fin(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def drop(self) -> None:
        self.sock.close()


def upgrade(target: str | Ref, headers: bytes = b"") -> bytes:
    """A valid request for an upgrade."""
    key = base64.b64encode(os.urandom(16))
    path = (attach_target(target) if isinstance(target, Ref) else target).encode()
    return (
        b"GET " + path + b" HTTP/1.1\r\nHost: engine\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n" + headers + b"\r\n"
    )
