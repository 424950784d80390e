"""Logging of the command line: lines for people on a terminal, JSON lines elsewhere.

The library itself only logs to `logging.getLogger("iii_trio")` and below; who embeds it decides what becomes of that.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, TypeAlias

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging(level: Level = "info", stream: TextIO | None = None) -> None:
    """Send what iii_trio logs to `stream` (default: stderr), in the form that fits it."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ForPeople() if stream.isatty() else JsonLines())
    logger = logging.getLogger("iii_trio")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


class ForPeople(logging.Formatter):
    """`12:31:02 warning  the message  session=w1 function=a::b`"""

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line, and its traceback after it."""
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        extra = "".join(f"  {key}={value}" for key, value in _extra(record).items())
        line = f"{time} {record.levelname.lower():7} {record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, then what the record carries besides."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, whatever it contains."""
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
