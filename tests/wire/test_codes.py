"""The numbers and names of the wire, which peers in other languages compare with."""

from __future__ import annotations

import pytest

from iii_trio.wire import Close, Outcome
from iii_trio.wire.codes import (
    CLEAN_CLOSES,
    CLOSE_OF,
    DEFAULT_PORT,
    MAX_MESSAGE_BYTES,
    OUTCOME_OF,
    join_reason,
    split_reason,
)


def test_close_codes_are_those_of_rfc_6455_and_of_clause_C8_5() -> None:
    assert {code.name: int(code) for code in Close} == {
        "NORMAL": 1000, "GOING_AWAY": 1001, "PROTOCOL_ERROR": 1002, "NO_STATUS_RCVD": 1005, "ABNORMAL": 1006,
        "INVALID_DATA": 1007, "POLICY_VIOLATION": 1008, "MESSAGE_TOO_BIG": 1009, "INTERNAL_ERROR": 1011,
        "SERVICE_RESTART": 1012, "TRY_AGAIN_LATER": 1013, "ABORTED": 4001, "WRITER_LOST": 4002,
        "READER_CANCELLED": 4003, "READER_LOST": 4004, "OWNER_LOST": 4005, "EXPIRED": 4006, "ENGINE_CLOSED": 4007,
        "EVICTED": 4010,
    }  # fmt: skip


def test_each_outcome_has_a_close_code_of_its_own() -> None:
    assert {outcome.name: code.name for outcome, code in CLOSE_OF.items()} == {
        outcome.name: "NORMAL" if outcome is Outcome.COMPLETED else outcome.name for outcome in Outcome
    }
    assert {code: OUTCOME_OF[code] for code in CLOSE_OF.values()} == {code: one for one, code in CLOSE_OF.items()}
    assert {int(code) for code in CLEAN_CLOSES} == {1000, 1005}


def test_the_port_and_the_largest_message_are_those_of_iii() -> None:
    assert (DEFAULT_PORT, MAX_MESSAGE_BYTES) == (49134, 67_108_864)


@pytest.mark.parametrize(
    ("text", "reason", "code"),
    [
        ("gone", "gone", None),
        ("QUEUE_FULL: no room: at all\nnone", "no room: at all\nnone", "QUEUE_FULL"),
        ("_a.b:c-9: x", "x", "_a.b:c-9"),
        ("9a: x", "9a: x", None),
        ("a:x", "a:x", None),
        ("a" * 64 + ": x", "x", "a" * 64),
        ("a" * 65 + ": x", "a" * 65 + ": x", None),
        ("", "", None),
    ],
)
def test_a_reason_and_its_code_are_joined_and_split(text: str, reason: str, code: str | None) -> None:
    assert split_reason(text) == (reason, code)
    assert join_reason(reason, code) == text
