"""A channel's bytes on their way: order and bounds, room given back late, and an end that drops all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.transport.frames import BINARY, FrameBatch, MessageScanner, frame, frames_of
from iii_trio.transport.link import EndReason
from iii_trio.transport.pipe import Chunk, Pipe, as_batch
from iii_trio.wire import Outcome

CUT = EndReason(Outcome.ABORTED, "no good")


def batch_of(*payloads: bytes) -> FrameBatch:
    return FrameBatch([frame(BINARY, payload) for payload in payloads], len(payloads), sum(map(len, payloads)))


def items_in(chunks: list[Chunk]) -> list[bytes]:
    data = b"".join(b"".join(as_batch(chunk).parts) for chunk in chunks)
    messages, _ = MessageScanner(10**9, masked=False).scan(memoryview(data))
    return [bytes(payload) for _, payload in messages]


async def take_all(pipe: Pipe) -> list[Chunk]:
    chunks = []
    with pytest.raises(trio.EndOfChannel):
        while True:
            chunk = await pipe.take()
            chunks.append(chunk)
            pipe.done(chunk)
    return chunks


async def test_what_goes_in_comes_out_and_then_the_end() -> None:
    pipe = Pipe(10, 1000)
    assert pipe.push(batch_of(b"a", b"b")) is None
    pipe.push_item("hé")
    pipe.push_item(b"c")
    pipe.seal()
    assert not pipe.drained
    assert items_in(await take_all(pipe)) == [b"a", b"b", "hé".encode(), b"c"]
    assert pipe.drained and pipe.broken is None
    assert (pipe.items_passed, pipe.bytes_passed, pipe.items_waiting, pipe.bytes_waiting) == (4, 6, 0, 0)


async def test_bytes_count_as_they_are_encoded() -> None:
    pipe = Pipe(10, 1000)
    pipe.push_item("é" * 10)
    assert pipe.bytes_waiting == 20


async def test_items_are_bounded_and_the_rest_is_given_back() -> None:
    pipe = Pipe(2, 10**6)
    rest = pipe.push(batch_of(b"a", b"b", b"c"))
    assert pipe.full and rest is not None and items_in([rest]) == [b"c"]
    again = pipe.push(rest)
    assert again is rest and pipe.items_waiting == 2


async def test_bytes_are_bounded_but_one_message_may_always_pass() -> None:
    pipe = Pipe(100, 10)
    rest = pipe.push(batch_of(b"x" * 1000, b"y"))
    assert pipe.full and rest is not None and items_in([rest]) == [b"y"]
    assert pipe.bytes_peak == 1000


async def test_room_comes_back_when_a_chunk_is_done_with_not_when_it_is_taken() -> None:
    pipe = Pipe(1, 1000)
    pipe.push_item(b"a")
    waited: list[bool] = []

    async def wait() -> None:
        await pipe.wait_room()
        waited.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        chunk = await pipe.take()
        await trio.testing.wait_all_tasks_blocked()
        assert pipe.full and not waited and not pipe.drained
        pipe.done(chunk)
    assert waited and not pipe.full


async def test_an_empty_pipe_is_flowed_past() -> None:
    pipe, written = Pipe(4, 1000), list[bytes]()

    def write(batch: FrameBatch) -> FrameBatch | None:
        written.extend(items_in([batch]))
        return None

    pipe.flow_directly(write)
    assert pipe.push(batch_of(b"a", b"b")) is None
    pipe.push_item(b"c")
    assert written == [b"a", b"b", b"c"]
    assert (pipe.items_waiting, pipe.items_passed, pipe.bytes_passed) == (0, 3, 3)


async def test_a_pipe_that_its_reader_breaks_off_keeps_nothing_of_what_it_was_given() -> None:
    pipe = Pipe(10, 10_000)

    def broken(batch: FrameBatch) -> FrameBatch:
        pipe.break_off(CUT)
        return batch

    pipe.flow_directly(broken)
    assert pipe.push(batch_of(b"a", b"b")) is None
    assert pipe.empty and pipe.items_waiting == 0


async def test_what_the_reader_does_not_take_at_once_waits_and_nothing_overtakes_it() -> None:
    pipe, written, room = Pipe(10, 1000), list[bytes](), [1]

    def write(batch: FrameBatch) -> FrameBatch | None:
        taken, rest = batch.cut(room[0], 10**9)
        if taken is not None:
            room[0] -= taken.items
            written.extend(items_in([taken]))
        return rest

    pipe.flow_directly(write)
    pipe.push(batch_of(b"a", b"b"))
    room[0] = 100  # the socket has room again, but `b` waits in the pipe
    pipe.push_item(b"c")
    pipe.push(batch_of(b"d"))
    assert written == [b"a"]
    first = await pipe.take()
    pipe.push_item(b"e")
    assert written == [b"a"], "`b` has been taken, and not been written yet"
    pipe.done(first)
    pipe.seal()
    assert items_in([first, *await take_all(pipe)]) == [b"b", b"c", b"d", b"e"]
    pipe = Pipe(10, 1000)
    pipe.flow_directly(write)
    pipe.push_item(b"f")
    assert written == [b"a", b"f"]


async def test_a_waiting_part_of_a_message_is_not_overtaken_by_its_rest() -> None:
    """A chunk may hold no end of a message: it counts no item, and yet something waits."""
    pipe, written = Pipe(10, 1000), list[bytes]()
    pipe.push(FrameBatch([frame(BINARY, b"be", fin=False)], items=0, payload=2))
    pipe.flow_directly(lambda batch: written.append(b"".join(bytes(part) for part in batch.parts)))
    pipe.push(FrameBatch([frame(0, b"gun")], items=1, payload=3))
    pipe.seal()
    assert not written and items_in(await take_all(pipe)) == [b"begun"]


@given(
    st.integers(1, 5), st.integers(1, 40),
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.binary(max_size=20), min_size=1, max_size=6)), max_size=12),
)  # fmt: skip
def test_nothing_is_lost_doubled_or_reordered_and_the_bounds_hold(
    max_items: int, max_bytes: int, steps: list[tuple[int, list[bytes]]]
) -> None:
    """A writer as a socket is one, a reader that takes directly as much as it is let, else chunk by chunk."""

    async def main() -> None:
        pipe = Pipe(max_items, max_bytes)
        written: list[bytes] = []
        room = 0

        def write(batch: FrameBatch) -> FrameBatch | None:
            nonlocal room
            taken, rest = batch.cut(room, 10**9)
            if taken is not None:
                room -= taken.items
                written.extend(items_in([taken]))
            return rest

        async def drain() -> None:
            pipe.flow_directly(write)
            while True:
                try:
                    chunk = await pipe.take()
                except trio.EndOfChannel:
                    return
                await trio.lowlevel.checkpoint()
                written.extend(items_in([chunk]))
                pipe.done(chunk)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            for room, payloads in steps:  # noqa: B007
                rest: FrameBatch | None = batch_of(*payloads)
                while rest is not None:
                    await pipe.wait_room()
                    rest = pipe.push(rest)
                    assert pipe.items_waiting <= max_items
                    assert pipe.bytes_waiting <= max_bytes + 20
            pipe.seal()
        assert written == [payload for _, payloads in steps for payload in payloads]
        assert pipe.drained and pipe.items_passed == len(written) and pipe.bytes_passed == sum(map(len, written))

    trio.run(main)


async def test_the_read_ahead_of_a_writer_that_has_closed_passes_every_bound() -> None:
    pipe = Pipe(1, 1)
    pipe.push_item(b"a")
    pipe.push_all(batch_of(b"b", b"c"))
    pipe.seal()
    assert items_in(await take_all(pipe)) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("sealed", [False, True])
async def test_breaking_off_drops_what_waits_and_wakes_both_sides(sealed: bool) -> None:
    pipe = Pipe(1, 1000)
    woken: list[str] = []

    async def writer() -> None:
        await pipe.wait_room()
        woken.append("writer")

    pipe.push_item(b"a")
    if sealed:
        pipe.seal()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer)
        await trio.testing.wait_all_tasks_blocked()
        pipe.break_off(CUT)
    pipe.break_off(EndReason(Outcome.READER_LOST))
    assert woken == ["writer"] and pipe.broken == CUT
    assert (pipe.items_waiting, pipe.bytes_waiting, pipe.full) == (0, 0, False)
    with pytest.raises(trio.EndOfChannel):
        await pipe.take()


async def test_breaking_off_wakes_a_reader_of_nothing() -> None:
    pipe = Pipe(1, 1000)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.EndOfChannel):
                await pipe.take()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        pipe.break_off(CUT)


@pytest.mark.parametrize(
    "use",
    [
        lambda pipe: pipe.push(batch_of(b"x")),
        lambda pipe: pipe.push_item(b"x"),
        lambda pipe: pipe.push_all(batch_of(b"x")),
        lambda pipe: pipe.done(batch_of(b"x")),
        lambda pipe: pipe.seal(),
    ],
    ids=["push", "push_item", "push_all", "done", "seal"],
)
async def test_a_broken_pipe_takes_nothing_and_complains_of_nothing(use: Callable[[Pipe], object]) -> None:
    pipe, written = Pipe(4, 1000), list[bytes]()
    pipe.flow_directly(lambda batch: written.extend(items_in([batch])))
    pipe.break_off(CUT)
    assert not use(pipe)
    assert not written and (pipe.items_waiting, pipe.bytes_waiting) == (0, 0)


def test_a_chunk_is_a_run_of_frames_or_becomes_one() -> None:
    batch = batch_of(b"a")
    assert as_batch(batch) is batch
    assert [(opcode, fin, bytes(data)) for opcode, fin, data in frames_of(as_batch("hé"))] == [(1, True, "hé".encode())]
    assert [(opcode, fin, bytes(data)) for opcode, fin, data in frames_of(as_batch(b""))] == [(2, True, b"")]


async def test_a_reader_without_a_task_is_told_of_all_that_waits_and_of_the_end() -> None:
    pipe = Pipe(10, 1000)
    told: list[tuple[bool, bool]] = []
    pipe.flow_directly(lambda batch: None)
    pipe.when_waiting(lambda: told.append((pipe.empty, pipe.drained)))
    assert pipe.push(batch_of(b"past it")) is None and not told
    pipe.flow_directly(lambda batch: batch)
    pipe.push(batch_of(b"waits"))
    pipe.push_item(b"too")
    pipe.seal()
    assert told == [(False, False), (False, False), (False, False)]
    chunks = [chunk for chunk in iter(pipe.take_now, None) if not pipe.done(chunk)]  # type: ignore[func-returns-value]
    assert items_in(chunks) == [b"waits", b"too"] and pipe.drained and pipe.take_now() is None


async def test_a_reader_without_a_task_is_told_of_the_end_of_an_empty_pipe() -> None:
    pipe = Pipe(10, 1000)
    told: list[bool] = []
    pipe.when_waiting(lambda: told.append(pipe.drained))
    pipe.seal()
    assert told == [True]


async def test_once_broken_off_a_pipe_tells_nothing() -> None:
    pipe = Pipe(10, 1000)
    told: list[str] = []
    pipe.when_waiting(lambda: told.append("something waits"))
    pipe.break_off(CUT)
    pipe.seal()
    assert not told
