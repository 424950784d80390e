"""Which commands there are, and what becomes of wrong usage: one sentence and an exit code."""

from __future__ import annotations

import difflib
import inspect
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio
from cyclopts import App, CycloptsError
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

from ..triggers.table import MODULES
from . import output
from .ending import STANDARD_STREAM, exit_code_of
from .exits import EXIT_HELP, Exit, Failure, UsageError
from .running import until_signalled
from .serve_command import serve
from .version import version

app = App(
    name="iii-trio",
    version=version,
    version_flags=[],  # they would be taken anywhere in the line: see main
    help="A runtime for a mesh of workers: calls, and channels whose cut never looks complete. "
    "New here? Try `iii-trio demo`.",
    help_epilogue=f"`iii-trio --version` prints the version. {EXIT_HELP}",
)
app.default(serve)
app.command(serve)
COMMANDS = (
    ("demo", "iii_trio.cli.demo:demo", "See it work: an engine and two workers as real processes on this machine."),
    ("trigger", "iii_trio.cli.trigger:trigger", "Call a function and print its result as JSON."),
    ("send", "iii_trio.cli.transfer:send", "Stream a file into a function."),
    ("receive", "iii_trio.cli.transfer:receive", "Stream what a function writes into a file."),
    ("functions", "iii_trio.cli.tables:functions", "List the functions that can be called."),
    ("workers", "iii_trio.cli.tables:workers", "List the workers that are connected."),
    (
        "channels",
        "iii_trio.cli.tables:channels",
        "List the open channels: who waits for whom, and why; or how the last ones ended.",
    ),
    ("triggers", "iii_trio.cli.tables:triggers", "List the trigger types, and the functions that are bound to them."),
    (
        "record",
        "iii_trio.cli.record:record",
        "Save the last inputs of a running engine in a file, for `iii-trio replay`.",
    ),
    (
        "replay",
        "iii_trio.cli.replay:replay",
        "Do the steps of a recording again, and show each: what came in, which state moved, what went out.",
    ),
    (
        "top",
        "iii_trio.cli.top:top",
        "Show what the engine is busy with: calls, channels, queues, and its processor time and memory.",
    ),
    (
        "completion",
        "iii_trio.cli.completion:completion",
        "Print a script that lets a shell complete commands and options.",
    ),
    *((command.name, command.place, command.help) for module in MODULES for command in module.commands),
    (
        "conformance",
        "iii_trio.cli.conformance:conformance",
        "Check at an engine, ours or another, every promise about channels that can be seen from outside.",
    ),
)
"""Their names, where they are, and what they do, as their docstrings begin: each is loaded when it is run, so that a
command starts without what draws tables and bars."""
for name, place, does in COMMANDS:
    app.command(place, name=name, help=does)

_VERSION: Final = (["--version"], ["-v"], ["-V"])
_PATHS: Final = ("file", "output", "config", "data")
"""Parameters that are paths."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. A failure is one sentence on stderr."""
    output.prepare()
    tokens = list(sys.argv[1:] if argv is None else argv)
    if tokens[:1] in (["send"], ["receive"]):
        tokens = [STANDARD_STREAM if token == "-" else token for token in tokens]
    return exit_code_of(partial(_run, tokens))


def _run(tokens: Sequence[str]) -> int:
    if tokens in _VERSION:
        output.say(version())
        return Exit.DONE
    parse = partial(app.parse_args, tokens, exit_on_error=False, print_error=False)
    try:
        command, bound, _ = parse()
        _check_texts(bound)
        if inspect.iscoroutinefunction(command):
            return trio.run(until_signalled, partial(command, *bound.args, **bound.kwargs))
        # Only --help is not a coroutine. It needs a console, and a command starts without what draws on one.
        console = output.new_console(columns=output.width())
        command, bound, _ = parse(console=console)
        with output.capture(console) as captured:
            command(*bound.args, **bound.kwargs)
    except CycloptsError as error:
        raise Failure(Exit.USAGE, _wrong_usage(tokens, error)) from None
    output.say(captured.get().rstrip())
    return Exit.DONE


def _check_texts(bound: inspect.BoundArguments) -> None:
    """Read arguments as UTF-8 whatever the locale, and raise UsageError for one that is not a text.

    The path of a file stays as it is: it may be any bytes.
    """
    for name, value in bound.arguments.items():
        if name in _PATHS:
            continue
        if isinstance(value, str):
            bound.arguments[name] = _as_text(value)
        elif isinstance(value, tuple):
            bound.arguments[name] = tuple(_as_text(each) if isinstance(each, str) else each for each in value)


def _as_text(argument: str) -> str:
    if argument.isascii():
        return argument
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        raise UsageError(f"the argument '{output.visible(argument)}' is not UTF-8 text") from None


def _wrong_usage(tokens: Sequence[str], error: CycloptsError) -> str:
    names = ["serve", *(name for name, _, _ in COMMANDS)]
    first = tokens[0]
    if first not in names and not first.startswith("-"):
        near = difflib.get_close_matches(first, names, 1)
        mend = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(names)}"
        return f"unknown command `{first}`; {mend}"
    about = f"iii-trio {first}" if first in names else "iii-trio"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        what = f"{name} needs a value" if name.startswith("-") else f"{name} is missing"
    elif isinstance(error, UnusedCliTokensError):
        what = f"unexpected argument `{(error.unused_tokens or ['?'])[0]}`"
    else:
        what = " ".join(str(error).split()).removesuffix(".")
        what = what[:1].lower() + what[1:]
    return f"{what} (`{about} --help` shows what there is)"
