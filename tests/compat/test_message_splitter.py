"""Messages for a reader that can bear 1 MiB: the same bytes, in messages that are no larger."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii_trio.compat.message_splitter import MessageSplitter, TextTooLarge
from iii_trio.transport.frames import BINARY, CONTINUATION, TEXT, FrameBatch, MessageScanner, frame

MIB = 1024 * 1024


def batch_of(*frames: tuple[int, bytes, bool]) -> FrameBatch:
    return FrameBatch(
        [frame(opcode, data, fin=fin) for opcode, data, fin in frames],
        sum(fin for *_, fin in frames),
        sum(len(data) for _, data, _ in frames),
    )


def messages_in(runs: list[FrameBatch]) -> list[tuple[int, bytes]]:
    data = b"".join(bytes(part) for batch in runs for part in batch.parts)
    scanner = MessageScanner(100 * MIB, masked=False)
    messages, _ = scanner.scan(memoryview(data))
    assert scanner.error is None and not scanner.tail
    return [(kind, bytes(payload)) for kind, payload in messages]


def test_small_messages_pass_as_they_are() -> None:
    batch = batch_of((TEXT, "é".encode(), True), (BINARY, b"", True), (BINARY, b"x" * MIB, True))
    assert messages_in([MessageSplitter().split(batch)]) == [(TEXT, "é".encode()), (BINARY, b""), (BINARY, b"x" * MIB)]


@settings(max_examples=15, deadline=None)
@given(st.integers(MIB - 1, 3 * MIB + 3), st.lists(st.integers(0, 3 * MIB), max_size=4).map(sorted), st.booleans())
def test_a_large_message_arrives_in_messages_of_at_most_a_mebibyte(size: int, cuts: list[int], together: bool) -> None:
    data = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
    data = data[:size]
    ends = [*[min(cut, size) for cut in cuts], size]
    frames = [
        (CONTINUATION if n else BINARY, data[a:b], n == len(ends) - 1)
        for n, (a, b) in enumerate(zip([0, *ends[:-1]], ends, strict=True))
    ]
    splitter = MessageSplitter()
    runs = [splitter.split(batch_of(*frames))] if together else [splitter.split(batch_of(piece)) for piece in frames]
    runs.append(splitter.split(batch_of((BINARY, b"next", True))))
    messages = messages_in(runs)
    assert messages[-1] == (BINARY, b"next")
    assert b"".join(payload for _, payload in messages[:-1]) == data
    assert all(kind == BINARY and len(payload) <= MIB for kind, payload in messages)
    assert sum(batch.payload for batch in runs) == size + 4
    assert sum(batch.items for batch in runs) == len(messages)


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_large_text_cannot_be_cut(pieces: int) -> None:
    splitter = MessageSplitter()
    size = MIB // pieces + 1
    with pytest.raises(TextTooLarge, match="above 1 MiB"):
        for n in range(pieces):
            splitter.split(batch_of((CONTINUATION if n else TEXT, b"x" * size, n == pieces - 1)))


def test_a_text_of_just_a_mebibyte_passes_in_pieces() -> None:
    splitter = MessageSplitter()
    runs = [splitter.split(batch_of((CONTINUATION if n else TEXT, b"x" * (MIB // 4), n == 3))) for n in range(4)]
    assert messages_in(runs) == [(TEXT, b"x" * MIB)]
