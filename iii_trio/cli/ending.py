"""What becomes of a command's failure: one sentence on stderr, and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from . import output
from .exits import Exit, Failure, explain

STANDARD_STREAM: Final = "\0-"
"""The lone `-` of a command line, which the parser would take for an option; no file can have this name."""


def exit_code_of(run: Callable[[], int]) -> int:
    """Run a command and return its exit code. A failure is one sentence on stderr. Raises any other exception."""
    try:
        return run()
    except BaseException as error:  # noqa: ASYNC103
        if _has_reader_left(error):
            output.forget_stdout()
            return Exit.FAILED  # noqa: ASYNC104
        failure = explain(error)
        if failure is None:
            raise
        return _fail(failure)  # noqa: ASYNC104


def _has_reader_left(error: BaseException) -> bool:
    """Return whether a command ended because the reader of its output left, and for no other reason."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_has_reader_left, error.exceptions))
    return isinstance(error, output.ReaderLeft)


def _fail(failure: Failure) -> int:
    prefix = "" if failure.exit_code is Exit.CALL_FAILED else "iii-trio: "
    sentence = str(failure).replace(repr(STANDARD_STREAM)[1:-1], "-").replace(STANDARD_STREAM, "-")
    output.complain(f"{prefix}{sentence}")
    return failure.exit_code


__all__ = ["STANDARD_STREAM", "exit_code_of"]
