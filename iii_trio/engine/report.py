"""The engine's log: one line an event, with the ids it is about, and never more lines than a reader can bear."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

LOGGER: Final = logging.getLogger("iii_trio.engine")
_BURST: Final = 200  # lines at once
_PER_SECOND: Final = 20  # lines, in the long run


class Reporter:
    """Writes the log of one engine, bounded in rate: what is left out is counted, and said once there is room."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._allowance = float(_BURST)
        self._last = 0.0
        self._left_out = 0

    def tell(self, now: float, level: int, text: str, about: Mapping[str, str]) -> None:
        """Log a line. `about` becomes attributes of the record (`iii_session`, `iii_function`, `iii_channel`, …)."""
        if not LOGGER.isEnabledFor(level):
            return
        self._allowance = min(_BURST, self._allowance + (now - self._last) * _PER_SECOND)
        self._last = now
        if self._allowance < 1:
            self._left_out += 1
            return
        self._allowance -= 1
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            LOGGER.warning("%d lines were left out: more than %d a second", left_out, _PER_SECOND)
        LOGGER.log(level, "%s", text, extra={"iii_engine": self._name, **{f"iii_{key}": v for key, v in about.items()}})
