"""What a real soak is asked for, and what came of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import attrs

from .plot import draw
from .samples import SHORTEST, Sample, Verdict


@attrs.frozen
class Soak:
    """How long, how much. Times are in seconds, sizes in bytes."""

    seconds: float = 3600.0
    round_seconds: float = 180.0
    sample_seconds: float = 5.0
    seed: int = 0
    workers: int = 6
    """How many are there at a time, beside an idle one and one on iii's Python SDK."""
    load: float = 0.33
    """Cores that all processes together may use in the mean."""
    mischief_seconds: float = 5.0
    """The mean time between two things that are done to the workers."""
    empty_seconds: float = 20.0
    """What the engine has to forget workers that have gone, and to end when told to."""
    max_per_hour: float = 1 << 20
    """How much the line of memory may rise in an hour."""
    max_blocks_per_hour: float = 5_000.0

    @property
    def longest_stream(self) -> float:
        """What the slowest streams take."""
        return min(10.0, self.round_seconds / 6)

    @property
    def warm_up(self) -> float:
        """What is not judged: a sixth."""
        return self.seconds / 6


@attrs.frozen
class Played:
    """What came of it."""

    soak: Soak
    seconds: float
    baseline: Sample
    samples: tuple[Sample, ...]
    verdict: Verdict
    counts: Counter[str]
    """Of streams, calls, outcomes, and of what was done to the workers."""
    stream_bytes: int
    cores: float
    """Used by all processes, in the mean."""
    log_lines: Counter[str]
    problems: tuple[str, ...]
    """Broken promises, in sentences."""

    @property
    def summary(self) -> str:
        """What was done and found, in a line."""
        counts, verdict = self.counts, self.verdict
        memory = f"memory {verdict.memory_first / 2**20:.1f} to {verdict.memory_last / 2**20:.1f} MiB"
        if verdict.judged_seconds < SHORTEST:
            memory += ", too short a time to judge it by"
        else:
            memory += (
                f", slope {verdict.memory_per_hour / 2**20:+.2f} MiB and {verdict.blocks_per_hour:+.0f} blocks an hour "
                f"over {verdict.judged_seconds / 60:.0f} min"
            )
        done = ", ".join(
            f"{counts[f'worker {what}']} {what}" for what in ("started", "killed", "sent away", "stopped", "cut")
        )
        return (
            f"{self.seconds / 60:.1f} min: {counts['stream']} streams ({self.stream_bytes / 2**20:.0f} MiB, "
            f"{counts['stream that was disturbed']} of them disturbed), {counts['call']} calls; workers: {done}; "
            f"{verdict.quiet} times empty; {memory}; "
            f"{self.cores:.2f} cores in the mean; "
            + (f"{len(self.problems)} promises broken" if self.problems else "no promise broken")
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, for later."""
        columns = [field.name for field in attrs.fields(Sample)]
        return {
            "soak": attrs.asdict(self.soak),
            "seconds": self.seconds,
            "summary": self.summary,
            "problems": list(self.problems),
            "verdict": attrs.asdict(self.verdict),
            "counts": dict(sorted(self.counts.items())),
            "stream_bytes": self.stream_bytes,
            "cores": self.cores,
            "log_lines": dict(self.log_lines.most_common()),
            "baseline": attrs.asdict(self.baseline),
            "columns": columns,
            "samples": [list(attrs.astuple(each)) for each in self.samples],
        }


def write_down(played: Played, folder: Path) -> None:
    """The samples, counts and findings as `soak.json`, the plot as `soak.svg`."""
    (folder / "soak.json").write_text(json.dumps(played.to_json()) + "\n")
    (folder / "soak.svg").write_text(draw(played.samples, played.soak.warm_up))
