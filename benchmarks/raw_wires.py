"""What raw clients say: WebSocket frames, plain bytes or NATS, so that the process under test is the bottleneck."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import uuid
from typing import Any
from urllib.parse import urlencode

from iii_trio.transport.frames import BINARY, CLOSE, TEXT, MessageScanner, close_payload, frame

READ = 1 << 20


tls: ssl.SSLContext | None = None
"""Set by `use_tls`: how each connection is encrypted."""


def use_tls() -> None:
    """Encrypt every further connection, trusting any certificate."""
    global tls
    tls = ssl.create_default_context()
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock if tls is None else tls.wrap_socket(sock)


def upgrade(port: int, target: str) -> socket.socket:
    """A WebSocket, as far as its handshake. Nothing may be sent by the other side before we speak."""
    sock = connect(port)
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET {target} HTTP/1.1\r\nHost: engine\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):  # the workers' greeting comes behind it in the same write: byte by byte
        more = sock.recv(1)
        if not more:
            raise ConnectionError(f"{target} was refused: {head!r}")
        head += more
    if b" 101 " not in head.split(b"\r\n")[0]:
        raise ConnectionError(f"{target} was refused: {head!r}")
    return sock


class Session:
    """A worker on a raw socket."""

    def __init__(self, port: int) -> None:
        self.sock = upgrade(port, "/")
        self._scanner = MessageScanner(2**26, masked=False)
        self._waiting: list[bytes | bytearray] = []
        self.hello = self.receive()

    def receive_text(self) -> bytes | bytearray:
        while not self._waiting:
            data = self.sock.recv(262_144)
            if not data:
                raise ConnectionError("the engine has gone")
            messages, _ = self._scanner.scan(memoryview(self._scanner.tail + data))
            self._waiting += [payload for _, payload in messages]
        return self._waiting.pop(0)

    def receive(self) -> Any:
        return json.loads(self.receive_text())

    def send(self, message: dict[str, Any]) -> None:
        self.sock.sendall(frame(TEXT, json.dumps(message).encode(), mask=os.urandom(4)))

    def call(self, function_id: str, data: Any) -> Any:
        call = {"type": "invokefunction", "invocation_id": str(uuid.uuid4()), "function_id": function_id, "data": data}
        self.send(call)
        while (answer := self.receive()).get("invocation_id") != call["invocation_id"]:
            pass
        return answer["result"]

    def offer(self, *function_ids: str) -> None:
        """Offer functions; returns when the engine routes to them."""
        self.send({"type": "invokefunction", "function_id": "engine::workers::register", "data": {"runtime": "bench"}})
        for function_id in function_ids:
            self.send({"type": "registerfunction", "id": function_id})
        self.send({"type": "ping"})
        while self.receive()["type"] != "pong":
            pass

    def make_channel(self) -> dict[str, Any]:
        channel: dict[str, Any] = self.call("engine::channels::create", {})
        return channel


def attach(port: int, ref: dict[str, str]) -> socket.socket:
    return upgrade(port, target_of(ref))


def target_of(ref: dict[str, str]) -> str:
    """Return the path at which an end of a channel is attached."""
    query = urlencode({"key": ref["access_key"], "dir": ref["direction"]})
    return f"/ws/channels/{ref['channel_id']}?{query}"


class Wire:
    """How to get a one-way pipe out of a process, and how its messages look on the writer's side."""

    def __init__(self, protocol: str, port: int) -> None:
        self.protocol = protocol
        self.port = port
        self._session = Session(port) if protocol == "engine" else None

    def pipe(self) -> tuple[socket.socket, socket.socket, bytes]:
        """A reader's socket, a writer's socket, and what comes before each message of the writer's."""
        if self.protocol == "nats":
            name = uuid.uuid4().hex
            reader, writer = self._nats(), self._nats()
            reader.sendall(f"SUB {name} 1\r\nPING\r\n".encode())
            while not reader.recv(4096).endswith(b"PONG\r\n"):
                pass
            return reader, writer, name.encode()
        read, write = self.places()
        return upgrade(self.port, read), upgrade(self.port, write), b""

    def places(self) -> tuple[str, str]:
        """Return the paths at which the reader and the writer of a new pipe connect. NATS has none."""
        if self._session is not None:
            made = self._session.make_channel()
            return target_of(made["reader"]), target_of(made["writer"])
        name = uuid.uuid4().hex
        return f"/{name}/read", f"/{name}/write"

    def message(self, before: bytes, payload: bytes, *, plain: bool = False) -> bytes:
        """One message as the writer sends it; `plain`: so that its payload is on the wire as it is."""
        if self.protocol == "nats":
            return b"PUB %b %d\r\n%b\r\n" % (before, len(payload), payload)
        return frame(BINARY, payload, mask=bytes(4) if plain else os.urandom(4))

    def goodbye(self) -> bytes:
        return b"" if self.protocol == "nats" else frame(CLOSE, close_payload(1000), mask=os.urandom(4))

    def _nats(self) -> socket.socket:
        sock = connect(self.port)
        sock.recv(65536)
        sock.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
        while not sock.recv(4096).endswith(b"PONG\r\n"):
            pass
        return sock
