"""What came of a round: is each promise kept? Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from .plan import MAX_ATTEMPTS, Conduct

ORDERED: Final = ("fifo", "topic-b")


@attrs.frozen(order=True)
class Line:
    """A line of a worker's log."""

    at_ns: int
    what: str
    """`began`, `done`, or `failed`."""
    key: str
    attempt: int

    @classmethod
    def parse(cls, text: str) -> Line:
        at_ns, what, key, attempt = text.split()
        return cls(int(at_ns), what, key, int(attempt))


@attrs.define
class Tally:
    """How much there was, and what was wrong with it."""

    promised: int = 0
    done: int = 0
    dead: int = 0
    redeliveries: int = 0
    """Calls of a job beyond those that its own failures are worth."""
    problems: list[str] = attrs.field(factory=list)


def judge(
    wanted: Mapping[str, Conduct],
    promised: AbstractSet[str],
    dead: AbstractSet[str],
    lines: Iterable[Line],
    excused: AbstractSet[str] = frozenset(),
) -> Tally:
    """Hold what the workers say against what was promised to the clients. Of those that are excused, nothing is."""
    lines = sorted(lines)
    began, failed = Counter[str](), Counter[str]()
    over: set[str] = set()
    newest: dict[str, int] = defaultdict(int)
    waiting: dict[str, set[int]] = defaultdict(set)
    for key in promised - excused:
        stream, _, number = key.rpartition("/")
        waiting[stream].add(int(number))
    tally = Tally(promised=len(promised), dead=len(dead))
    wrong = tally.problems.append
    for line in lines:
        stream, _, number = line.key.rpartition("/")
        if line.what != "began":
            failed[line.key] += line.what == "failed"
            if line.what == "done" or failed[line.key] >= MAX_ATTEMPTS:
                over.add(line.key)
                waiting[stream].discard(int(number))
            continue
        began[line.key] += 1
        if line.key not in wanted:
            wrong(f"{line.key} was begun, and nobody wanted it")
        if line.attempt > 1 + failed[line.key]:
            wrong(f"{line.key} was begun as attempt {line.attempt} after {failed[line.key]} failures")
        if line.key.startswith(ORDERED):
            n = int(number)
            if n < newest[stream]:
                wrong(f"{line.key} was begun after {newest[stream]} of its group")
            if before := [earlier for earlier in waiting[stream] if earlier < n]:
                wrong(f"{line.key} was begun before {min(before)} of its group had ended")
            newest[stream] = max(newest[stream], n)
    tally.done = len(over)
    tally.redeliveries = sum(calls - 1 - min(failed[key], calls - 1) for key, calls in began.items())
    poisonous = {key for key, conduct in wanted.items() if conduct == "poison"}
    for key in sorted(promised - over - excused - (poisonous & dead)):
        wrong(f"{key} was promised, and never done")
    for key in sorted(dead):
        if key in poisonous:
            continue
        if wanted.get(key) != "doomed":
            wrong(f"{key} is a dead letter, and has done nothing to be one")
        elif failed[key] < MAX_ATTEMPTS:
            wrong(f"{key} is a dead letter after {failed[key]} failures")
    for key in sorted(key for key in promised if wanted[key] == "doomed" and key not in dead | excused):
        wrong(f"{key} can never succeed, and is not a dead letter")
    return tally
