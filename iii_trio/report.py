"""The log of an engine, a module or a worker, one line an event, bounded in rate.

Each line carries the ids that it is about. Two kinds of lines are bounded apart. A peer can cause the first kind as often as
it likes (its own log, its refused or unreadable messages). All others are the second kind. Each kind is bounded for each
worker (before there is one, each address) and altogether. So a flood of one worker hides neither the lines of another nor
the engine's own, such as the reason why a worker is gone.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_complained: set[str] = set()
"""The loggers whose handlers have raised."""


class ContainedLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that raises nothing, because its handlers and filters are an embedder's.

    The first exception of each logger is written to the standard error stream, unless `logging.raiseExceptions` is off.
    """

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """Log a line as `logging.Logger.log` does. Raises nothing but KeyboardInterrupt."""
        try:
            # One frame more than the adapter: the record names the caller's line.
            super().log(level, msg, *args, **{**options, "stacklevel": options.get("stacklevel", 1) + 1})
        # The user wants the program to end, whatever code it has just reached.
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: ASYNC103
            # A broken handler fails at every line, and one report of it is enough.
            if logging.raiseExceptions and self.logger.name not in _complained:
                _complained.add(self.logger.name)
                text = f"a logging handler of {self.logger.name!r} raised:\n{traceback.format_exc()}"
                _write_to_stderr(text.encode(errors="backslashreplace").decode())

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        """Leave a line as it is, its `extra` included."""
        return msg, kwargs


def get_logger(name: str) -> ContainedLogger:
    """Return the logger of this name, contained."""
    return ContainedLogger(logging.getLogger(name), {})


def _write_to_stderr(text: str) -> None:
    try:
        sys.stderr.write(text)
    except Exception:  # closed, or None: there is no other place to say it
        return


LOGGER: Final = get_logger("iii_trio.engine")
_REMEMBERED: Final = 1024
_WHOSE: Final = ("session", "owner", "peer", "queue", "function")
"""The fields that name the owner of a line, the first one first."""
_LONGEST: Final = 8192  # characters of a text or an id


class _TokenBucket(msgspec.Struct):
    """A bound of so many lines at once, and so many a second in the long run. It counts the lines that are left out."""

    burst: int
    per_second: int
    left: float = 0.0
    last: float = 0.0
    left_out: int = 0

    def __post_init__(self) -> None:
        self.left = float(self.burst)

    def take(self, now: float) -> bool:
        """Take one line, and return whether there is room for it."""
        self.left = min(self.burst, self.left + (now - self.last) * self.per_second)
        self.last = now
        if self.left < 1:
            self.left_out += 1
            return False
        self.left -= 1
        return True


class RateLimitedLogger:
    """Writes a log that is bounded in rate. It counts the lines that are left out, and logs the count when there is room."""

    def __init__(
        self, name: str, logger: logging.Logger | ContainedLogger = LOGGER, *, name_field: str = "iii_engine"
    ) -> None:
        self._name = name
        self._name_field = name_field
        self._logger = logger if isinstance(logger, ContainedLogger) else ContainedLogger(logger, {})
        self._altogether = {False: _TokenBucket(200, 20), True: _TokenBucket(100, 20)}
        self._each: dict[tuple[str, bool], _TokenBucket] = {}
        """The buckets of each worker or address. The one that was written of last is the last one."""

    def shows(self, level: int) -> bool:
        """Return whether lines of this level are written, so that a frequent one need not be made in vain."""
        return self._logger.isEnabledFor(level)

    def log(
        self,
        now: float,
        level: int,
        text: str,
        about: Mapping[str, str],
        *,
        peer_controlled: bool = False,
        error: BaseException | None = None,
    ) -> None:
        """Log a line. `about` becomes attributes of the record (`iii_session`, `iii_function`, `iii_channel`, …).

        `peer_controlled`: the worker can cause such a line as often as it likes. `error`: its traceback is logged, too.
        """
        # A line that is not shown must not use up the room of others.
        if not self._logger.isEnabledFor(level):
            return
        kind = "caused by workers " if peer_controlled else ""
        bounds = {kind: self._altogether[peer_controlled]}
        whose = next((key for key in _WHOSE if about.get(key)), None)
        if whose is not None:
            bounds = {f"about {whose} {about[whose]} {kind}": self._of(about[whose], peer_controlled), **bounds}
        for bound in bounds.values():
            if not bound.take(now):
                return
        for which, bound in bounds.items():
            # A reader of the log has to know that it has gaps.
            if bound.left_out:
                left_out, bound.left_out = bound.left_out, 0
                why = f"{left_out} lines {which}were left out: more than {bound.per_second} a second"
                self._write(logging.WARNING, why, {whose: about[whose]} if whose is not None else {}, None)
        self._write(level, text, about, error)

    def _of(self, whose: str, peer_controlled: bool) -> _TokenBucket:
        bound = self._each.pop((whose, peer_controlled), None) or _TokenBucket(50, 5)
        self._each[whose, peer_controlled] = bound
        # Workers come and go, so the buckets of those long silent are given up first.
        if len(self._each) > _REMEMBERED:
            del self._each[next(iter(self._each))]
        return bound

    def _write(self, level: int, text: str, about: Mapping[str, str], error: BaseException | None) -> None:
        extra = {f"iii_{key}": _bearable(value) for key, value in about.items()}
        self._logger.log(level, "%s", _bearable(text), exc_info=error, extra={self._name_field: self._name, **extra})


_HIDDEN: Final = {*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029}
_WITHOUT_HIDDEN: Final = dict.fromkeys(_HIDDEN)


def visible(text: str) -> str:
    """Return a text without characters that could fool a reader of a log."""
    return text.translate(_WITHOUT_HIDDEN)


def _bearable(text: str) -> str:
    """Return a text as a reader of a log can bear it, because a peer may have written it."""
    short = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return visible(short.replace("\n", " "))
