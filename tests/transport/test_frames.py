"""Frames: every rule of RFC 6455 that is kept, runs, and both scanners against each other and another library."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from itertools import pairwise
from struct import Struct
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol, Side
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from iii_trio.errors import FrameError
from iii_trio.transport.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    HAS_C_MASK,
    PING,
    PONG,
    TEXT,
    BatchScanner,
    CloseFrame,
    FrameBatch,
    MessageScanner,
    ReservedOpcode,
    apply_mask,
    close_payload,
    frame,
    frame_head,
    frames_of,
    masked_text,
    pieces_of,
    split_controls,
    text_head,
)
from iii_trio.transport.frames import scan as scan_module

KEY = b"\x11\x92\x53\xe4"


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 2**31])
def test_the_head_of_a_text_is_that_of_any_frame(length: int) -> None:
    assert text_head(length) == frame_head(TEXT, length)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536])
def test_a_masked_text_is_the_frame_that_others_would_build(length: int) -> None:
    payload = bytes(range(256)) * (length // 256) + b"a" * (length % 256)
    assert masked_text(payload, KEY) == masked_text(payload, KEY) == frame(TEXT, payload, mask=KEY)


LIMIT = 70_000
_SLACK = 256
_BUFFER = memoryview(bytearray(_SLACK + 1_000_000))  # one for all, as in an engine


class Feeder:
    """Feeds a scanner as a connection does: from one buffer that is overwritten as soon as the scan is done."""

    def __init__(self, scanner: MessageScanner | BatchScanner) -> None:
        self.scanner = scanner
        self.messages: list[tuple[int, bytes | bytearray]] = []
        self.runs: list[FrameBatch] = []
        self.controls = b""

    def feed(self, *chunks: bytes) -> Feeder:
        for chunk in chunks:
            tail = self.scanner.tail
            assert len(tail) < 140
            data = _BUFFER[_SLACK - len(tail) : _SLACK + len(chunk)]
            data[:] = tail + chunk
            found, controls = self.scanner.scan(data)
            if isinstance(found, list):
                self.messages += found
            elif found is not None:
                self.runs.append(found)
            self.controls += controls
            data[:] = b"\xee" * len(data)
        return self

    @property
    def wire(self) -> bytes:
        return b"".join(wire(batch) for batch in self.runs)

    @property
    def error(self) -> FrameError:
        assert self.scanner.error is not None
        return self.scanner.error


def wire(batch: FrameBatch | None) -> bytes:
    return b"" if batch is None else b"".join(batch.parts)


def from_client(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    return frame(opcode, payload, fin=fin, mask=KEY)


def messages_of(data: bytes) -> list[tuple[int, bytes]]:
    feeder = Feeder(MessageScanner(LIMIT, masked=False)).feed(data)
    assert feeder.scanner.error is None
    assert not feeder.scanner.tail
    return [(kind, bytes(payload)) for kind, payload in feeder.messages]


def scanners() -> list[Feeder]:
    """Both scanners that take what clients send."""
    return [Feeder(MessageScanner(LIMIT, masked=True)), Feeder(BatchScanner(LIMIT))]


def messages_from(feeder: Feeder) -> list[tuple[int, bytes]]:
    if feeder.runs:
        return messages_of(feeder.wire)
    return [(kind, bytes(payload)) for kind, payload in feeder.messages]


def split_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    cuts = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in pairwise(cuts) if a < b]


# --- reads that are one frame


_NOT_UTF8 = b"\xff" * 200
_ONE_FRAME = {
    **{
        f"text of {size}": frame(TEXT, b"a" * size, mask=KEY)
        for size in (0, 1, 125, 126, 127, 65_535, 65_536, LIMIT, LIMIT + 1)
    },
    "small binary": from_client(BINARY, b"\xff"),
    "small text of other letters": from_client(TEXT, "ü".encode()),
    "small text that is none": from_client(TEXT, b"\xff"),
    "small first piece": from_client(TEXT, b"a", fin=False),
    "small piece of nothing": from_client(CONTINUATION, b"a"),
    "small with a reserved bit": bytes([0xC1]) + from_client(TEXT, b"a")[1:],
    "small without a mask": frame(TEXT, b"a" * 10),
    "half a head": b"\x81",
    "no more than a head": from_client(TEXT, b"aa")[:-2],
    "a byte less than it says": from_client(TEXT, b"aaa")[:-1],
    "a byte more than it says": from_client(TEXT, b"aaa") + b"\x81",
    "small ping": from_client(PING, b"a"),
    "small Close": from_client(CLOSE, close_payload(1000, "x")),
    "small, not shortest": bytes([0x82, 0xFE, 0, 10]) + KEY + b"a" * 10,
    "binary": from_client(BINARY, _NOT_UTF8),
    "text of other letters": from_client(TEXT, "ü".encode() * 100),
    "text that is none": from_client(TEXT, _NOT_UTF8),
    "first piece": from_client(TEXT, b"a" * 200, fin=False),
    "piece of nothing": from_client(CONTINUATION, b"a" * 200),
    "reserved bit": bytes([0xC1]) + from_client(TEXT, b"a" * 200)[1:],
    "reserved opcode": from_client(3, b"a" * 200),
    "no mask": frame(TEXT, b"a" * 200),
    "not shortest": bytes([0x82, 0xFF]) + (200).to_bytes(8, "big") + KEY + b"a" * 200,
    "shorter than it says": from_client(TEXT, b"a" * 300)[:-100],
    "and one byte more": from_client(TEXT, b"a" * 200) + b"\x81",
    "ping": from_client(PING, b"a" * 125),
    "Close": from_client(CLOSE, close_payload(1000, "x" * 120)),
}


@pytest.mark.parametrize("before", ["nothing", "a piece", "a Close", "a broken rule", "a discard"])
@pytest.mark.parametrize("name", _ONE_FRAME)
def test_a_read_that_is_one_frame_means_what_it_means_in_pieces(name: str, before: str) -> None:
    def fed(*chunks: bytes) -> tuple[object, ...]:
        scanner = MessageScanner(LIMIT, masked=True)
        feeder = Feeder(scanner)
        if before == "a discard":
            scanner.discard()
        else:
            first = {"a piece": from_client(TEXT, b"a", fin=False), "a Close": from_client(CLOSE, b"")}
            feeder.feed({**first, "a broken rule": b"\xf0\x80", "nothing": b""}[before])
        feeder.feed(*chunks)
        error = scanner.error and (scanner.error.code, scanner.error.reason)
        messages = [(kind, bytes(payload)) for kind, payload in feeder.messages]
        return messages, feeder.controls, error, scanner.closed, scanner.tail, scanner.held_bytes

    data = _ONE_FRAME[name]
    middle = min(150, len(data) // 2)
    whole, pieces = fed(data), fed(data[:middle], data[middle:])
    assert whole == pieces
    good = ("binary", "text of 0", "text of 1", "text of 125", "text of 126", "text of 65535", "text of other letters")
    if before == "nothing" and name.removeprefix("small ") in good:
        assert whole[0] and whole[2:4] == (None, None)


@pytest.mark.parametrize("before", ["nothing", "a piece", "a Close", "a broken rule", "half a head"])
@pytest.mark.parametrize("name", _ONE_FRAME)
def test_a_writers_read_that_is_one_frame_means_what_it_means_byte_by_byte(name: str, before: str) -> None:
    def fed(*chunks: bytes) -> tuple[object, ...]:
        feeder = Feeder(BatchScanner(LIMIT))
        first = {"a piece": from_client(TEXT, b"a", fin=False), "a Close": from_client(CLOSE, b"")}
        feeder.feed({**first, "a broken rule": b"\xf0\x80", "half a head": b"\x82", "nothing": b""}[before])
        feeder.feed(*chunks)
        error = feeder.scanner.error and (feeder.scanner.error.code, feeder.scanner.error.reason)
        whole: list[tuple[int, bytes]] = []
        ended = True
        for batch in feeder.runs:
            for opcode, fin, payload in frames_of(batch):
                whole = (
                    [*whole, (opcode, bytes(payload))]
                    if ended
                    else [*whole[:-1], (whole[-1][0], whole[-1][1] + payload)]
                )
                ended = fin
        counted = sum(batch.items for batch in feeder.runs), sum(batch.payload for batch in feeder.runs)
        return whole, ended, counted, feeder.controls, error, feeder.scanner.closed, feeder.scanner.tail

    data = _ONE_FRAME[name]
    if before == "half a head":
        data = data[1:]
    step = max(1, len(data) // 300)
    assert fed(data) == fed(*(data[at : at + step] for at in range(0, len(data), step)))


@pytest.mark.parametrize("limit", [10, 300])
@pytest.mark.parametrize("beyond", [0, 1])
def test_a_read_that_is_one_frame_keeps_to_the_limit(limit: int, beyond: int) -> None:
    for scanner in MessageScanner(limit, masked=True), BatchScanner(limit):
        feeder = Feeder(scanner).feed(from_client(TEXT, b"a" * (limit + beyond)))
        assert len(messages_from(feeder)) == (not beyond) and (scanner.error is None) is (not beyond)


@pytest.mark.parametrize("length", [1, 125, 126, 127])
def test_a_servers_read_that_is_one_frame_is_its_message(length: int) -> None:
    scanner = MessageScanner(LIMIT, masked=False)
    data = frame(TEXT, b"a" * length)
    assert scanner.scan(memoryview(data)) == ([(TEXT, b"a" * length)], b"") and not scanner.tail


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("size", [126, 127, 300, 65_536])
def test_the_first_read_of_a_longer_frame_is_taken_for_no_frame_whatever_its_length(
    size: int, kind: int, masked: bool
) -> None:
    data = frame(kind, b"a" * size, mask=KEY if masked else None)
    # A part of 126 or 127 bytes has the length that the mark of a longer length would be.
    for cut in range(1, min(size, 160)):
        for scanner in [MessageScanner(LIMIT, masked=masked), *([BatchScanner(LIMIT)] if masked else [])]:
            feeder = Feeder(scanner).feed(data[:cut], data[cut:])
            assert scanner.error is None and messages_from(feeder) == [(kind, b"a" * size)], cut


# --- runs of frames of one length


_ODD = {
    "nothing": b"",
    "another length": from_client(BINARY, b"b" * 63),
    "a longer head": from_client(BINARY, b"b" * 126),
    "the longest length that is taken with others": from_client(BINARY, b"b" * 8191),
    "a payload that is a part of its own": from_client(BINARY, b"b" * 8192),
    "the other kind": from_client(TEXT, b"b" * 64),
    "no payload": from_client(BINARY, b""),
    "a first piece, and the rest": from_client(BINARY, b"b" * 64, fin=False) + from_client(CONTINUATION, b"c" * 64),
    "a ping": from_client(PING, b"b" * 64),
    "a Close": from_client(CLOSE, close_payload(1000, "x")),
    "a piece of nothing": from_client(CONTINUATION, b"b" * 64),
    "a reserved bit": bytes([0xC2]) + from_client(BINARY, b"b" * 64)[1:],
    "no mask": frame(BINARY, b"b" * 64),
    "a length not in its shortest form": bytes([0x82, 0xFE, 0, 64]) + KEY + b"b" * 64,
    "too large": from_client(BINARY, b"b" * (LIMIT + 1)),
}


def _batched(data: bytes, step: int, limit: int = LIMIT) -> tuple[object, ...]:
    """Return what a writer's bytes mean, fed in pieces of `step` bytes."""
    feeder = Feeder(BatchScanner(limit)).feed(*(data[at : at + step] for at in range(0, len(data), step)))
    whole: list[tuple[int, bytes]] = []
    ended = True
    for batch in feeder.runs:
        assert batch.size == len(wire(batch))
        for opcode, fin, payload in frames_of(batch):
            if not ended:
                payload, opcode = b"".join((whole[-1][1], payload)), whole.pop()[0]
            whole.append((opcode, bytes(payload)))
            ended = fin
    counted = sum(batch.items for batch in feeder.runs), sum(batch.payload for batch in feeder.runs)
    error = feeder.scanner.error and (feeder.scanner.error.code, feeder.scanner.error.reason)
    return whole, ended, counted, feeder.controls, error, feeder.scanner.closed, feeder.scanner.tail


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("length", [1, 64, 125, 126, 1000, 8191, 8192])
@pytest.mark.parametrize("odd", _ODD)
def test_frames_of_one_length_mean_what_they_mean_in_pieces(odd: str, length: int, kind: int) -> None:
    # Different keys and payloads, so that nothing is taken for its neighbour.
    frames = [frame(kind, bytes([n % 120]) * length, mask=bytes([n % 256, 7, n // 256, 9])) for n in range(300)]
    for place in 0, 1, 3, 4, 5, 299 if length < 1000 else 17:
        run = b"".join([*frames[:place], _ODD[odd], *frames[place : 300 if length < 1000 else 20]])
        assert _batched(run, len(run)) == _batched(run, max(7, len(run) // 50)), place
        assert _batched(run[:-1], len(run)) == _batched(run[:-1], max(7, len(run) // 50)), place


@pytest.mark.parametrize("length", [64, 200])
@pytest.mark.parametrize("place", [0, 4, 5, 19])
@pytest.mark.parametrize("text", [b"\xff", "\u00fc".encode()])
def test_one_text_of_a_run_is_checked_like_any_other(text: bytes, place: int, length: int) -> None:
    texts = [b"a" * length] * 20
    texts[place] = text.ljust(length, b"a")
    run = b"".join(from_client(TEXT, each) for each in texts)
    whole, _, _, _, error, *_ = _batched(run, len(run))
    is_wrong = text == b"\xff"
    assert (
        whole == [(TEXT, each) for each in (texts[:place] if is_wrong else texts)] and (error is not None) is is_wrong
    )


def test_half_a_letter_in_each_of_two_texts_is_no_text() -> None:
    halves = [b"a" * 63 + b"\xc3", b"\xbc" + b"a" * 63]
    run = b"".join(from_client(TEXT, half) for half in halves * 10)
    whole, _, _, _, error, *_ = _batched(run, len(run))
    assert whole == [] and error is not None


@pytest.mark.parametrize("length", [10, 125, 126, 300])
@pytest.mark.parametrize("beyond", [0, 1])
def test_a_run_of_frames_keeps_to_the_limit(length: int, beyond: int) -> None:
    run = from_client(BINARY, b"a" * (length + beyond)) * 10
    whole, _, _, _, error, *_ = _batched(run, len(run), limit=length)
    assert len(cast("list[object]", whole)) == (0 if beyond else 10) and (error is None) is (not beyond)


def _of_eight_bytes(length: int, size: int) -> bytes:
    """The beginning of a masked frame whose head says so in 64 bits, `size` bytes of it."""
    return b"\x82\xff" + length.to_bytes(8, "big") + bytes(size - 10)


@pytest.mark.parametrize("length", [5, 1 << 40])
def test_a_length_in_64_bits_is_no_length_of_127(length: int) -> None:
    run = _of_eight_bytes(length, 135) * 6  # 135 bytes, as a frame of 127 has
    whole, _, _, _, error, *_ = _batched(run, len(run), limit=1000)
    assert whole == [] and error == _batched(run, 7, limit=1000)[4] and error is not None


def test_heads_within_a_payload_are_payload() -> None:
    payload = bytearray(65_536)
    for place in range(135 - 14, 135 * 6, 135):
        payload[place : place + 4] = b"\x82\xff\0\0"
    run = b"\x82\xff" + len(payload).to_bytes(8, "big") + bytes(4) + payload  # its mask changes nothing
    whole, _, _, _, error, *_ = _batched(run, len(run))
    assert whole == [(BINARY, payload)] and error is None


def test_a_run_of_lengths_in_a_longer_form_is_refused() -> None:
    run = (bytes([0x82, 0xFE, 0, 64]) + KEY + b"b" * 64) * 10
    whole, _, _, _, error, *_ = _batched(run, len(run))
    assert whole == [] and error is not None


@pytest.mark.parametrize("length", [8191, 8192])
def test_a_large_payload_of_a_run_is_not_copied_again(length: int) -> None:
    (batch,) = Feeder(BatchScanner(LIMIT)).feed(from_client(BINARY, b"a" * length) * 10).runs
    assert [len(part) for part in batch.parts if len(part) == length] == ([length] * 10 if length == 8192 else [])


def test_a_scan_does_not_take_two_frames_together_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def layout(head_size: int, length: int) -> Struct:
        taken.append(length)
        return Struct(f"{head_size}x4s{length}s")

    monkeypatch.setattr(scan_module, "_keys_and_payloads", layout)
    # Wherever a scan looks, it finds two frames that are alike, and such a one again where the fifth would be.
    alike, other = from_client(BINARY, b"a" * 4), from_client(BINARY, b"a" * 14)
    Feeder(BatchScanner(LIMIT)).feed((alike * 2 + other) * 3000)
    assert len(taken) < 20


# --- building


def test_the_c_routine_for_masking_is_there() -> None:
    assert HAS_C_MASK


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 100_000])
@pytest.mark.parametrize("mask", [None, KEY])
@pytest.mark.parametrize("fin", [True, False])
def test_a_frame_is_what_another_library_builds(length: int, mask: bytes | None, fin: bool) -> None:
    payload = bytes(range(256)) * (length // 256) + bytes(length % 256)
    theirs = Frame(Opcode.BINARY, payload, fin).serialize(mask=False)
    if mask is not None:
        theirs_head = theirs[: len(theirs) - length]
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        theirs = theirs_head[:1] + bytes((theirs_head[1] | 0x80,)) + theirs_head[2:] + mask + masked
    assert frame(BINARY, payload, fin=fin, mask=mask) == theirs
    assert frame(BINARY, memoryview(payload), fin=fin, mask=mask) == theirs
    assert theirs.startswith(frame_head(BINARY, length, fin=fin, mask=mask))


@pytest.mark.parametrize(
    ("reason", "kept"), [("", 0), ("x" * 123, 123), ("x" * 124, 123), ("ü" * 62, 122), ("𝄞" * 40, 120)]
)
def test_a_close_reason_is_cut_between_two_characters(reason: str, kept: int) -> None:
    payload = close_payload(1000, reason)
    assert payload == b"\x03\xe8" + reason.encode()[:kept]
    payload[2:].decode()


# --- what is taken


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 8191, 8192, 65_535, 65_536, LIMIT])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_messages_of_every_length_come_through(kind: int, length: int) -> None:
    payload = b"\x42" * length
    data = from_client(kind, payload) * 2
    for feeder in scanners():
        feeder.feed(data)
        assert messages_from(feeder) == [(kind, payload)] * 2
        assert not feeder.scanner.within_message
        if feeder.runs:
            assert feeder.wire == frame(kind, payload) * 2
            assert [(batch.items, batch.payload, batch.size) for batch in feeder.runs] == [
                (2, 2 * length, len(feeder.wire))
            ]


def test_a_frame_that_is_not_wholly_here_is_passed_on_as_fragments() -> None:
    data = from_client(BINARY, b"abcdefghij")
    feeder = Feeder(BatchScanner(LIMIT)).feed(data[:9], data[9:13])
    assert [wire(batch) for batch in feeder.runs] == [
        frame(BINARY, b"abc", fin=False),
        frame(CONTINUATION, b"defg", fin=False),
    ]
    assert [batch.items for batch in feeder.runs] == [0, 0]
    assert feeder.scanner.within_message
    feeder.feed(data[13:])
    assert wire(feeder.runs[2]) == frame(CONTINUATION, b"hij")
    assert feeder.runs[2].items == 1
    assert not feeder.scanner.within_message


def test_a_read_that_ends_between_a_head_and_its_payload_makes_no_empty_fragment() -> None:
    data = from_client(TEXT, b"abc")
    feeder = Feeder(BatchScanner(LIMIT)).feed(data[:6])
    assert not feeder.runs
    assert feeder.scanner.within_message
    assert feeder.feed(data[6:]).wire == frame(TEXT, b"abc")


def test_empty_fragments_are_left_out_but_for_the_last() -> None:
    feeder = Feeder(BatchScanner(LIMIT))
    feeder.feed(from_client(TEXT, b"", fin=False), from_client(CONTINUATION, b"", fin=False))
    assert not feeder.runs
    assert feeder.scanner.within_message
    feeder.feed(from_client(CONTINUATION, b"a", fin=False) + from_client(CONTINUATION, b""))
    assert feeder.wire == frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"")
    assert feeder.runs[0].items == 1
    feeder.feed(from_client(TEXT, b"", fin=False) + from_client(CONTINUATION, b""))
    assert wire(feeder.runs[1]) == frame(TEXT, b"")


def test_control_frames_come_out_as_they_came() -> None:
    controls = [from_client(PING, b"x" * 125), from_client(PONG, b""), from_client(CLOSE, close_payload(3001, "bye"))]
    for feeder in scanners():
        feeder.feed(from_client(TEXT, b"a", fin=False) + controls[0] + from_client(CONTINUATION, b"b"))
        feeder.feed(controls[1] + controls[2])
        assert split_controls(feeder.controls) == controls
        assert messages_from(feeder) == [(TEXT, b"ab")]
        assert feeder.scanner.closed == CloseFrame(3001, "bye")


def test_unmasked_control_frames_are_split_too() -> None:
    controls = [frame(PING, b"x" * 125), frame(PONG, b""), frame(CLOSE, b"")]
    feeder = Feeder(MessageScanner(LIMIT, masked=False)).feed(b"".join(controls))
    assert split_controls(feeder.controls) == controls
    assert feeder.scanner.closed == CloseFrame(1005)


def test_nothing_behind_a_close_counts() -> None:
    close = from_client(CLOSE, close_payload(1000))
    for feeder in scanners():
        feeder.feed(close + b"\xff\xff" + from_client(TEXT, b"late"), from_client(TEXT, b"later"), b"\xff\xff\xff")
        assert messages_from(feeder) == []
        assert feeder.controls == close
        assert feeder.scanner.closed == CloseFrame(1000)
        assert feeder.scanner.error is None
        assert feeder.scanner.tail == b""


def test_a_close_within_a_message_is_a_close_that_says_so() -> None:
    for feeder in scanners():
        feeder.feed(from_client(TEXT, b"ab", fin=False) + from_client(CLOSE, close_payload(1000)))
        assert feeder.scanner.closed == CloseFrame(1000)
        assert feeder.scanner.within_message


def test_a_message_in_one_byte_frames_that_come_byte_by_byte_is_put_together() -> None:
    text = "dribble ü𝄞".encode()
    data = b"".join(
        from_client(CONTINUATION if i else TEXT, text[i : i + 1], fin=i == len(text) - 1) for i in range(len(text))
    )
    for feeder in scanners():
        feeder.feed(*(data[i : i + 1] for i in range(len(data))))
        assert messages_from(feeder) == [(TEXT, text)]


def test_whoever_checks_texts_himself_gets_them_unchecked() -> None:
    feeder = Feeder(MessageScanner(LIMIT, masked=True, check_text=False))
    feeder.feed(from_client(TEXT, b"\xff"), from_client(TEXT, b"\xc3", fin=False), from_client(CONTINUATION, b"("))
    assert messages_from(feeder) == [(TEXT, b"\xff"), (TEXT, b"\xc3(")]


# --- what is refused


def masked_head(first: int, second: int, rest: bytes = b"") -> bytes:
    return bytes((first, 0x80 | second)) + rest + KEY


REFUSED = {
    "a reserved bit is set": (1002, masked_head(0xC2, 0)),
    "a reserved bit is set ": (1002, masked_head(0xA2, 0)),
    "a reserved bit is set  ": (1002, masked_head(0x92, 0)),
    "the opcode 3 is reserved": (1002, masked_head(0x83, 0)),
    "the opcode 7 is reserved": (1002, masked_head(0x87, 0)),
    "the opcode 11 is reserved": (1002, masked_head(0x8B, 0)),
    "the opcode 15 is reserved": (1002, masked_head(0x8F, 0)),
    "a frame is not masked": (1002, frame(BINARY, b"x" * 200)),
    "a control frame is longer than 125 bytes": (1002, masked_head(0x89, 126, b"\x00\x7e")),
    "a control frame is fragmented": (1002, masked_head(0x09, 0)),
    "a length is not in its shortest form": (1002, masked_head(0x82, 126, b"\x00\x7d") + b"x" * 125),
    "a length is not in its shortest form ": (1002, masked_head(0x82, 127, bytes(6) + b"\xff\xff") + b"x" * 200),
    "a length has its first bit set": (1002, masked_head(0x82, 127, b"\x80" + bytes(7))),
    "a continuation of nothing": (1002, from_client(CONTINUATION, b"")),
    "a message begins within another": (1002, from_client(TEXT, b"", fin=False) + from_client(TEXT, b"")),
    "a message is larger than 70000 bytes": (1009, frame_head(BINARY, LIMIT + 1, mask=KEY)),
    "a message is larger than 70000 bytes ": (
        1009,
        from_client(BINARY, bytes(LIMIT - 1), fin=False)
        + from_client(CONTINUATION, b"x", fin=False)
        + frame_head(CONTINUATION, 1, mask=KEY),
    ),
    "a text is not UTF-8": (1007, from_client(TEXT, b"\xff")),
    "a text is not UTF-8 ": (1007, from_client(TEXT, b"x" * 200 + b"\xff")),
    "a text is not UTF-8  ": (1007, from_client(TEXT, b"cut \xc3")),
    "a text is not UTF-8   ": (1007, from_client(TEXT, b"\xc3", fin=False) + masked_head(0x00, 1) + KEY[:1]),
    "a text is not UTF-8    ": (1007, from_client(TEXT, b"\xc3", fin=False) + from_client(CONTINUATION, b"")),
    "a Close has half a code": (1002, from_client(CLOSE, b"\x03")),
    "the reason of a Close is not UTF-8": (1007, from_client(CLOSE, b"\x03\xe8\xff")),
}


@pytest.mark.parametrize("reason", REFUSED)
@pytest.mark.parametrize("bytewise", [False, True])
def test_what_rfc_6455_forbids_is_refused_and_what_came_before_is_not_lost(reason: str, bytewise: bool) -> None:
    code, data = REFUSED[reason]
    good, ping, behind = from_client(BINARY, b"good"), from_client(PING, b"p"), from_client(TEXT, b"behind")
    for feeder in scanners():
        whole = good + ping + data + behind
        if bytewise and len(data) < 1000:
            feeder.feed(*(whole[i : i + 1] for i in range(len(whole))))
        else:
            feeder.feed(whole)
        assert (feeder.error.code, feeder.error.reason) == (code, reason.strip())
        assert messages_from_valid_prefix(feeder)[:1] == [(BINARY, b"good")]
        assert feeder.controls == ping
        assert feeder.scanner.closed is None
        assert feeder.scanner.tail == b""
        assert b"behind" not in feeder.wire
        assert feeder.feed(behind).controls == ping
        assert feeder.error.__traceback__ is None
        assert feeder.error.__context__ is None


def messages_from_valid_prefix(feeder: Feeder) -> list[tuple[int, bytes]]:
    if isinstance(feeder.scanner, BatchScanner):
        reader = Feeder(MessageScanner(LIMIT, masked=False)).feed(feeder.wire)
        assert reader.scanner.error is None
        return messages_from(reader)
    return messages_from(feeder)


def test_a_masked_frame_is_refused_where_none_may_be() -> None:
    feeder = Feeder(MessageScanner(LIMIT, masked=False)).feed(frame(TEXT, b"a") + from_client(TEXT, b"b"))
    assert messages_from(feeder) == [(TEXT, b"a")]
    assert (feeder.error.code, feeder.error.reason) == (1002, "a frame is masked")


@pytest.mark.parametrize("opcode", [3, 7, 11, 15])
def test_a_reserved_opcode_can_be_told_from_other_errors(opcode: int) -> None:
    feeder = Feeder(MessageScanner(LIMIT, masked=False)).feed(frame(opcode, b""))
    assert isinstance(feeder.error, ReservedOpcode)
    feeder = Feeder(MessageScanner(LIMIT, masked=False)).feed(b"\xc2\x00")
    assert not isinstance(feeder.error, ReservedOpcode)


def test_a_message_that_is_too_large_is_noticed_at_its_head() -> None:
    for length in (11, 126, 70_000):
        for feeder in (Feeder(MessageScanner(10, masked=True)), Feeder(BatchScanner(10))):
            feeder.feed(frame_head(TEXT, length, mask=KEY))
            assert feeder.error.code == 1009


@pytest.mark.parametrize("limit", [0, 10, 125, 126, 1000, 65_535, 65_536])
def test_the_largest_message_is_taken_and_the_next_larger_one_is_not(limit: int) -> None:
    for feeder in (Feeder(MessageScanner(limit, masked=True)), Feeder(BatchScanner(limit))):
        feeder.feed(from_client(BINARY, bytes(limit)) + from_client(BINARY, bytes(limit + 1)))
        assert messages_from_valid_prefix(feeder) == [(BINARY, bytes(limit))]
        assert feeder.error.code == 1009


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535])
def test_a_close_code_that_may_not_be_sent_is_refused(code: int) -> None:
    for feeder in scanners():
        feeder.feed(from_client(CLOSE, close_payload(code)))
        assert feeder.error.code == 1002
        assert feeder.controls == b""


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1012, 1014, 3000, 4999])
def test_other_close_codes_are_taken(code: int) -> None:
    for feeder in scanners():
        feeder.feed(from_client(CLOSE, close_payload(code, "ü")))
        assert feeder.scanner.closed == CloseFrame(code, "ü")


