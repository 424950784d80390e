"""Bounds and counts of the transports, exactly: at each bound, one below it and one above it."""

from __future__ import annotations

import http
from typing import Any

import pytest
import trio

from iii_trio.transport.frames import BINARY, TEXT, BatchScanner, FrameBatch, MessageScanner, frame
from iii_trio.transport.http1 import HeadRules, answer
from iii_trio.transport.link import EndReason
from iii_trio.transport.memory_budget import MemoryAccount, MemoryBudget
from iii_trio.transport.outbox import Outbox
from iii_trio.transport.pipe import Pipe
from iii_trio.wire import Outcome

from .test_outbox import Sink

MASK = b"\x11\x22\x33\x44"
ENDED = EndReason(Outcome.ABORTED, "no good")

# --- frames: which loop takes what


class Counted(Exception):
    """The general loop was asked."""


LENGTHS = [0, 1, 124, 125, 126, 127, 128, 255, 256, 8191, 8192, 65_535, 65_536, 70_000]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("content", ["ascii", "utf-8", "bytes"])
def test_a_plain_message_is_taken_by_the_fast_loops(
    masked: bool, length: int, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = {"ascii": b"a" * length, "utf-8": "é".encode() * (length // 2), "bytes": b"\xff" * length}[content]
    one = frame(BINARY if content == "bytes" else TEXT, payload, mask=MASK if masked else None)
    scanners: list[Any] = [MessageScanner(length, masked=masked)]
    if masked:
        scanners.append(BatchScanner(length))
    for scanner in scanners:

        def refuse(data: memoryview, at: int) -> int:
            raise Counted

        monkeypatch.setattr(scanner, "_take_any", refuse)
        taken, controls = scanner.scan(memoryview(one * 3))
        assert controls == b"" and scanner.tail == b"" and scanner.error is None
        if isinstance(scanner, MessageScanner):
            assert [bytes(each) for _, each in taken] == [payload] * 3
        else:
            assert (taken.items, taken.payload) == (3, 3 * len(payload))
            assert b"".join(taken.parts) == frame(one[0] & 15, payload) * 3
        # An incomplete one is for the general loop.
        if len(one) > 2:
            with pytest.raises(Counted):
                scanner.scan(memoryview(one[:-1]))


@pytest.mark.parametrize("length", [126, 65_536])
def test_a_length_that_is_not_in_its_shortest_form_is_not_taken_by_the_fast_loops(length: int) -> None:
    body = bytes(length - 1)
    head = (
        b"\x82\x7e" + (length - 1).to_bytes(2, "big")
        if length == 126
        else b"\x82\x7f" + (length - 1).to_bytes(8, "big")
    )
    scanner = MessageScanner(1 << 20, masked=False)
    assert scanner.scan(memoryview(head + body))[0] == [] and scanner.error is not None
    assert "shortest form" in scanner.error.reason


@pytest.mark.parametrize("size", [8191, 8192])
def test_a_payload_of_8_KiB_is_a_part_of_its_own(size: int) -> None:
    scanner = BatchScanner(1 << 20)
    batch, _ = scanner.scan(memoryview(frame(BINARY, bytes(size), mask=MASK)))
    assert batch is not None and [len(part) for part in batch.parts] == ([4 + size] if size < 8192 else [4, size])


# --- pipes


def batch_of(*payloads: bytes) -> FrameBatch:
    return FrameBatch([frame(BINARY, payload) for payload in payloads], len(payloads), sum(map(len, payloads)))


async def test_the_counts_of_a_pipe_begin_at_nothing_and_follow_everything() -> None:
    pipe = Pipe(3, 100)
    counts = ("items_waiting", "bytes_waiting", "items_peak", "bytes_peak", "items_passed", "bytes_passed")

    def seen() -> list[int]:
        return [getattr(pipe, name) for name in counts]

    assert seen() == [0] * 6 and pipe.moved_at == 0.0 and pipe.empty and not pipe.drained and not pipe.sealed
    pipe.push(batch_of(b"abc"))
    assert seen() == [1, 3, 1, 3, 0, 0] and not pipe.empty
    pipe.push_item("é")
    assert seen() == [2, 5, 2, 5, 0, 0] and not pipe.full
    chunk = await pipe.take()
    assert seen() == [2, 5, 2, 5, 0, 0], "what is taken still counts"
    pipe.done(chunk)
    assert seen() == [1, 2, 2, 5, 1, 3] and not pipe.empty
    pipe.push_all(batch_of(b"x", b"y", b"z"))
    assert seen() == [4, 5, 2, 5, 1, 3] and pipe.full, "a read-ahead is no peak"
    while (rest := pipe.take_now()) is not None:
        pipe.done(rest)
    assert seen() == [0, 0, 2, 5, 5, 8] and pipe.empty
    pipe.seal()
    assert pipe.drained


async def test_the_part_of_a_batch_that_flows_past_an_empty_pipe_is_counted() -> None:
    pipe = Pipe(10, 100)
    given: list[FrameBatch] = []

    def write(batch: FrameBatch) -> FrameBatch | None:
        given.append(batch)
        if len(given) == 1:
            return None
        fitting, rest = batch.cut(1, 100)
        assert fitting is not None
        return rest

    pipe.flow_directly(write)
    assert pipe.push(batch_of(b"ab", b"c")) is None
    assert (pipe.items_passed, pipe.bytes_passed, pipe.items_waiting) == (2, 3, 0)
    assert pipe.push(batch_of(b"ab", b"cde", b"f")) is None
    assert (pipe.items_passed, pipe.bytes_passed, pipe.items_waiting, pipe.bytes_waiting) == (3, 5, 2, 4)
    # Nothing overtakes what waits.
    assert pipe.push(batch_of(b"g")) is None and len(given) == 2


@pytest.mark.parametrize(
    ("items", "payload", "full"), [(2, 1, False), (3, 1, True), (1, 9, False), (1, 10, True), (1, 11, True)]
)
async def test_a_pipe_is_full_at_its_bound(items: int, payload: int, full: bool) -> None:
    pipe = Pipe(3, 10)
    for _ in range(items):
        pipe.push_item(bytes(payload))
    assert pipe.full is full


async def test_while_memory_is_tight_one_chunk_fills_a_pipe() -> None:
    budget = MemoryBudget(1 << 30)
    pipe = Pipe(10, 1000, budget.open_account("owner").charge())
    queue = budget.open_account("queue").charge()
    queue.set((7 << 27) + 1)
    assert budget.tight and not pipe.full
    assert pipe.push(batch_of(b"a")) is None and pipe.full
    held = batch_of(b"b")
    assert pipe.push(held) is held and pipe.items_waiting == 1
    queue.set(0)
    assert not pipe.full and pipe.push(held) is None


BLOCK, OVERHEAD, SPARE = 4096, 256, 69_632


@pytest.mark.parametrize(
    ("sizes", "counted"),
    [
        ([1], BLOCK),
        ([BLOCK - OVERHEAD], BLOCK),
        ([BLOCK - OVERHEAD + 1], 2 * BLOCK),
        ([BLOCK - 2 * OVERHEAD, 0], BLOCK),
        ([BLOCK - 2 * OVERHEAD, 1], 2 * BLOCK),
        ([1000, 1000, 1000], BLOCK),
        ([1000, 1000, 1000, 1000], 2 * BLOCK),
    ],
)
async def test_the_memory_of_a_pipe_is_counted_in_blocks_with_its_overhead(sizes: list[int], counted: int) -> None:
    account = MemoryBudget(1 << 30).open_account("owner")
    pipe = Pipe(100, 1 << 20, account.charge())
    for size in sizes:
        pipe.push_item(bytes(size))
    assert account.used_bytes == counted
    pipe.break_off(ENDED)
    assert account.used_bytes == 0
    pipe.release_memory()


@pytest.mark.parametrize(("size", "given_back"), [(SPARE, False), (SPARE + BLOCK, True)])
async def test_memory_that_a_pipe_no_longer_needs_is_given_back_beyond_68_KiB(size: int, given_back: bool) -> None:
    account = MemoryBudget(1 << 30).open_account("owner")
    pipe = Pipe(100, 1 << 20, account.charge())
    pipe.push_item(bytes(size - OVERHEAD))
    assert account.used_bytes == size
    pipe.done(await pipe.take())
    assert account.used_bytes == (0 if given_back else size)


async def test_a_stream_of_messages_of_64_KiB_is_counted_once() -> None:
    """Streams cut bytes into items of this size, and to count each of them twice would take longer than to pass it on."""
    changes: list[int] = []

    class Counted(MemoryBudget):
        def change(self, account: MemoryAccount, delta: int) -> None:
            changes.append(delta)
            super().change(account, delta)

    pipe = Pipe(100, 1 << 20, Counted(1 << 30).open_account("owner").charge())
    for _ in range(10):
        pipe.push_item(bytes(65_536))
        pipe.done(await pipe.take())
    assert changes == [SPARE]


# --- the budget of memory


def test_memory_is_tight_above_seven_eighths_of_the_limit() -> None:
    budget = MemoryBudget(1000)
    charge = budget.open_account("queue").charge()
    for size, tight in [(875, False), (876, True), (875, False)]:
        charge.set(size)
        assert budget.tight is tight
    budget.change_limit(999)
    assert budget.tight
    budget.change_limit(1000)
    assert not budget.tight
    charge.set(0)
    assert budget.usage() == {} and budget.used_bytes == 0


def test_a_module_has_half_of_the_limit_unless_it_says_otherwise() -> None:
    budget = MemoryBudget(1000)
    half, third = budget.open_share("queue"), budget.open_share("spans", 0.3)
    assert (half.limit_bytes, third.limit_bytes) == (500, 300)
    half.set(499)
    assert budget.usage() == {"queue": 499}
    half.set(501)
    third.set(1000)
    assert budget.usage() == {"queue": 500, "spans": 300}
    budget.change_limit(400)
    assert half.limit_bytes == 200
    half.set(0)
    third.set(0)
    assert budget.used_bytes == 0


# --- heads of requests

HEAD = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n"
BODY = b"\n bare\nlf"


@pytest.mark.parametrize("before", [b"", b"\r\n"])
def test_a_head_ends_where_it_ends_whatever_its_pieces(before: bytes) -> None:
    """The rules are for the head only: its body has lines of every kind."""
    whole = before + HEAD + BODY
    for first in range(len(whole) + 1):
        for second in (first, first + 1, first + 2, first + 3, len(whole)):
            rules = HeadRules(len(HEAD))
            passed = b"".join(rules.check(piece) for piece in (whole[:first], whole[first:second], whole[second:]))
            assert passed == HEAD + BODY, (first, second)
    rules = HeadRules(len(HEAD))
    assert b"".join(rules.check(whole[at : at + 1]) for at in range(len(whole))) == HEAD + BODY


def test_every_answer_has_the_phrase_of_its_status() -> None:
    for status in (200, 400, 401, 403, 404, 405, 408, 409, 410, 411, 413, 415, 426, 431, 501, 503, 505):
        phrase = {413: "Content Too Large"}.get(status, http.HTTPStatus(status).phrase)
        assert answer(status, b"why").startswith(f"HTTP/1.1 {status} {phrase}\r\n".encode())
    assert answer(418, b"").startswith(b"HTTP/1.1 418 \r\n")


# --- outboxes

JOINED, JOINED_TO, GATHERED, PIECE = 512, 16_384, 512, 96


async def test_small_pieces_behind_many_are_joined_and_every_byte_is_counted() -> None:
    account = MemoryBudget(1 << 30).open_account("peer")
    sink = Sink()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(sink, nursery.start_soon, lambda cause: None)
        outbox.memory = account.charge()
        outbox.flush()
        assert account.used_bytes == 0 and outbox.empty and outbox.is_written
        expected = bytearray()

        def put(data: bytes) -> None:
            outbox.put(data)
            expected.extend(data)

        put(b"first")
        outbox.flush()
        assert account.used_bytes == 5 + PIECE and not outbox.empty and not outbox.is_written
        # The task is busy, so that small pieces are joined from now on, and large ones are not.
        for size, pieces in [(JOINED, 2), (JOINED - 1, 3), (JOINED - 1, 3), (1, 3), (JOINED, 4)]:
            put(bytes([size % 251]) * size)
            outbox.flush()
            assert account.used_bytes == len(expected) + PIECE * pieces, size
        # A joined piece grows to 16 KiB, and another one begins then.
        joined = 0
        for _ in range(JOINED_TO // 511 + 2):
            put(b"j" * 511)
            joined += 1
        outbox.flush()
        assert joined * 511 > JOINED_TO and account.used_bytes == len(expected) + PIECE * 6
        assert outbox.waiting_bytes == len(expected) and outbox.written_bytes == 0
        sink.grant(3)
        await trio.testing.wait_all_tasks_blocked()
        assert (outbox.waiting_bytes, outbox.written_bytes) == (len(expected) - 3, 3)
        assert account.used_bytes == len(expected) - 3 + PIECE * 6
        put(b"last")
        sink.grant(1 << 20)
        await outbox.wait_empty()
        assert bytes(sink.got) == expected and outbox.written_bytes == len(expected)
        assert account.used_bytes == outbox.waiting_bytes == 0


async def test_pieces_that_wait_for_a_flush_are_joined_from_the_512th_on() -> None:
    sink = Sink(1 << 20)
    async with trio.open_nursery() as nursery:
        outbox = Outbox(sink, nursery.start_soon, lambda cause: None)
        for index in range(GATHERED + 100):
            outbox.put(b"%03d" % (index % 1000))
        assert len(outbox._waiting) == GATHERED + 1
        outbox.flush()
        await outbox.wait_empty()
    assert bytes(sink.got) == b"".join(b"%03d" % index for index in range(GATHERED + 100))
