"""Reading into the shared buffer: how much at once, when it waits, and what comes behind the end."""

from __future__ import annotations

import socket

import attrs
import pytest
import trio

from iii_trio.transport.reading import READ_BYTES, ReadBuffer, StreamInput, choose_read_size, read_at_once
from iii_trio.transport.socket import Socket

LATE = 16 * 1024 * 1024


@attrs.define(eq=False)
class Waiting(trio.abc.Stream):
    """A stream that is read without waiting. It notes each step: `read n`, `wait`."""

    arrived: list[bytes] = attrs.field(factory=list)
    """What one read gives at most; an empty one is the end."""
    steps: list[str] = attrs.field(factory=list)
    largest: int = 0

    def read_now(self, into: memoryview) -> int | None:
        self.largest = len(into)
        if not self.arrived:
            self.steps.append("nothing")
            return None
        data = self.arrived[0][: len(into)]
        into[: len(data)] = data
        self.arrived[0] = self.arrived[0][len(data) :]
        if not self.arrived[0]:
            self.arrived.pop(0)
        self.steps.append(f"read {len(data)}")
        return len(data)

    async def wait_readable(self) -> None:
        self.steps.append("wait")
        await trio.lowlevel.checkpoint()
        if not self.arrived:
            self.arrived.append(b"late")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.arrived.pop(0) if self.arrived else b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("n", "messages", "at_most", "size"),
    [
        (1000, 0, 10, READ_BYTES),  # nothing is known of the messages
        (100_000, 100, 50, 50_000),
        (100_000, 3, 1, 33_333),
        (100, 100, 50, 4096),
        (4096, 1, 1, 4096),
        (4097, 1, 1, 4097),
        (10**6, 1, 2, READ_BYTES),
        (READ_BYTES, 1, 1, READ_BYTES),
    ],
)
def test_the_size_of_a_read_follows_the_size_of_messages(n: int, messages: int, at_most: int, size: int) -> None:
    assert choose_read_size(n, messages, at_most) == size


@pytest.mark.parametrize("tail", [b"", b"t", bytes(range(139)), b"x" * 256])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_what_was_left_stands_before_what_was_read(tail: bytes, n: int) -> None:
    buffer = ReadBuffer(8)
    assert len(buffer.free) == 8
    buffer.free[:] = b"abcdefgh"
    assert bytes(buffer.filled(tail, n)) == tail + b"abcdefgh"[:n]


def test_a_buffer_has_room_for_the_largest_read() -> None:
    assert len(ReadBuffer().free) == READ_BYTES == 262_144
    assert [len(ReadBuffer(size).free) for size in (1, 255, 256, 300)] == [1, 255, 256, 300]


def test_the_first_read_takes_a_head_and_no_more() -> None:
    for there, taken in [([], 0), ([b""], 0), ([b"GET"], 3), ([b"x" * 20_000], 16_384)]:
        stream = Waiting(list(there))
        assert read_at_once(stream, ReadBuffer()) == b"".join(there)[:taken]
    near, _ = trio.testing.memory_stream_pair()
    assert read_at_once(near, ReadBuffer()) == b""


async def test_a_read_waits_exactly_when_the_last_one_emptied_the_stream() -> None:
    stream = Waiting([b"a" * 10, b"b" * 4])
    reading = StreamInput(stream, ReadBuffer())
    reading.read_size = 5
    # The first read tries at once. A full read leaves more, most likely, and others have their turn before the next.
    assert bytes(await reading.read(b"") or b"") == b"aaaaa"
    with trio.testing.assert_checkpoints():
        assert bytes(await reading.read(b"tail") or b"") == b"tailaaaaa"
    assert bytes(await reading.read(b"") or b"") == b"bbbb"
    assert stream.steps == ["read 5", "read 5", "read 4"] and stream.largest == 5
    # A short read emptied it, so that trying would be for nothing.
    assert bytes(await reading.read(b"") or b"") == b"late"
    assert stream.steps[3:] == ["wait", "read 4"]
    stream.arrived.append(b"")
    assert await reading.read(b"") is None


async def test_the_first_read_of_a_socket_waits_because_its_peer_has_still_to_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near, far = socket.socketpair()
    tries: list[int] = []
    read_now = Socket.read_now
    monkeypatch.setattr(Socket, "read_now", lambda ours, into: tries.append(len(into)) or read_now(ours, into))
    async with Socket(near) as stream, trio.open_nursery() as nursery:

        async def read() -> None:
            assert bytes(await StreamInput(stream, ReadBuffer()).read(b"") or b"") == b"later"

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert not tries
        far.sendall(b"later")
    assert len(tries) == 1
    far.close()


async def test_a_read_that_finds_nothing_waits() -> None:
    stream = Waiting()
    reading = StreamInput(stream, ReadBuffer())
    with trio.testing.assert_checkpoints():
        assert bytes(await reading.read(b"") or b"") == b"late"
    assert stream.steps == ["nothing", "wait", "read 4"]


async def test_bytes_that_were_read_before_come_first_and_once() -> None:
    stream = Waiting([b"more"])
    reading = StreamInput(stream, ReadBuffer())
    reading.rest = b"rest"
    assert bytes(await reading.read(b"") or b"") == b"rest"
    assert bytes(await reading.read(b"") or b"") == b"more"


async def test_a_stream_that_is_read_with_waiting_only() -> None:
    near, far = trio.testing.memory_stream_pair()
    reading = StreamInput(near, ReadBuffer())
    await far.send_all(b"abc")
    assert bytes(await reading.read(b"tail") or b"") == b"tailabc"
    await far.aclose()
    assert await reading.read(b"tail") is None and not reading.at_end


def test_input_behind_the_close_is_bounded_exactly() -> None:
    reading = StreamInput(Waiting(), ReadBuffer())
    assert not reading.too_late(LATE - 1) and not reading.too_late(1) and reading.too_late(1)


@pytest.mark.parametrize(("pieces", "left"), [(15, 0), (16, 0), (17, 0), (18, 1), (20, 3)])
async def test_discarding_ends_at_the_end_or_at_the_bound(pieces: int, left: int) -> None:
    """16 pieces of 1 MiB are allowed, and the 17th is the one too many."""
    stream = Waiting([bytes(1024 * 1024)] * pieces)
    reading = StreamInput(stream, ReadBuffer())
    assert not reading.at_end
    await reading.discard()
    assert reading.at_end and len(stream.arrived) == left


async def test_discarding_ends_at_an_error() -> None:
    near, _ = trio.testing.memory_stream_pair()
    await near.aclose()
    reading = StreamInput(near, ReadBuffer())
    await reading.discard()
    assert reading.at_end
