"""What must hold whatever one peer sends: a bystander goes on, every call is answered, and no task dies."""

from __future__ import annotations

import json
from typing import Any

import trio
import trio.testing

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: engine\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


BYSTANDERS_QUEUE = "bystander"


class Broken(AssertionError):
    """An oracle does not hold."""


def framed(payload: bytes, first: int = 0x81) -> bytes:
    """Return a masked frame, of text unless its first byte says otherwise."""
    size = len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 2**16:
        head = bytes([first, 0xFE]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0xFF]) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


class Client:
    """A worker that speaks bytes over a memory stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.unread = bytearray()
        self.messages: list[dict[str, Any]] = []
        self._calls = 0

    async def upgrade(self, target: str = "/") -> None:
        """Upgrade to WebSocket."""
        await self.stream.send_all(UPGRADE.replace(b" / ", f" {target} ".encode(), 1))
        while b"\r\n\r\n" not in self.unread:
            await self._more()
        if not self.unread.startswith(b"HTTP/1.1 101"):
            raise Broken(f"no upgrade: {bytes(self.unread[:200])!r}")
        del self.unread[: self.unread.index(b"\r\n\r\n") + 4]

    async def connect(self, name: str) -> None:
        """Upgrade and register."""
        await self.upgrade()
        await self.call("engine::workers::register", {"name": name, "runtime": "python", "pid": 1})

    async def tell(self, message: dict[str, Any]) -> None:
        """Send a message."""
        await self.stream.send_all(framed(json.dumps(message).encode()))

    async def call(self, function_id: str, data: Any) -> dict[str, Any]:
        """Call a function and return the message that answers."""
        self._calls += 1
        id_ = f"00000000-0000-4000-9000-{self._calls:012d}"
        await self.tell({"type": "invokefunction", "invocation_id": id_, "function_id": function_id, "data": data})
        return await self.until(lambda message: message.get("invocation_id") == id_)

    async def until(self, wanted: Any) -> dict[str, Any]:
        """Receive until a message is the wanted one."""
        while True:
            for message in self.messages:
                if wanted(message):
                    self.messages.remove(message)
                    return message
            self.messages.append(json.loads(await self.receive(1)))

    async def receive(self, wanted: int) -> bytes:
        """Receive until a frame has the wanted opcode, and return its payload."""
        while True:
            data = self.unread
            if len(data) >= 2:
                size, start = data[1] & 127, 2
                if size >= 126:
                    start = 4 if size == 126 else 10
                    size = int.from_bytes(data[2:start], "big")
                if len(data) >= start + size:
                    opcode, payload = data[0] & 15, bytes(data[start : start + size])
                    del data[: start + size]
                    if opcode == wanted:
                        return payload
                    if opcode == 8:
                        raise Broken("the engine closed the connection")
                    continue
            await self._more()

    async def _more(self) -> None:
        try:
            data = await self.stream.receive_some(65536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            raise Broken("the connection ended")
        self.unread += data


class Bystander:
    """Two workers that do ordinary work beside the hostile peer: calls, a channel, jobs and lists."""

    def __init__(self, caller: Client, callee: Client, writer: Client, reader: Client) -> None:
        self.caller, self.callee, self.writer, self.reader = caller, callee, writer, reader
        self._round = 0

    async def begin(self) -> None:
        """Offer a function, provide a trigger type and attach to a channel."""
        await self.caller.connect("caller")
        await self.callee.connect("callee")
        await self.callee.tell({"type": "registerfunction", "id": "good::f"})
        await self.callee.tell({"type": "registertriggertype", "id": "tide"})
        refs = (await self.caller.call("engine::channels::create", {}))["result"]
        self.channel = refs["writer"]["channel_id"]
        for end, name in ((self.writer, "writer"), (self.reader, "reader")):
            ref = refs[name]
            await end.upgrade(f"/ws/channels/{ref['channel_id']}?key={ref['access_key']}&dir={ref['direction']}")

    async def goes_on(self) -> None:
        """Check the call, the channel, the lists and a job. Raises Broken."""
        self._round += 1
        await self._check_call()
        await self._check_channel()
        await self._check_job()
        for name in ("functions", "registered-triggers", "triggers", "workers"):
            answer = await self.caller.call(f"engine::{name}::list", {"include_internal": True})
            if answer.get("error"):
                raise Broken(f"engine::{name}::list failed: {answer['error']}")
        channels = (await self.caller.call("engine::channels::list", {}))["result"]["channels"]
        if self.channel not in [row["id"] for row in channels]:
            raise Broken("the bystander's channel is gone")
        receipt = await self.caller.call("iii::durable::publish", {"topic": "tide", "data": 1})
        if receipt.get("error"):
            raise Broken(f"the bystander's message was refused: {receipt['error']}")

    async def _check_call(self) -> None:
        id_ = f"00000000-0000-4000-a000-{self._round:012d}"
        call = {
            "type": "invokefunction",
            "invocation_id": id_,
            "function_id": "good::f",
            "data": {"round": self._round},
        }
        await self.caller.tell(call)
        await self._answer({"round": self._round})
        if (await self.caller.until(lambda message: message.get("invocation_id") == id_)).get("result") != 1:
            raise Broken("the bystander's call failed")

    async def _answer(self, data: dict[str, Any]) -> None:
        """Wait for the call with this data and answer it."""

        def wanted(message: dict[str, Any]) -> bool:
            given = message.get("data")
            return message["type"] == "invokefunction" and isinstance(given, dict) and data.items() <= given.items()

        await self._return_one(await self.callee.until(wanted))

    async def _return_one(self, call: dict[str, Any]) -> None:
        await self.callee.tell({"type": "invocationresult", "invocation_id": call["invocation_id"], "result": 1})

    async def answer_the_rest(self) -> None:
        """Answer the void calls of the hostile peer, which the engine keeps until then. They came before our own calls."""
        for message in self.callee.messages:
            if message["type"] == "invokefunction":
                await self._return_one(message)
        self.callee.messages.clear()

    async def _check_channel(self) -> None:
        data = f"round {self._round}".encode()
        await self.writer.stream.send_all(framed(data, 0x82))
        if (got := await self.reader.receive(2)) != data:
            raise Broken(f"the bystander's channel gave {got!r} and not {data!r}")

    async def _check_job(self) -> None:
        """Enqueue a job and wait until it is done."""
        job = {"job": self._round}
        input_ = {"queue": BYSTANDERS_QUEUE, "function_id": "good::f", "data": job}
        receipt = await self.caller.call("engine::queue::enqueue", input_)
        if receipt.get("error"):
            raise Broken(f"the bystander's job was refused: {receipt['error']}")
        await self._answer(job)
        for _ in range(1000):
            rows = (await self.caller.call("engine::queue::list", {}))["result"]["queues"]
            (row,) = [row for row in rows if row["name"] == BYSTANDERS_QUEUE]
            if (row["depth"], row["dead"]) == (0, 0):
                return
            await trio.sleep(0.001)
        raise Broken(f"the bystander's job does not finish: {row}")
