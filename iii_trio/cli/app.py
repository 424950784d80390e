"""Which commands there are, and what becomes of wrong usage and failures: one sentence and an exit code."""

from __future__ import annotations

import difflib
import inspect
import os
import sys
from collections.abc import Sequence
from functools import partial

import trio
from cyclopts import App, CycloptsError
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

from ..triggers.table import MODULES
from .exits import EXIT_HELP, Exit, Failure, explain
from .files import STANDARD_STREAM
from .running import until_signalled
from .serve import serve
from .version import version

app = App(
    name="iii-trio",
    version=version,
    version_flags=["--version", "-v", "-V"],
    help="A runtime for a mesh of workers: calls, and channels whose cut never looks complete. "
    "New here? Try `iii-trio demo`.",
    help_epilogue=EXIT_HELP,
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
    *((command.name, command.place, command.help) for module in MODULES for command in module.commands),
    (
        "conformance",
        "iii_trio.cli.conformance:conformance",
        "Check at an engine, ours or another, every promise about channels that can be seen from outside.",
    ),
)
"""Their names, where they are, and what they do, as their docstrings begin: each is loaded when it is run, so that an
engine starts without what draws tables and bars."""
for name, place, does in COMMANDS:
    app.command(place, name=name, help=does)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. What goes wrong is said on stderr, in one sentence."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    if tokens[:1] in (["send"], ["receive"]):
        tokens = [STANDARD_STREAM if token == "-" else token for token in tokens]
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(Failure(Exit.USAGE, _wrong_usage(tokens, error)))
    run = partial(command, *bound.args, **bound.kwargs)
    try:
        if not inspect.iscoroutinefunction(command):  # --help and --version
            run()
            return Exit.DONE
        return trio.run(until_signalled, run)
    except BrokenPipeError:  # whoever read our output has enough; do not fail again when Python flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception as error:
        failure = explain(error)
        if failure is None:
            raise
        return _fail(failure)


def _fail(failure: Failure) -> int:
    prefix = "" if failure.exit_code is Exit.CALL_FAILED else "iii-trio: "
    sentence = str(failure).replace(repr(STANDARD_STREAM)[1:-1], "-").replace(STANDARD_STREAM, "-")
    print(f"{prefix}{sentence}", file=sys.stderr, flush=True)
    return failure.exit_code


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
