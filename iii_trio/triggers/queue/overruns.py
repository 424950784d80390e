"""Handlers that run much longer than usual: each is a line in the log, and counted (Q33)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, final

from .attempt import Attempt
from .lane import Lane

MIN_SAMPLES: Final = 20
"""How many calls must have succeeded before any is called long."""
_MIN_SECONDS: Final = 1.0
_EVERY: Final = 16  # calls, after which the limit is found anew


@final
class Overruns:
    """The usual lengths of calls by lane, and the time to look for calls that are longer."""

    def __init__(self) -> None:
        self.check_at = math.inf
        """The next time at which a call may have become too long."""
        self._limits: dict[Lane, float] = {}

    def began(self, attempt: Attempt) -> None:
        """Note that a call has begun."""
        limit = self._limits.get(attempt.job.lane)
        if limit is not None and attempt.began + limit < self.check_at:
            self.check_at = attempt.began + limit

    def succeeded(self, lane: Lane, seconds: float) -> None:
        """Note how long a call took."""
        lane.durations.append(seconds)
        lane.sampled += 1
        if lane.sampled % _EVERY == 0 or lane not in self._limits:
            self._find_limit(lane)

    def _find_limit(self, lane: Lane) -> None:
        import statistics  # here, because it loads fractions and decimals, which a start has no need of

        factor = lane.settings.overrun_factor
        if factor is None or lane.settings.visibility_timeout_seconds is not None or len(lane.durations) < MIN_SAMPLES:
            self._limits.pop(lane, None)
        else:
            self._limits[lane] = max(_MIN_SECONDS, factor * statistics.median(lane.durations))

    def forget(self, lane: Lane) -> None:
        """Remove a lane that is gone, or has other settings."""
        self._limits.pop(lane, None)

    def check(self, now: float, attempts: Iterable[Attempt]) -> list[tuple[Attempt, float]]:
        """Return the calls that have become too long, each with its usual length. Each is returned once."""
        import statistics

        self.check_at = math.inf
        found = []
        for attempt in attempts:
            limit = self._limits.get(attempt.job.lane)
            if limit is None or attempt.overran:
                continue
            if attempt.began + limit <= now:
                attempt.overran = True
                attempt.job.lane.overruns += 1
                found.append((attempt, statistics.median(attempt.job.lane.durations)))
            else:
                self.check_at = min(self.check_at, attempt.began + limit)
        return found
