"""Whoever always has more to say has the loop to itself for one short turn at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from iii_trio import open_engine
from iii_trio.compat.sdk_limits import ABORT_FRAME
from iii_trio.transport.frames import TEXT, frame
from iii_trio.transport.reading import READ_BYTES, choose_read_size

HEAD = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Flood(trio.abc.Stream):
    """A peer's stream that has always the same message more, and takes all."""

    def __init__(self, message: bytes) -> None:
        self._message = frame(TEXT, message, mask=bytes(4))
        self._more = HEAD
        self.read = 0
        self.written = 0

    def read_now(self, into: memoryview) -> int | None:
        self._more += self._message * (len(into) // len(self._message) + 1)
        into[:] = self._more[: len(into)]
        self._more = self._more[len(into) :]
        self.read += len(into)
        return len(into)

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()

    def write_now(self, parts: Sequence[bytes]) -> int:
        taken = sum(map(len, parts))
        self.written += taken
        return taken

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise AssertionError("this stream can be read without waiting")

    async def send_all(self, data: object) -> None:
        raise AssertionError("this stream can be written without waiting")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("message", [b'{"type":"ping"}', b'{"type":"ping","x":"' + b"y" * 1000 + b'"}'])
async def test_a_flood_of_small_messages_gives_others_a_turn_after_few(message: bytes) -> None:
    flood = Flood(message)
    per_turn = []
    async with open_engine() as engine, trio.open_nursery() as nursery:
        nursery.start_soon(engine.serve_stream, flood)
        while not flood.written or len(per_turn) < 20:
            before = flood.read
            await trio.lowlevel.checkpoint()
            per_turn.append((flood.read - before) // len(message))
        nursery.cancel_scope.cancel()
    assert sum(per_turn[-10:]) > 0, "it is served all the same"
    most = 2 * max(64, 4096 // len(message)) + 4  # between two steps of ours may be two of its
    assert max(per_turn[-10:]) <= most, per_turn
    assert max(per_turn) <= max(most, 2 * 16_384 // len(message)), per_turn


def test_large_messages_are_read_in_large_portions() -> None:
    assert choose_read_size(100_000, 0, 64) == READ_BYTES  # a part of a message
    assert choose_read_size(READ_BYTES, 4, 64) == READ_BYTES
    assert choose_read_size(64_000, 1000, 64) == 4096
    assert choose_read_size(64_000, 64, 64) == 64_000


class Reader(trio.abc.Stream):
    """The stream of a reader that says nothing after its upgrade, and takes all."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self.written = b""

    def read_now(self, into: memoryview) -> int | None:
        if not self._head:
            return None
        head, self._head = self._head, b""
        into[: len(head)] = head
        return len(head)

    async def wait_readable(self) -> None:
        await trio.sleep_forever()

    def write_now(self, parts: Sequence[bytes]) -> int:
        self.written += b"".join(map(bytes, parts))
        return sum(map(len, parts))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError("never")

    async def send_all(self, data: object) -> None:
        raise AssertionError("this stream can be written without waiting")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        pass


async def test_a_reader_is_told_of_a_lost_writer_within_the_step(autojump_clock: object) -> None:
    """A process with a thousand channels dies: what its end leaves behind is taken down when the readers know."""
    async with open_engine() as engine, engine.open_worker("w") as worker, trio.open_nursery() as nursery:
        refs = await worker.trigger("engine::channels::create", {})
        ref = refs["reader"]
        target = f"/ws/channels/{ref['channel_id']}?key={ref['access_key']}&dir=read"
        stream = Reader(HEAD.replace(b"GET / ", f"GET {target} ".encode()))
        nursery.start_soon(engine.serve_stream, stream)
        await trio.testing.wait_all_tasks_blocked()
        assert not stream.written.endswith(ABORT_FRAME)
        engine._shell.end_channel(ref["channel_id"], "its writer is gone")
        assert stream.written.endswith(ABORT_FRAME)
        await trio.testing.wait_all_tasks_blocked()
        assert stream.written.count(ABORT_FRAME) == 1
        nursery.cancel_scope.cancel()
