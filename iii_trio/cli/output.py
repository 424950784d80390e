"""The one place for output that a person reads.

Names, descriptions, reasons and errors come from peers. They are made visible here, so that no control character reaches
a terminal. Text that the stream's encoding lacks is escaped, a closed stream is replaced by the null device, and a reader
that leaves ends the command without a word.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

from .exits import Exit, Failure

if TYPE_CHECKING:
    from rich.console import Capture, Console, RenderableType

PLAIN_WIDTH: Final = 1000
"""Columns where there is no terminal. Nothing is folded or cut there."""
_DEFAULT_WIDTH: Final = 80
_MIN_WIDTH: Final = 20
"""A terminal that says it is narrower says nothing: some report 0 or 1 columns."""

# C0, DEL and C1; marks, embeddings, overrides and isolates of direction; separators of lines; characters without width
# that hide in names; lone surrogates.
_HIDDEN: Final = (
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e"
    "\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    """Return a text in which every control character is a backslash escape, on one line."""
    # No hidden character counts as printable. The ready line of an engine is printable, and needs no pattern compiled.
    return text if text.isprintable() else re.sub(_HIDDEN, _escaped, text)


def visible_lines(text: str) -> str:
    """As `visible`, but line breaks stay."""
    return "\n".join(map(visible, text.split("\n")))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in _SHORT:
        return _SHORT[match[0]]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON that shows every control character as an escape of JSON's own."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    # json.dumps escapes C0. The others stand in strings only, so an escape there means the same.
    return re.sub(_HIDDEN, lambda match: match[0] if match[0] == "\n" else json.dumps(match[0])[1:-1], text)


class ReaderLeft(Exception):
    """The reader of standard output is gone. No one is left to tell."""


def prepare() -> None:
    """Make the standard streams usable. Call it first: a file opened before could take a missing one's place."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        # A missing descriptor would be taken by the next file that opens.
        except OSError:
            opened = os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
            # The system gives the lowest free number, which may be another one.
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    # Python sets a stream to None when its descriptor was closed at the start.
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115  (open as long as the process)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def say(text: str, *, stream: TextIO | None = None) -> None:
    """Write a text and a line break to standard output. The caller has made peers' words visible.

    Raises ReaderLeft, and Failure for an output that takes nothing (a full disk).
    """
    _write(text + "\n", sys.stdout if stream is None else stream)


def say_result(value: Any, stream: TextIO | None = None) -> None:
    """Write a result as JSON: one line for programs, indented for people. Raises as `say` does."""
    stream = sys.stdout if stream is None else stream
    say(to_json(value, 2 if is_terminal(stream) else None), stream=stream)


def complain(sentence: str) -> None:
    """Write a sentence to standard error. Whether it can be written makes no difference to the command."""
    try:
        _write(visible_lines(sentence) + "\n", sys.stderr)
    # There is no further place to report that standard error failed.
    except (ReaderLeft, Failure):
        return


def draw(renderable: RenderableType, console: Console) -> None:
    """Write what rich draws: a table, a paragraph with markup. Raises as `say` does."""
    with capture(console) as captured:
        console.print(renderable)
    _write(captured.get(), console.file)


@contextmanager
def capture(console: Console) -> Iterator[Capture]:
    """Capture what is printed on a console within the block. Raises as `say` does, because rich flushes its stream."""
    try:
        with console.capture() as captured:
            yield captured
    except OSError as error:
        raise cannot_write(error, "standard output") from None


def markup(text: str) -> str:
    """Return a peer's words for use inside rich's markup: visible, and no markup themselves."""
    from rich.markup import escape  # here, as the console below, so that an engine starts without rich

    return escape(visible(text))


def new_console(stream: TextIO | None = None, columns: int | None = None) -> Console:
    """Return a console for a stream. It is as wide as the terminal, or wide enough for anything elsewhere."""
    from rich.console import Console

    stream = sys.stdout if stream is None else stream
    # Logs and pipes have no width, and folded lines would break scripts.
    if columns is None:
        columns = width() if is_terminal(stream) else PLAIN_WIDTH
    return Console(file=stream, width=columns, highlight=False)


def width() -> int:
    """Return the columns of the terminal."""
    columns = shutil.get_terminal_size((_DEFAULT_WIDTH, 24)).columns
    return columns if columns >= _MIN_WIDTH else _DEFAULT_WIDTH


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person looks at this stream."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


@contextmanager
def screen(console: Console) -> Iterator[None]:
    """Show the drawings on a screen of its own until the block is left."""
    _write("\x1b[?1049h\x1b[?25l", console.file)
    try:
        yield
    finally:
        try:
            _write("\x1b[?25h\x1b[?1049l", console.file)
        except (ReaderLeft, Failure):
            pass


def redraw(renderable: RenderableType, console: Console) -> None:
    """Draw anew, from the screen's upper left corner. Raises as `say` does."""
    with capture(console) as captured:
        console.print(renderable)
    height = max(1, console.size.height)
    lines = captured.get().rstrip("\n").split("\n")[:height]  # one more line would scroll
    _write("\x1b[H" + "\x1b[K\n".join(lines) + "\x1b[J", console.file)


def forget_stdout() -> None:
    """Send the buffer of standard output to the null device, so that Python's end does not fail at it."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # Tests and embedders replace standard output by objects without a descriptor.
    except (OSError, ValueError, io.UnsupportedOperation):
        return


def _write(text: str, stream: Any) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError) as error:  # a full disk; a stream that somebody closed
        raise cannot_write(error, "standard error" if stream is sys.stderr else "standard output") from None


def cannot_write(error: OSError | ValueError, name: str) -> Exception:
    """Return the exception for output that was not taken. `name` is that of the stream or file."""
    # A reader such as `head` may leave early, which is not a failure.
    if isinstance(error, BrokenPipeError):
        return ReaderLeft()
    reason = error.strerror if isinstance(error, OSError) else error
    return Failure(Exit.FAILED, f"{name} cannot be written: {reason}")