# --- conversations, against another library

relaxed = settings(deadline=None)  # some conversations are long, some machines slow

texts = st.text(max_size=40).map(str.encode)
lengths = st.one_of(st.integers(0, 300), st.sampled_from([125, 126, 8191, 8192, 65_535, 65_536]))
payloads = st.one_of(st.binary(max_size=40), lengths.map(lambda n: b"\xa5" * n), lengths.map(lambda n: b"a" * n))
keys = st.binary(min_size=4, max_size=4)
places = st.lists(st.integers(0, 1 << 20), max_size=12)
pings = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


@st.composite
def conversations(draw: st.DrawFn, *, broken: bool = False) -> list[tuple[int, bool, bytes]]:
    """Frames as (opcode, FIN, payload); a Close may come between any two messages."""
    frames: list[tuple[int, bool, bytes]] = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from([TEXT, BINARY]))
        payload = draw(payloads if kind == BINARY or broken else texts)
        pieces = split_at(payload, draw(places)) or [b""]
        for _ in range(draw(st.integers(0, 1))):
            pieces.insert(draw(st.integers(0, len(pieces))), b"")
        for i, piece in enumerate(pieces):
            if draw(st.booleans()):
                opcode, data = draw(pings)
                frames.append((opcode, True, data))
            frames.append((CONTINUATION if i else kind, i == len(pieces) - 1, piece))
    if draw(st.booleans()):
        reason = draw(texts)[:123].decode(errors="ignore")
        code = draw(st.sampled_from([0, 1000, 1001, 4001]))
        close = close_payload(code, reason) if code else b""
        between = [i for i, (opcode, _, _) in enumerate(frames) if opcode in (TEXT, BINARY)]
        frames.insert(draw(st.sampled_from([*between, len(frames)])), (CLOSE, True, close))
    return frames


