"""What the engine holds, sampled; and the judgement whether anything of it grows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

import attrs

COUNTED: Final = (
    "sockets", "files", "tasks", "sessions", "connections", "functions", "trigger_types", "bindings", "calls",
    "channels", "attached_channels",
)  # fmt: skip
"""What has to be as it was in the beginning whenever all workers have gone."""
SHORTEST: Final = 600.0
"""Seconds of samples, after the warm-up, from which a slope says something."""
_MAX_PAIRS: Final = 400  # points that the slope is taken of: all pairs of them


@attrs.frozen
class Sample:
    """One moment. Sizes are bytes; `cpu` and `load` are the cores that the engine and everybody use, as last measured."""

    at: float
    """Seconds since the beginning."""
    quiet: bool
    """Whether all workers had gone."""
    memory: int
    memory_blocks: int
    files: int
    sockets: int
    tasks: int
    sessions: int
    connections: int
    functions: int
    trigger_types: int
    bindings: int
    calls: int
    channels: int
    attached_channels: int
    cpu: float
    load: float
    workers: int
    """Processes."""


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How steep a line through these is: the median of the slopes of all pairs (Theil and Sen), so outliers say nothing."""
    step = max(1, len(points) // _MAX_PAIRS)
    points = points[::step]
    slopes = [
        (b - a) / (then - now) for index, (now, a) in enumerate(points) for then, b in points[index + 1 :] if then > now
    ]
    return median(slopes) if slopes else 0.0


@attrs.frozen
class Verdict:
    """What the samples say."""

    judged_seconds: float
    """How much of it the slopes are of: what is after the warm-up."""
    memory_first: int
    """Bytes, the median of the first tenth of that."""
    memory_last: int
    """Bytes, the median of its last tenth."""
    memory_per_hour: float
    """Bytes: the slope of the line."""
    blocks_per_hour: float
    quiet: int
    """How often all workers had gone."""
    problems: tuple[str, ...]


def judge(
    samples: Sequence[Sample], baseline: Sample, *, warm_up: float, max_per_hour: float, max_blocks_per_hour: float
) -> Verdict:
    """Judge the samples of one engine. `warm_up` is in seconds, `max_per_hour` in bytes."""
    problems = [*_left_behind(samples, baseline)]
    judged = [each for each in samples if each.at >= warm_up]
    seconds = judged[-1].at - judged[0].at if judged else 0.0
    memory = 3600 * slope([(each.at, each.memory) for each in judged])
    blocks = 3600 * slope([(each.at, each.memory_blocks) for each in judged])
    if seconds >= SHORTEST and memory > max_per_hour:
        problems.append(f"memory grows by {memory / 2**20:.2f} MiB an hour; {max_per_hour / 2**20:g} is allowed")
    if seconds >= SHORTEST and blocks > max_blocks_per_hour:
        problems.append(f"memory grows by {blocks:.0f} blocks an hour; {max_blocks_per_hour:g} are allowed")
    tenth = max(1, len(judged) // 10)
    return Verdict(
        judged_seconds=seconds,
        memory_first=int(median(each.memory for each in judged[:tenth])) if judged else 0,
        memory_last=int(median(each.memory for each in judged[-tenth:])) if judged else 0,
        memory_per_hour=memory,
        blocks_per_hour=blocks,
        quiet=sum(each.quiet for each in samples),
        problems=tuple(problems),
    )


def differences(sample: Sample, baseline: Sample) -> Iterator[str]:
    """What is not as it was in the beginning."""
    for what in COUNTED:
        was, is_ = getattr(baseline, what), getattr(sample, what)
        if is_ != was:
            yield f"{is_} {what.replace('_', ' ')} instead of {was}"


def _left_behind(samples: Sequence[Sample], baseline: Sample) -> Iterator[str]:
    for sample in samples:
        if sample.quiet and (left := ", ".join(differences(sample, baseline))):
            yield f"after {sample.at:.0f} s all workers had gone, and the engine held {left}"
