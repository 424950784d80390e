"""Which lines of the engine's log, and of the workers', nobody expects."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

EXPECTED_WARNINGS: Final = (
    re.compile(r"^\d+ lines were left out: more than \d+ a second$"),  # everybody was killed at once
)
_IDS: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\d+\b|\b(?:a|sdk|idle)\d+\b")


def unexpected_lines(log: str, kinds: Counter[str]) -> Iterator[str]:
    """The lines of an engine's log that are not JSON, or warn of what no soak brings about; counts the others by kind."""
    for line in log.splitlines():
        try:
            said = json.loads(line)
            level, message = said["level"], said["message"]
        except (ValueError, KeyError, TypeError):
            yield line
            continue
        expected = level in ("debug", "info") or any(each.match(message) for each in EXPECTED_WARNINGS)
        if not expected or "traceback" in said:
            yield line
        else:
            kinds[_IDS.sub("…", message)] += 1
