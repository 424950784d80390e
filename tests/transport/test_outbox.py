"""What waits to be written: order, whole frames, and nothing lost, on streams that take little or nothing at a time."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
import trustme
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.transport.frames import BINARY, TEXT, FrameBatch, frame
from iii_trio.transport.outbox import Outbox
from iii_trio.transport.socket import Buffer


class Sink(trio.abc.SendStream):
    """A stream with `write_now` that takes as much as it is told to, and keeps what it took."""

    def __init__(self, *takes: int) -> None:
        self.got = bytearray()
        self.writes = 0
        self.broken: str | None = None
        self._takes = list(takes)
        self._room = trio.lowlevel.ParkingLot()

    def grant(self, n: int) -> None:
        """The kernel has room for `n` bytes more."""
        self._takes.append(n)
        self._room.unpark_all()

    def break_now(self, cause: str) -> None:
        self.broken = cause
        self._room.unpark_all()

    def write_now(self, parts: Sequence[Buffer]) -> int:
        self.writes += 1
        if self.broken is not None:
            raise trio.BrokenResourceError(self.broken)
        if not self._takes:
            return 0
        data = b"".join(parts)[: self._takes[0]]
        self._takes[0] -= len(data)
        if not self._takes[0]:
            del self._takes[0]
        self.got += data
        return len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._takes and self.broken is None:
            await self._room.park()
        if self.broken is not None:
            raise trio.BrokenResourceError(self.broken)

    async def send_all(self, data: Buffer) -> None:
        raise AssertionError("an outbox does not wait in a stream that can be written without waiting")

    async def aclose(self) -> None:
        pass


class Slow(trio.abc.SendStream):
    """A stream without `write_now`, which takes each `send_all` only when it is let."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.sending = False
        self._gate = trio.lowlevel.ParkingLot()
        self.open = False

    def let(self) -> None:
        self.open = True
        self._gate.unpark_all()

    async def send_all(self, data: Buffer) -> None:
        await trio.lowlevel.checkpoint()
        self.sending = True
        try:
            while not self.open:
                await self._gate.park()
            self.got += data
        finally:
            self.sending = False

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        pass


@attrs.define(eq=False)
class Bench:
    """An outbox, and the causes for which it broke."""

    outbox: Outbox
    causes: list[str]
    nursery: trio.Nursery


@asynccontextmanager
async def outbox_on(stream: trio.abc.SendStream, **options: Any) -> AsyncIterator[Bench]:
    causes: list[str] = []
    async with trio.open_nursery() as nursery:
        yield Bench(Outbox(stream, nursery.start_soon, causes.append, **options), causes, nursery)
        nursery.cancel_scope.cancel()


def batch_of(*payloads: bytes) -> FrameBatch:
    frames: list[Buffer] = [frame(BINARY, payload) for payload in payloads]
    return FrameBatch(frames, len(frames), sum(map(len, payloads)))


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_what_the_stream_takes_at_once_is_written_by_no_task() -> None:
    sink = Sink(1000)
    async with outbox_on(sink) as bench:
        bench.outbox.put(b"one")
        assert not sink.got, "put does not write: several puts are one write"
        bench.outbox.put(b"two")
        bench.outbox.flush()
        assert (bytes(sink.got), sink.writes) == (b"onetwo", 1)
        assert bench.outbox.empty and not bench.nursery.child_tasks
        assert (bench.outbox.written_bytes, bench.outbox.waiting_bytes) == (6, 0)


async def test_the_task_lives_only_while_something_waits() -> None:
    sink = Sink(2)
    async with outbox_on(sink) as bench:
        bench.outbox.put(b"abc")
        bench.outbox.flush()
        assert (bench.outbox.waiting_bytes, len(bench.nursery.child_tasks)) == (1, 1)
        sink.grant(1000)
        await settled()
        assert bytes(sink.got) == b"abc" and not bench.nursery.child_tasks and bench.outbox.empty


async def test_bytes_put_behind_a_partial_write_keep_their_place() -> None:
    sink = Sink(2)
    async with outbox_on(sink) as bench:
        bench.outbox.put(b"abc")
        bench.outbox.flush()
        sink.grant(1000)  # there is room again, but the task has not batch yet
        bench.outbox.put(b"def")
        bench.outbox.flush()
        await settled()
        assert bytes(sink.got) == b"abcdef"


