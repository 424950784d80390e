"""The engine's log is bounded in rate, and says what it left out."""

from __future__ import annotations

import logging

import pytest

from iii_trio.report import RateLimitedLogger


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "iii_trio.engine"]


def test_a_line_carries_what_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    RateLimitedLogger("here").log(1000.0, logging.INFO, "100 % of it", {"session": "s1"})
    (record,) = caplog.records
    assert record.getMessage() == "100 % of it"
    assert (record.iii_engine, record.iii_session) == ("here", "s1")  # type: ignore[attr-defined]


def test_however_much_happens_the_lines_are_few_and_say_how_many_are_missing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    reporter = RateLimitedLogger("here")
    for n in range(10_000):
        reporter.log(1000.0 + n / 1000, logging.INFO, f"line {n}", {})
    said = lines(caplog)
    assert len(said) <= 200 + 10 * 20 * 2, "a burst, and then twenty a second, each at most with its count"
    left_out = sum(int(line.split()[0]) for line in said if "left out" in line)
    assert left_out + sum(line.startswith("line") for line in said) >= 9_900
    assert "lines were left out: more than 20 a second" in said[-2]


def test_a_quiet_engine_may_say_much_at_once_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    reporter = RateLimitedLogger("here")
    for burst in range(2):
        for _ in range(150):
            reporter.log(1000.0 + burst * 60, logging.INFO, "line", {})
    assert lines(caplog) == ["line"] * 300


def test_lines_that_nobody_wants_take_no_room(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    reporter = RateLimitedLogger("here")
    for _ in range(1000):
        reporter.log(1000.0, logging.DEBUG, "detail", {})
    reporter.log(1000.0, logging.INFO, "line", {})
    assert lines(caplog) == ["line"]


def test_a_workers_flood_hides_neither_another_workers_lines_nor_why_it_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    reporter = RateLimitedLogger("here")
    for n in range(10_000):
        reporter.log(1000.0 + n / 1000, logging.INFO, "noise", {"session": "s1"}, peer_controlled=True)
    reporter.log(1010.0, logging.INFO, "another's", {"session": "s2"}, peer_controlled=True)
    reporter.log(1010.0, logging.INFO, "it is gone", {"session": "s1"})
    said = lines(caplog)
    assert said.count("noise") <= 50 + 5 * 10
    assert said[-2:] == ["another's", "it is gone"]
    assert any("lines about session s1 caused by workers were left out: more than 5 a second" in line for line in said)


def test_what_one_worker_or_address_has_on_its_account_does_not_hide_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    reporter = RateLimitedLogger("here")
    for about in ({"owner": "s1", "channel": "c"}, {"peer": "10.0.0.1", "status": "401"}):
        for _ in range(1000):
            reporter.log(1000.0, logging.INFO, f"of {about}", about)
    reporter.log(1000.0, logging.INFO, "line", {"session": "s2"})
    assert len(lines(caplog)) == 50 + 50 + 1 and lines(caplog)[-1] == "line"


def test_a_line_is_short_and_in_one_line_whoever_wrote_what_is_in_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    RateLimitedLogger("here").log(
        1000.0, logging.INFO, "a\nb\x1b[2J\u202e" + "x" * 100_000, {"function": "f\n" * 100_000}
    )
    (record,) = caplog.records
    assert record.getMessage().startswith("a b[2Jxxx") and len(record.getMessage()) < 10_000
    assert len(record.iii_function) < 10_000  # type: ignore[attr-defined]
    assert not {"\n", "\x1b"} & {*record.getMessage(), *record.iii_function}  # type: ignore[attr-defined]


def test_what_is_remembered_of_workers_that_are_gone_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    reporter = RateLimitedLogger("here")
    for n in range(5_000):
        reporter.log(1000.0 + n, logging.INFO, "line", {"session": f"s{n}"})
    assert len(lines(caplog)) == 5_000 and len(reporter._each) <= 1024
