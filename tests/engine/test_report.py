"""The engine's log is bounded in rate, and says what it left out."""

from __future__ import annotations

import logging

import pytest

from iii_trio.engine.report import Reporter


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "iii_trio.engine"]


def test_a_line_carries_what_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    Reporter("here").tell(1000.0, logging.INFO, "100 % of it", {"session": "s1"})
    (record,) = caplog.records
    assert record.getMessage() == "100 % of it"
    assert (record.iii_engine, record.iii_session) == ("here", "s1")  # type: ignore[attr-defined]


def test_however_much_happens_the_lines_are_few_and_say_how_many_are_missing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    reporter = Reporter("here")
    for n in range(10_000):
        reporter.tell(1000.0 + n / 1000, logging.INFO, f"line {n}", {})
    said = lines(caplog)
    assert len(said) <= 200 + 10 * 20 * 2, "a burst, and then twenty a second, each at most with its count"
    left_out = sum(int(line.split()[0]) for line in said if "left out" in line)
    assert left_out + sum(line.startswith("line") for line in said) >= 9_900
    assert "lines were left out: more than 20 a second" in said[-2]


def test_a_quiet_engine_may_say_much_at_once_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    reporter = Reporter("here")
    for burst in range(2):
        for _ in range(150):
            reporter.tell(1000.0 + burst * 60, logging.INFO, "line", {})
    assert lines(caplog) == ["line"] * 300


def test_lines_that_nobody_wants_take_no_room(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    reporter = Reporter("here")
    for _ in range(1000):
        reporter.tell(1000.0, logging.DEBUG, "detail", {})
    reporter.tell(1000.0, logging.INFO, "line", {})
    assert lines(caplog) == ["line"]