@given(
    st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=40)), max_size=12),
    st.lists(st.integers(1, 30), max_size=40),
)
def test_every_byte_arrives_once_and_in_order_however_little_is_taken(
    steps: list[tuple[bool, bytes]], takes: list[int]
) -> None:
    async def main() -> None:
        sink = Sink(*takes[:2])
        async with outbox_on(sink) as bench:
            for flushes, data in steps:
                bench.outbox.put(data)
                if flushes:
                    bench.outbox.flush()
            for n in takes[2:]:
                sink.grant(n)
                await trio.lowlevel.checkpoint()
            whole = b"".join(data for _, data in steps)
            assert whole.startswith(sink.got)
            sink.grant(10_000)
            await bench.outbox.wait_empty()
            assert sink.got == whole
            assert (bench.outbox.written_bytes, bench.outbox.waiting_bytes) == (len(whole), 0)

    trio.run(main)


@pytest.mark.parametrize("taken", range(24))
async def test_a_run_is_torn_by_no_control_frame(taken: int) -> None:
    """What is put after a partial write stands between two frames, wherever the write stopped."""
    sink = Sink(taken) if taken else Sink()
    ping = b"\x89\x00"
    payloads = [b"0123456789", b"abcdefg", b"x"]
    async with outbox_on(sink) as bench:
        rest = bench.outbox.offer(batch_of(*payloads))
        bench.outbox.put(ping)
        bench.outbox.flush()
        sink.grant(1000)
        await bench.outbox.wait_empty()
        sent = len(sink.got)
        if rest is not None:
            assert bench.outbox.offer(rest) is None
        frames = [frame(BINARY, payload) for payload in payloads]
        begun = next(n for n in range(4) if sum(map(len, frames[:n])) >= taken)
        assert bytes(sink.got) == b"".join(frames[:begun]) + ping + b"".join(frames[begun:])
        assert sent == sum(map(len, frames[:begun])) + len(ping)


async def test_a_run_is_not_begun_while_something_waits() -> None:
    sink = Sink()
    async with outbox_on(sink) as bench:
        bench.outbox.put(b"before")
        batch = batch_of(b"data")
        assert bench.outbox.offer(batch) is batch
        sink.grant(1000)
        await bench.outbox.wait_writable()
        assert bench.outbox.offer(batch) is None
        assert bytes(sink.got) == b"before" + frame(BINARY, b"data")


async def test_what_was_put_and_not_flushed_yet_is_not_overtaken() -> None:
    sink = Sink(1000)
    async with outbox_on(sink) as bench:
        bench.outbox.put(b"before")
        batch = batch_of(b"data")
        assert bench.outbox.offer(batch) is batch and not sink.got


async def test_a_cancelled_waiter_loses_nothing_of_a_begun_frame() -> None:
    sink = Sink(3)
    async with outbox_on(sink) as bench:
        rest = bench.outbox.offer(batch_of(b"0123456789"))
        assert rest is None and bench.outbox.waiting_bytes == 9
        with trio.CancelScope() as scope:
            bench.nursery.start_soon(settled_then, scope.cancel)
            await bench.outbox.wait_writable()
        assert scope.cancelled_caught
        sink.grant(1000)
        await settled()
        assert bytes(sink.got) == frame(BINARY, b"0123456789")
        assert bench.outbox.empty


async def settled_then(do: Callable[[], None]) -> None:
    await settled()
    do()


async def test_two_may_wait_until_it_is_empty() -> None:
    sink = Sink(1)
    done: list[int] = []

    async def wait(n: int) -> None:
        await bench.outbox.wait_empty()
        done.append(n)

    async with outbox_on(sink) as bench:
        bench.outbox.put(b"abc")
        bench.nursery.start_soon(wait, 1)
        bench.nursery.start_soon(wait, 2)
        await settled()
        assert not done
        sink.grant(100)
        await settled()
        assert sorted(done) == [1, 2]


async def test_a_write_that_fails_breaks_it_for_good_and_is_told_once() -> None:
    sink = Sink(2)
    async with outbox_on(sink) as bench:
        bench.outbox.put(b"abc")
        bench.outbox.flush()
        sink.break_now("Connection reset by peer")
        await settled()
        assert bench.causes == ["Connection reset by peer"]
        assert bench.outbox.over and bench.outbox.waiting_bytes == 0
        bench.outbox.put(b"more")
        bench.outbox.flush()
        assert bench.outbox.offer(batch_of(b"data")) is None
        with trio.fail_after(1):
            await bench.outbox.wait_empty()
            await bench.outbox.wait_writable()
        assert (bytes(sink.got), len(bench.causes), bench.outbox.empty) == (b"ab", 1, True)


