"""Control frames by wsproto: each is answered by itself, and no state is kept between two of them."""

from __future__ import annotations

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection

from iii_trio.transport.control_frames import answer, close_frame, ping_frame
from iii_trio.transport.frames import CLOSE, PING, PONG, MessageScanner, close_payload, frame

MASK = b"\x01\x02\x03\x04"


def read(frames: bytes, *, masked: bool) -> bytes:
    """Return frames as they look without their masks."""
    scanner = MessageScanner(10, masked=masked)
    _, controls = scanner.scan(memoryview(frames))
    assert controls == frames and scanner.error is None
    if not masked:
        return frames
    return frames[:1] + bytes((frames[1] & 127,)) + bytes(b ^ frames[2 + n % 4] for n, b in enumerate(frames[6:]))


@pytest.mark.parametrize("is_client", [False, True])
@pytest.mark.parametrize("payload", [b"", b"there?", bytes(125)])
def test_a_ping_is_answered_with_its_payload_any_number_of_times(payload: bytes, is_client: bool) -> None:
    ping = frame(PING, payload, mask=None if is_client else MASK)
    for _ in range(3):
        assert read(answer(ping, is_client=is_client), masked=is_client) == frame(PONG, payload)


@pytest.mark.parametrize("is_client", [False, True])
def test_a_pong_has_no_answer(is_client: bool) -> None:
    assert answer(frame(PONG, b"here", mask=None if is_client else MASK), is_client=is_client) == b""


@pytest.mark.parametrize("is_client", [False, True])
@pytest.mark.parametrize(
    "payload", [b"", close_payload(1000), close_payload(4001, "no good"), close_payload(3000, "ü")]
)
def test_a_close_is_answered_with_its_code_and_reason(payload: bytes, is_client: bool) -> None:
    close = frame(CLOSE, payload, mask=None if is_client else MASK)
    assert read(answer(close, is_client=is_client), masked=is_client) == frame(CLOSE, payload)


def test_a_close_with_a_code_that_the_library_does_not_know_is_answered_as_a_broken_rule() -> None:
    said = answer(frame(CLOSE, close_payload(1014), mask=MASK), is_client=False)
    assert said[:1] == b"\x88" and said[2:4] == (1002).to_bytes(2, "big")


def test_a_server_answers_each_close_as_wsproto_does_whatever_its_mask() -> None:
    payloads = [b"", *(code.to_bytes(2, "big") for code in (*range(999, 1017), 2999, 3000, 4999, 5000))]
    for mask in (MASK, b"\xff\x00\x7f\x80", bytes(4), MASK):
        for payload in payloads:
            close = frame(CLOSE, payload, mask=mask)
            protocol = Connection(ConnectionType.SERVER)
            protocol.receive_data(close)
            (event,) = protocol.events()
            assert isinstance(event, CloseConnection)
            assert answer(close, is_client=False) == protocol.send(event.response()), payload


@pytest.mark.parametrize("code", [*range(1000, 1016), 3000, 4999])
def test_a_server_closes_as_wsproto_does_each_time(code: int) -> None:
    for reason in ("", "no good", "", "ü" * 100):
        close = Connection(ConnectionType.SERVER).send(CloseConnection(code=code, reason=reason))
        assert close_frame(code, reason, is_client=False) == close


def test_a_client_masks_each_close_anew() -> None:
    said = {answer(frame(CLOSE, close_payload(1000)), is_client=True) for _ in range(8)}
    assert len(said | {close_frame(1000, "", is_client=True) for _ in range(8)}) > 8


def test_a_short_ping_is_answered_by_a_pong() -> None:
    for payload in (b"", b"\x03\xe8"):
        close, ping = frame(CLOSE, payload, mask=MASK), frame(PING, payload, mask=MASK)
        assert answer(close, is_client=False) == frame(CLOSE, payload)
        assert answer(ping, is_client=False) == frame(PONG, payload)


@pytest.mark.parametrize("is_client", [False, True])
def test_frames_of_our_own_are_masked_by_a_client_only(is_client: bool) -> None:
    close = close_frame(4001, "no good", is_client=is_client)
    assert read(close, masked=is_client) == frame(CLOSE, close_payload(4001, "no good"))
    assert read(close_frame(1000, "", is_client=is_client), masked=is_client) == frame(CLOSE, close_payload(1000))
    assert read(ping_frame(is_client=is_client), masked=is_client) == frame(PING, b"")


def test_a_reason_is_cut_between_two_characters() -> None:
    close = close_frame(1000, "ü" * 100, is_client=False)
    assert close == frame(CLOSE, close_payload(1000, "ü" * 61)) and len(close) <= 127
