"""Messages for a reader that can bear 1 MiB: the same bytes, in messages that are no larger."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii_trio.transport.frames import BINARY, CONTINUATION, TEXT, MessageScanner, Run, frame
from iii_trio.transport.recut import Recut, TextTooLarge

MIB = 1024 * 1024


def run_of(*frames: tuple[int, bytes, bool]) -> Run:
    return Run(
        [frame(opcode, data, fin=fin) for opcode, data, fin in frames],
        sum(fin for *_, fin in frames),
        sum(len(data) for _, data, _ in frames),
    )


def messages_in(runs: list[Run]) -> list[tuple[int, bytes]]:
    data = b"".join(bytes(part) for run in runs for part in run.parts)
    scanner = MessageScanner(100 * MIB, masked=False)
    messages, _ = scanner.scan(memoryview(data))
    assert scanner.error is None and not scanner.tail
    return [(kind, bytes(payload)) for kind, payload in messages]


def test_small_messages_pass_as_they_are() -> None:
    run = run_of((TEXT, "é".encode(), True), (BINARY, b"", True), (BINARY, b"x" * MIB, True))
    assert messages_in([Recut().cut(run)]) == [(TEXT, "é".encode()), (BINARY, b""), (BINARY, b"x" * MIB)]


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
    recut = Recut()
    runs = [recut.cut(run_of(*frames))] if together else [recut.cut(run_of(piece)) for piece in frames]
    runs.append(recut.cut(run_of((BINARY, b"next", True))))
    messages = messages_in(runs)
    assert messages[-1] == (BINARY, b"next")
    assert b"".join(payload for _, payload in messages[:-1]) == data
    assert all(kind == BINARY and len(payload) <= MIB for kind, payload in messages)
    assert sum(run.payload for run in runs) == size + 4
    assert sum(run.items for run in runs) == len(messages)


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_large_text_cannot_be_cut(pieces: int) -> None:
    recut = Recut()
    size = MIB // pieces + 1
    with pytest.raises(TextTooLarge, match="above 1 MiB"):
        for n in range(pieces):
            recut.cut(run_of((CONTINUATION if n else TEXT, b"x" * size, n == pieces - 1)))


def test_a_text_of_just_a_mebibyte_passes_in_pieces() -> None:
    recut = Recut()
    runs = [recut.cut(run_of((CONTINUATION if n else TEXT, b"x" * (MIB // 4), n == 3))) for n in range(4)]
    assert messages_in(runs) == [(TEXT, b"x" * MIB)]