async def test_a_write_that_fails_at_once_is_told_too() -> None:
    sink = Sink()
    sink.broken = "Broken pipe"
    async with outbox_on(sink) as bench:
        bench.outbox.put(b"abc")
        bench.outbox.flush()
        assert bench.causes == ["Broken pipe"]
    sink = Sink()
    sink.broken = "Broken pipe"
    async with outbox_on(sink) as bench:
        assert bench.outbox.offer(batch_of(b"data")) is None
        assert bench.causes == ["Broken pipe"]


async def test_a_peer_that_takes_nothing_is_broken_off_after_its_time(autojump_clock: trio.testing.MockClock) -> None:
    sink = Sink(2)
    async with outbox_on(sink, stalled_seconds=60) as bench:
        began = trio.current_time()
        bench.outbox.put(b"abc")
        bench.outbox.flush()
        await bench.outbox.wait_empty()
        assert trio.current_time() - began == pytest.approx(60)
        assert bench.causes == ["the peer took nothing for 60 s, with 1 bytes waiting"]


async def test_a_peer_that_takes_one_byte_now_and_then_is_not_stalled(autojump_clock: trio.testing.MockClock) -> None:
    sink = Sink(1)
    async with outbox_on(sink, stalled_seconds=60) as bench:
        bench.outbox.put(bytes(20))
        bench.outbox.flush()
        for _ in range(19):
            await trio.sleep(50)
            sink.grant(1)
        await bench.outbox.wait_empty()
        assert len(sink.got) == 20 and not bench.causes


async def test_what_was_not_begun_can_be_dropped_but_a_torn_frame_is_finished() -> None:
    sink = Sink(2)
    async with outbox_on(sink) as bench:
        for text in (b"first", b"second", b"third"):
            bench.outbox.put(frame(TEXT, text))
        bench.outbox.flush()
        bench.outbox.drop_unbegun()
        bench.outbox.put(b"\x88\x00")
        sink.grant(1000)
        await bench.outbox.wait_empty()
        assert bytes(sink.got) == frame(TEXT, b"first") + b"\x88\x00"
        assert bench.outbox.written_bytes == len(sink.got)


async def test_a_torn_frame_is_finished_also_after_a_write_that_took_nothing() -> None:
    sink = Sink(2)
    async with outbox_on(sink) as bench:
        for text in (b"first", b"second"):
            bench.outbox.put(frame(TEXT, text))
        bench.outbox.flush()
        sink.grant(0)  # woken in vain
        await settled()
        bench.outbox.drop_unbegun()
        bench.outbox.put(b"\x88\x00")
        sink.grant(1000)
        await bench.outbox.wait_empty()
        assert bytes(sink.got) == frame(TEXT, b"first") + b"\x88\x00"


async def test_nothing_is_left_when_all_can_be_dropped() -> None:
    sink = Sink()
    async with outbox_on(sink) as bench:
        bench.outbox.put(frame(TEXT, b"first"))
        bench.outbox.flush()
        bench.outbox.drop_unbegun()
        assert bench.outbox.waiting_bytes == 0
        sink.grant(1000)
        await settled()
        assert not sink.got and bench.outbox.empty


# --- streams that cannot be written without waiting


async def test_a_stream_without_write_now_gets_the_same_bytes() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with outbox_on(ours) as bench:
        assert bench.outbox.offer(batch_of(b"a" * 100_000)) is None
        bench.outbox.put(b"tail")
        await bench.outbox.wait_empty()
        await ours.send_eof()
        whole = b"".join([piece async for piece in theirs])
        assert whole == frame(BINARY, b"a" * 100_000) + b"tail"
        assert bench.outbox.written_bytes == len(whole)


async def test_a_stream_without_write_now_that_takes_nothing_is_broken_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slow = Slow()
    async with outbox_on(slow, stalled_seconds=60) as bench:
        bench.outbox.put(b"abc")
        bench.outbox.flush()
        with trio.fail_after(100):
            await bench.outbox.wait_empty()
        await settled()
        assert bench.causes == ["the peer took nothing for 60 s, with 3 bytes waiting"]
        assert not bench.nursery.child_tasks


