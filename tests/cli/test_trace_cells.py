"""The cells of `iii-trio traces` and the lines of `iii-trio logs`, for what an odd worker says of itself."""

from __future__ import annotations

import json

import pytest
from trio.testing import MockClock

from iii_trio.cli.log_lines import _say
from iii_trio.cli.traces import _waterfall, cut, duration, when
from tests.helpers.bare import connected
from tests.observability.observed import TRACE, open_observed
from tests.observability.test_observed_workers import a_span, log_message, sent, span_message, text


async def test_a_span_that_ends_before_it_begins_lasts_a_question_mark(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        await sent(bare, span_message(a_span(startTimeUnixNano="2000000000", endTimeUnixNano="1000000000")))
        view = await _waterfall(app, TRACE)
        ((_, _, _, _, lasted, _, bar),) = view.rows
        assert lasted == "?" and len(bar) == 30


async def test_a_long_name_is_cut_in_a_table_and_whole_in_json(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        await sent(bare, span_message(a_span(name="x" * 3000, status={"code": 2, "message": "y" * 3000})))
        view = await _waterfall(app, TRACE)
        (row,) = view.rows
        assert row[0] == "x" * 79 + "…" and all(len(cell) <= 100 for cell in row)
        assert "x" * 3000 in json.dumps(view.said)


def test_the_day_is_shown_where_it_is_another_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert when(0).startswith(("1970-01-01 ", "1969-12-31 "))
    assert when(2**64 - 1).startswith("2554-")
    line = {"severity_text": "WARN", "service_name": "shop", "body": "x", "timestamp_unix_nano": 1}
    _say(line, json=False)
    assert capsys.readouterr().out.startswith(("1970-01-01 ", "1969-12-31 "))


def test_lengths_of_cells() -> None:
    assert cut("a" * 80) == "a" * 80 and cut("a" * 81) == "a" * 79 + "…"
    assert duration(-1) == "?" and duration(0) == "0 µs"


async def test_a_line_from_the_future_has_the_time_of_its_arrival(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine, "/otel") as bare:
        day = 86_400 * 10**9
        now = 1_700_000_000 * 10**9
        times = [
            {"timeUnixNano": str(now + 2 * day), "observedTimeUnixNano": str(now + 3 * day)},
            {"timeUnixNano": str(2**64 - 1)},
            {"timeUnixNano": "-5"},
            {"timeUnixNano": str(now - 400 * day)},
        ]
        await sent(bare, log_message(*({**each, "body": text("odd")} for each in times)))
        lines = (await app.trigger("engine::logs::list", {}))["logs"]
        found = [line for line in lines if line["body"] == "odd"]
        assert [abs(line["observed_timestamp_unix_nano"] - now) < 60 * 10**9 for line in found] == [True] * 4
        # The past is possible, because a worker may send late.
        assert [abs(line["timestamp_unix_nano"] - now) < 60 * 10**9 for line in reversed(found)] == [True] * 3 + [False]
