"""Logs: JSON lines for programs, short lines for people."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from iii_trio.cli.logs import configure_logging
from iii_trio.cli.progress import Meter, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("iii_trio")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], level, logger.propagate = before
    logger.setLevel(level)


def test_elsewhere_than_on_a_terminal_each_line_is_a_json_object() -> None:
    stream = io.StringIO()
    configure_logging("info", stream)
    logger = logging.getLogger("iii_trio.engine")
    logger.info("worker %s\nleft", "files", extra={"session": "w1", "reason": ValueError("gone")})
    logger.debug("not shown")
    (line,) = stream.getvalue().splitlines()
    said = json.loads(line)
    assert said.pop("time").endswith("Z")
    assert said == {
        "level": "info",
        "logger": "iii_trio.engine",
        "message": "worker files\nleft",
        "session": "w1",
        "reason": "gone",
    }


def test_on_a_terminal_lines_are_for_people() -> None:
    stream = Terminal()
    configure_logging("warning", stream)
    logging.getLogger("iii_trio").warning("worker left", extra={"session": "w1"})
    logging.getLogger("iii_trio").info("not shown")
    assert stream.getvalue()[8:] == " warning worker left  session=w1\n"


def test_configuring_twice_does_not_say_everything_twice() -> None:
    stream = io.StringIO()
    configure_logging("info", stream)
    configure_logging("info", stream)
    logging.getLogger("iii_trio").info("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_a_meter_without_a_terminal_is_silent_or_says_each_quarter_once() -> None:
    for plain, said in ((False, ""), (True, "moving  25%  25 B\nmoving  75%  75 B\nmoving 100%  100 B\n")):
        stream = io.StringIO()
        with Meter("moving", 100, stream, plain=plain) as meter:
            for count in (10, 15, 5, 45, 25):
                meter.add(count)
        assert stream.getvalue() == said


def test_a_meter_on_a_terminal_is_a_bar_that_ends_at_what_was_reached() -> None:
    stream = Terminal()
    with Meter("moving", 100, stream) as meter:
        meter.add(40)
    assert "40/100 bytes" in stream.getvalue()


def test_sizes_are_for_people() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1536 * 1024, 5 << 30, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
        "5.0 GiB",
        "3.0 TiB",
    ]