@pytest.mark.parametrize("size", [10, 200_000])
async def test_dropping_spares_the_frame_that_such_a_stream_is_taking(size: int) -> None:
    slow = Slow()
    first = frame(BINARY, bytes(size))
    async with outbox_on(slow) as bench:
        bench.outbox.put(first)
        bench.outbox.flush()
        await settled()
        assert slow.sending
        bench.outbox.put(frame(BINARY, b"second"))
        bench.outbox.drop_unbegun()
        bench.outbox.put(b"\x88\x00")
        slow.let()
        await bench.outbox.wait_empty()
        assert bytes(slow.got) == first + b"\x88\x00"


async def test_a_tls_stream_gets_the_same_bytes() -> None:
    authority = trustme.CA()
    server_context, client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("engine.test").configure_cert(server_context)
    authority.configure_trust(client_context)
    near, far = trio.testing.memory_stream_pair()
    ours = trio.SSLStream(near, client_context, server_hostname="engine.test", https_compatible=True)
    theirs = trio.SSLStream(far, server_context, server_side=True, https_compatible=True)
    got = bytearray()

    async def receive() -> None:
        while len(got) < 300_014:
            got.extend(await theirs.receive_some())

    async with outbox_on(ours) as bench:
        bench.nursery.start_soon(receive)
        bench.outbox.put(frame(BINARY, b"t" * 300_000))
        bench.outbox.put(b"tail")
        await bench.outbox.wait_empty()
        await settled()
        assert got == frame(BINARY, b"t" * 300_000) + b"tail"


# --- many small ones


async def test_what_is_put_alone_is_written_at_once(mock_clock: trio.testing.MockClock) -> None:
    sink = Sink(10**6)
    async with outbox_on(sink) as bench:
        for n in range(1, 4):
            mock_clock.jump(0.001)
            bench.outbox.put(b"alone")
            bench.outbox.gather()
            assert sink.writes == n and sink.got.endswith(b"alone")
        await trio.testing.wait_all_tasks_blocked()
        assert sink.writes == 3


async def test_what_one_task_puts_turn_after_turn_becomes_few_writes(mock_clock: trio.testing.MockClock) -> None:
    sink = Sink(10**6)
    async with outbox_on(sink) as bench:
        with trio.testing.assert_checkpoints():
            for n in range(100):
                bench.outbox.put(b"%02d" % n)
                bench.outbox.gather()
                await trio.lowlevel.checkpoint()
        for _ in range(3):  # nobody waits for more than two turns once nothing follows
            await trio.lowlevel.checkpoint()
        assert bytes(sink.got) == b"".join(b"%02d" % n for n in range(100))
        assert sink.writes <= 10


async def test_what_many_tasks_put_in_one_turn_becomes_one_write_behind_the_first(
    mock_clock: trio.testing.MockClock,
) -> None:
    sink = Sink(10**6)
    async with outbox_on(sink) as bench:
        for _ in range(10):
            bench.outbox.put(b"x")
            bench.outbox.gather()
        assert bytes(sink.got) == b"x"
        await trio.testing.wait_all_tasks_blocked()
        assert bytes(sink.got) == b"x" * 10 and sink.writes == 2


async def test_what_is_gathered_keeps_its_place_before_what_is_flushed(mock_clock: trio.testing.MockClock) -> None:
    sink = Sink(10**6)
    async with outbox_on(sink) as bench:
        for data in b"a", b"b", b"c":
            bench.outbox.put(data)
            bench.outbox.gather()
        bench.outbox.put(b"close")
        bench.outbox.flush()
        assert bytes(sink.got) == b"abcclose"


async def test_what_is_gathered_and_cannot_be_written_breaks_the_outbox(mock_clock: trio.testing.MockClock) -> None:
    sink = Sink(10**6)
    async with outbox_on(sink) as bench:
        for _ in range(3):
            bench.outbox.put(b"x")
            bench.outbox.gather()
        sink.broken = "it is gone"
        await trio.testing.wait_all_tasks_blocked()
        assert bench.causes == ["it is gone"] and bench.outbox.over


async def test_of_what_a_stream_without_write_now_is_given_at_once_nothing_is_taken_back() -> None:
    slow = Slow()
    async with outbox_on(slow) as bench:
        for data in b"one", b"two", b"three":
            bench.outbox.put(data)
        bench.outbox.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert slow.sending
        bench.outbox.put(b"four")
        bench.outbox.drop_unbegun()
        slow.let()
        await bench.outbox.wait_empty()
        assert bytes(slow.got) == b"onetwothree"
