"""The usual lines of `serve` are read as the parser reads them, and every other one is the parser's."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.cli.app import app
from iii_trio.cli.serve import serve
from iii_trio.cli.serve_command import serve as command
from iii_trio.cli.serve_line import usual_options

_VALUES = (
    "0", "1", "00", "07", "49134", "1.5", "1.", ".5", "1e3", "10.0", "0x10", "1_000", " 1", "1 ", "nan", "inf", "true",
    "none", "None", "null", "", "-", "-1", "--", "--host", "a", "a=b", "a b", "::1", "/tmp/x.yaml", "debug", "info",
    "INFO", "warning", "error", "memory", "ä", "a\nb", "[1]", '"a"', "{}", "valkey://h:1/m",
)  # fmt: skip
_NAMES = (
    "--config", "-c", "--host", "--port", "--data", "--cluster", "--advertise", "--node", "--grace", "--log-level",
    "--prot", "--no-port", "--help", "--log_level",
)  # fmt: skip


def _parsed(line: list[str]) -> dict[str, Any]:
    parsed, bound, _ = app.parse_args(line, exit_on_error=False, print_error=False)
    assert parsed is command
    assert not bound.args
    return bound.kwargs


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("value", _VALUES)
def test_an_option_that_is_read_without_the_parser_is_read_as_by_it(name: str, value: str) -> None:
    options = usual_options(["serve", name, value])
    if options is not None:
        parsed = _parsed(["serve", name, value])
        assert options == parsed
        assert {key: type(one) for key, one in options.items()} == {key: type(one) for key, one in parsed.items()}


@given(
    st.lists(st.tuples(st.sampled_from(_NAMES), st.sampled_from(_VALUES) | st.text(max_size=6)), max_size=4),
    st.booleans(),
)
def test_a_line_that_is_read_without_the_parser_is_read_as_by_it(pairs: list[tuple[str, str]], named: bool) -> None:
    line = [*(["serve"] if named else []), *(token for pair in pairs for token in pair)]
    options = usual_options(line)
    if options is not None:
        assert options == _parsed(line)


def test_usual_lines_need_no_parser() -> None:
    assert usual_options([]) == {}
    assert usual_options(["serve"]) == {}
    line = [
        "--config",
        "c.yaml",
        "--host",
        "::1",
        "--port",
        "0",
        "--data",
        "memory",
        "--grace",
        "2.5",
        "--log-level",
        "debug",
    ]
    wanted = {"config": "c.yaml", "host": "::1", "port": 0, "data": "memory", "grace": 2.5, "log_level": "debug"}
    assert usual_options(["serve", *line]) == usual_options(line) == wanted


@pytest.mark.parametrize(
    "line",
    ["trigger f", "serve serve", "--help", "serve --help", "--version", "serve --port", "serve --port 1 --port 2",
     "serve -c a --config b", "serve --port=1", "serve x", "--grace nan", "serve --log-level loud", "serve --data -"],
)  # fmt: skip
def test_other_lines_are_the_parsers(line: str) -> None:
    assert usual_options(line.split()) is None


def test_the_command_has_the_arguments_of_what_it_runs() -> None:
    ours, parsers = dict(inspect.signature(serve).parameters), inspect.signature(command).parameters
    del ours["on_ready"]
    assert list(ours) == list(parsers)
    assert [one.default for one in ours.values()] == [one.default for one in parsers.values()]