@st.composite
def client_bytes(draw: st.DrawFn, *, broken: bool = False) -> bytes:
    frames = draw(conversations(broken=broken))
    return b"".join(frame(opcode, payload, fin=fin, mask=draw(keys)) for opcode, fin, payload in frames)


def as_websockets_says(data: bytes, side: Side) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Messages and control frames of a valid conversation."""
    protocol = Protocol(side, state=OPEN, max_size=None)
    protocol.receive_data(data)
    assert protocol.parser_exc is None
    messages: list[tuple[int, bytes]] = []
    controls: list[tuple[int, bytes]] = []
    kind, message = 0, b""
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode >= CLOSE:
            controls.append((int(event.opcode), bytes(event.data)))
            continue
        kind, message = kind or int(event.opcode), message + event.data
        if event.fin:
            messages.append((kind, message))
            kind, message = 0, b""
    return messages, controls


def as_wsproto_says(data: bytes) -> tuple[list[tuple[int, bytes]], list[int], int | None]:
    """Messages, the opcodes of control frames, and the code of the error, if any."""
    protocol = FrameProtocol(client=False, extensions=[])
    protocol.receive_bytes(data)
    messages: list[tuple[int, bytes]] = []
    controls: list[int] = []
    message = b""
    try:
        for event in protocol.received_frames():
            if event.opcode >= CLOSE:
                controls.append(int(event.opcode))
                continue
            assert isinstance(event.payload, str | bytes | bytearray)
            message += event.payload.encode() if isinstance(event.payload, str) else event.payload
            if event.message_finished:
                messages.append((int(event.opcode), message))
                message = b""
    except ParseFailed as error:
        return messages, controls, int(error.code)
    return messages, controls, None


def unmasked(raw: bytes) -> tuple[int, bytes]:
    return raw[0] & 15, apply_mask(raw[6:], raw[2:6])


@relaxed
@given(client_bytes(), places)
def test_a_conversation_means_what_another_library_says(data: bytes, cuts: list[int]) -> None:
    messages, controls = as_websockets_says(data, SERVER)
    for feeder in scanners():
        feeder.feed(*split_at(data, cuts))
        assert feeder.scanner.error is None
        assert messages_from(feeder) == messages
        assert [unmasked(raw) for raw in split_controls(feeder.controls)] == controls
        assert (feeder.scanner.closed is not None) == any(opcode == CLOSE for opcode, _ in controls)


@relaxed
@given(conversations(), places)
def test_a_servers_conversation_means_what_another_library_says(
    frames: list[tuple[int, bool, bytes]], cuts: list[int]
) -> None:
    data = b"".join(frame(opcode, payload, fin=fin) for opcode, fin, payload in frames)
    messages, controls = as_websockets_says(data, CLIENT)
    feeder = Feeder(MessageScanner(LIMIT, masked=False)).feed(*split_at(data, cuts))
    assert feeder.scanner.error is None
    assert messages_from(feeder) == messages
    assert [(raw[0] & 15, raw[2:]) for raw in split_controls(feeder.controls)] == controls


@relaxed
@given(client_bytes(), places)
def test_a_run_counts_what_is_in_it(data: bytes, cuts: list[int]) -> None:
    feeder = Feeder(BatchScanner(LIMIT)).feed(*split_at(data, cuts))
    for batch in feeder.runs:
        frames = list(frames_of(batch))
        assert batch.size == len(wire(batch))
        assert batch.items == sum(fin for _, fin, _ in frames)
        assert batch.payload == sum(len(payload) for _, _, payload in frames)
        assert all(payload or fin for _, fin, payload in frames)
        assert b"".join(frame(opcode, payload, fin=fin) for opcode, fin, payload in frames) == wire(batch)
        assert joined(batch) == [(opcode, fin, bytes(payload)) for opcode, fin, payload in frames]


def joined(batch: FrameBatch) -> list[tuple[int, bool, bytes]]:
    """Return the frames of a batch, put together of its pieces."""
    found: list[tuple[int, bool, bytes]] = []
    pieces = list(pieces_of(batch))
    heads = [(opcode, len(payload)) for opcode, _, payload in frames_of(batch)]
    for opcode, length in heads:
        payload, fin = b"", False
        while len(payload) < length or not payload:
            piece = pieces.pop(0)
            assert piece[0] == opcode and not fin
            payload, fin = payload + bytes(piece[2]), piece[1]
            if not length:
                break
        found.append((opcode, fin, payload))
    assert not pieces
    return found


mutations = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=3)


@st.composite
def broken_bytes(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(client_bytes(broken=True)))
    for place, change in draw(st.one_of(st.just([]), mutations)):
        if data:
            data[place % min(len(data), 200)] ^= change
    return bytes(data) + draw(st.binary(max_size=20))


@relaxed
@given(broken_bytes(), places)
def test_what_another_library_refuses_is_refused_and_nothing_else(data: bytes, cuts: list[int]) -> None:
    messages, controls, code = as_wsproto_says(data)
    for feeder in scanners():
        feeder.feed(*split_at(data, cuts))
        error, mine = feeder.scanner.error, messages_from_valid_prefix(feeder)
        if error is not None and error.code == 1009:  # the other one leaves that to others
            assert mine == messages[: len(mine)]
            continue
        assert mine == messages
        assert [raw[0] & 15 for raw in split_controls(feeder.controls)] == controls
        if error is None:
            assert code is None
        else:  # the other one wants to see more before it says what is wrong with a head
            assert error.code == (as_wsproto_says(data + bytes(20))[2] if code is None else code)


@relaxed
@given(st.binary(max_size=200), places, st.booleans())
def test_no_garbage_makes_a_scan_raise(data: bytes, cuts: list[int], masked: bool) -> None:
    for feeder in (Feeder(MessageScanner(LIMIT, masked=masked)), Feeder(BatchScanner(LIMIT))):
        feeder.feed(*split_at(data, cuts))


@relaxed
@given(broken_bytes(), places, places)
def test_where_a_stream_is_split_makes_no_difference(data: bytes, cuts: list[int], others: list[int]) -> None:
    for one, other in zip(scanners(), scanners(), strict=True):
        one.feed(*split_at(data, cuts))
        other.feed(*split_at(data, others))
        assert messages_from_valid_prefix(one) == messages_from_valid_prefix(other)
        assert one.controls == other.controls
        assert one.scanner.closed == other.scanner.closed
        assert str(one.scanner.error) == str(other.scanner.error)


# --- runs


@st.composite
def runs(draw: st.DrawFn) -> tuple[FrameBatch, list[int]]:
    """A batch, and where its frames begin and end."""
    frames = draw(st.lists(st.tuples(st.booleans(), lengths), min_size=1, max_size=12))
    return laid_out(frames, [draw(st.integers(0, 2)) for _ in frames])


def laid_out(frames: Sequence[tuple[bool, int]], layout: Sequence[int]) -> tuple[FrameBatch, list[int]]:
    """A batch of frames (FIN, length), and where they begin and end.

    The layout of a frame is 0: its head and payload are parts of their own, 1: it is added to the part before,
    2: it is one part.
    """
    parts: list[bytes | bytearray | memoryview] = []
    places = [0]
    for (fin, length), how in zip(frames, layout, strict=True):
        head, payload = frame_head(BINARY, length, fin=fin), b"\x81" * length
        if how == 0:
            parts += [head, payload]
        elif how == 1 and parts:
            parts[-1] = bytes(parts[-1]) + head + payload
        else:
            parts.append(memoryview(head + payload))
        places.append(places[-1] + len(head) + length)
    return FrameBatch(parts, items=sum(fin for fin, _ in frames), payload=sum(n for _, n in frames)), places


def check_counts(batch: FrameBatch | None) -> None:
    if batch is not None:
        frames = list(frames_of(batch))
        assert frames
        assert (batch.size, batch.items, batch.payload) == (
            len(wire(batch)),
            sum(fin for _, fin, _ in frames),
            sum(len(payload) for _, _, payload in frames),
        )
        assert joined(batch) == [(opcode, fin, bytes(payload)) for opcode, fin, payload in frames]


@relaxed
@given(runs(), st.integers(0, 14), st.one_of(st.integers(0, 1000), st.integers(0, 400_000)))
def test_a_cut_is_the_longest_that_fits_and_at_most_one_frame_over(
    run_and_places: tuple[FrameBatch, list[int]], items: int, payload: int
) -> None:
    batch, places = run_and_places
    before, behind = batch.cut(items, payload)
    assert wire(before) + wire(behind) == wire(batch)
    check_counts(before)
    check_counts(behind)
    if not items or not payload:
        assert before is None
        assert behind is batch
        return
    if before is not None:
        frames = list(frames_of(before))
        assert before.size in places
        assert before.items <= items
        assert before.payload - len(frames[-1][2]) < payload
    if behind is not None:
        taken = before.items if before is not None else 0
        full = before is not None and before.payload >= payload
        first_behind = next(frames_of(behind))
        assert full or taken + first_behind[1] > items


def test_a_cut_is_made_where_the_bytes_are_reached_and_not_behind() -> None:
    ten, nothing = frame(BINARY, bytes(10)), frame(BINARY, b"")
    batch = FrameBatch([ten + ten, nothing, ten], items=4, payload=30)
    for payload, frames in ((1, 1), (10, 1), (11, 2), (20, 2), (21, 4), (30, 4), (31, 4)):
        before, _ = batch.cut(9, payload)
        assert before is not None
        assert before.items == frames
    before, behind = FrameBatch([ten, nothing], items=2, payload=10).cut(9, 10)
    assert (wire(before), wire(behind)) == (ten, nothing)


SMALL = ((True, 0), (False, 1), (True, 126), (True, 3))  # FIN and length of frames, with heads of 2 and 4 bytes


def test_after_a_write_of_any_size_the_rest_is_exact() -> None:
    for layout in itertools.product(range(3), repeat=len(SMALL)):
        batch, places = laid_out(SMALL, layout)
        for n in range(batch.size + 1):
            check_sent(batch, places, n)


@pytest.mark.parametrize("how", range(3))
def test_after_a_write_near_the_bounds_of_large_frames_the_rest_is_exact(how: int) -> None:
    frames = ((True, 65_535), (False, 65_536), (True, 0), (True, 70_000))  # heads of 4, 10, 2 and 10 bytes
    batch, places = laid_out(frames, (how,) * len(frames))
    for place in places:
        for n in range(max(place - 12, 0), min(place + 12, batch.size) + 1):
            check_sent(batch, places, n)


@relaxed
@given(runs(), st.data())
def test_after_a_write_there_is_what_it_tore_and_what_it_did_not_begin(
    run_and_places: tuple[FrameBatch, list[int]], data: st.DataObject
) -> None:
    batch, places = run_and_places
    near = data.draw(st.sampled_from(places)) + data.draw(st.integers(-12, 12))
    check_sent(batch, places, min(max(near, 0), batch.size))
    check_sent(batch, places, data.draw(st.integers(0, batch.size)))


def check_sent(batch: FrameBatch, places: list[int], n: int) -> None:
    torn, rest = batch.sent(n)
    assert wire(batch)[:n] + b"".join(torn) + wire(rest) == wire(batch)
    assert all(torn)
    check_counts(rest)
    if n in places:
        assert not torn
    else:
        assert n + sum(map(len, torn)) == min(place for place in places if place > n)


def test_a_large_payload_is_not_copied_again() -> None:
    feeder = Feeder(BatchScanner(LIMIT)).feed(from_client(BINARY, b"small") + from_client(BINARY, bytes(60_000)))
    (batch,) = feeder.runs
    assert [len(part) for part in batch.parts] == [2 + 5 + 4, 60_000]
    torn, _ = batch.sent(30_000)
    assert isinstance(torn[0], memoryview)
    assert torn[0].obj is batch.parts[1]
