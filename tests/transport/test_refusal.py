"""What a worker makes of an engine's refusal of a channel's end."""

from __future__ import annotations

import json

import pytest

from iii_trio.errors import AttachRefused, ChannelBroken
from iii_trio.transport.refusal import refusal_of

TOLD = {"outcome": "writer_lost", "reason": "it crashed", "code": "oops"}


def test_a_channel_that_ended_is_broken_with_its_outcome() -> None:
    error = refusal_of(410, json.dumps(TOLD).encode())
    assert type(error) is ChannelBroken and (error.outcome, error.reason, error.code) == (
        "writer_lost",
        "it crashed",
        "oops",
    )
    error = refusal_of(410, b'{"outcome": "aborted", "reason": null}')
    assert type(error) is ChannelBroken and (error.outcome, error.reason, error.code) == ("aborted", "", "aborted")


@pytest.mark.parametrize("status", [400, 403, 404, 409, 411, 503])
def test_every_other_status_is_a_refusal_whatever_its_body(status: int) -> None:
    error = refusal_of(status, json.dumps(TOLD).encode())
    assert type(error) is AttachRefused and error.status == status and "it crashed" in str(error)


@pytest.mark.parametrize("body", [b"gone", b"{}", b"[]", b"3", b"null", b"", b"\xff", b'{"reason": "x"}', b'"outcome"'])
def test_a_410_of_another_form_is_a_refusal(body: bytes) -> None:
    error = refusal_of(410, body)
    assert type(error) is AttachRefused and error.status == 410


def test_a_refusal_shows_at_most_200_characters_of_its_body() -> None:
    assert refusal_of(404, b"  ").args == refusal_of(404, b"refused").args
    assert "x" * 200 in str(refusal_of(404, b"x" * 201)) and "x" * 201 not in str(refusal_of(404, b"x" * 201))
