"""Logging of the command line: lines for people on a terminal, JSON lines elsewhere.

The library itself only logs to `logging.getLogger("iii_trio")` and below. An embedding program decides the rest.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, TypeAlias

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

_ATOMIC = 4096
"""Bytes that a pipe which can be written at all takes at once (PIPE_BUF)."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging(level: Level = "info", stream: TextIO | None = None) -> None:
    """Send what iii_trio logs to `stream` (default: stderr), in the form that fits it."""
    stream = sys.stderr if stream is None else stream
    handler: logging.Handler = Unhurried(stream) if _has_descriptor(stream) else logging.StreamHandler(stream)
    handler.setFormatter(ForPeople() if stream.isatty() else JsonLines())
    logger = logging.getLogger("iii_trio")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def _has_descriptor(stream: TextIO) -> bool:
    try:
        return stream.fileno() >= 0 and hasattr(select, "poll")
    except (OSError, ValueError):
        return False


class Unhurried(logging.Handler):
    """Writes lines to a descriptor, and never waits for its reader. Lines without room are left out, counted and reported.

    A pipe without a reader must not stop an engine. The descriptor stays as it is, because others may share it.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._descriptor = stream.fileno()
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        self._left_out = 0
        self._torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, if it is taken at once."""
        try:
            line = self.format(record) + "\n"
            if self._left_out:
                notice = logging.LogRecord(
                    record.name, logging.WARNING, __file__, 0, "%d lines before this one were left out: nobody took them",
                    (self._left_out,), None,
                )  # fmt: skip
                line = f"{self.format(notice)}\n{line}"
            if self._write(("\n" if self._torn else "") + line):
                self._left_out = 0
            else:
                self._left_out += 1
        except Exception:
            self.handleError(record)

    def _write(self, text: str) -> bool:
        rest = text.encode("utf-8", "backslashreplace")
        begun = False
        while rest:
            if not self._poll.poll(0):
                self._torn = begun or self._torn
                return False
            try:
                rest = rest[os.write(self._descriptor, rest[:_ATOMIC]) :]
            except BlockingIOError:  # somebody else made it non-blocking
                self._torn = begun or self._torn
                return False
            begun = True
        self._torn = False
        return True


class ForPeople(logging.Formatter):
    """Formats a record as `12:31:02 warning  the message  session=w1 function=a::b`."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line, and its traceback after it."""
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        extra = "".join(f"  {key}={value}" for key, value in _extra(record).items())
        line = f"{time} {record.levelname.lower():7} {record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, then what the record carries besides."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record as one line, with any content."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}
