"""What a round tries: who is killed, when, and what is wanted meanwhile. Drawn from a seed."""

from __future__ import annotations

from importlib.util import find_spec
from random import Random
from typing import Final, Literal, TypeAlias

import attrs

Deed: TypeAlias = Literal[
    "kill engine", "drain engine", "close engine", "kill a", "kill b", "leave a", "leave b", "fill disk"
]
Conduct: TypeAlias = Literal["well", "flaky", "doomed", "poison"]
Mishap: TypeAlias = Literal["none", "leaves", "disk", "poison", "settings", "clock", "rows", "log"]
"""What else befalls a round: workers leave cleanly in the middle of jobs; the disk is full for a while; a job kills each
worker that runs it; queues are changed or gone after a restart; the calendar's clock is another one after it; a row, or the
write-ahead log, is damaged before it."""

WORKERS: Final = ("a", "b")
MAX_ATTEMPTS: Final = 3
MISHAPS: Final[tuple[Mishap, ...]] = ("none", "leaves", "disk", "poison", "settings", "clock", "rows", "log")
ENDS_OF_THE_ENGINE: Final = frozenset({"kill engine", "drain engine", "close engine"})


@attrs.frozen
class Stream:
    """One who wants work done: one after the other, each with a number."""

    kind: Literal["plain", "fifo", "topic"]
    group: str


STREAMS: Final = (
    *(Stream("plain", f"p{i}") for i in range(4)),
    *(Stream("fifo", f"f{i}") for i in range(4)),
    *(Stream("topic", f"t{i}") for i in range(3)),
)


@attrs.frozen
class Plan:
    """A round."""

    seed: int
    deeds: tuple[tuple[float, Deed], ...]
    """What is done, and how many seconds after the one before."""
    after_seconds: float
    """How long there is more work after the last of them."""
    mishap: Mishap = "none"

    @classmethod
    def draw(cls, seed: int) -> Plan:
        rng = Random(seed)
        deeds: list[Deed] = [
            rng.choices(("kill engine", "drain engine", "close engine"), (8, 1, 1))[0] for _ in range(rng.randint(1, 2))
        ]
        if rng.random() < 2 / 3:  # the others show that an engine's end costs nothing
            deeds += [rng.choice(("kill a", "kill b")) for _ in range(rng.randint(1, 3))]
        mishap = MISHAPS[seed // 2 % len(MISHAPS)] if seed % 2 == 0 else "none"
        if mishap in ("leaves", "poison"):  # a worker that is killed, too, would hide what a job loses by these
            deeds = [deed for deed in deeds if deed in ENDS_OF_THE_ENGINE]
        if mishap == "leaves":
            deeds += [rng.choice(("leave a", "leave b")) for _ in range(rng.randint(2, 5))]
        if mishap == "disk":
            deeds += ["fill disk"] * rng.randint(1, 2)
        if mishap in ("rows", "log") and "kill engine" not in deeds:
            deeds.append("kill engine")
        rng.shuffle(deeds)
        return cls(seed, tuple((_pause(rng), deed) for deed in deeds), rng.uniform(0.0, 0.2), mishap)

    @property
    def of_the_sdk(self) -> str | None:
        """Which worker is one on iii's Python SDK, where it is installed: one in every other round."""
        return WORKERS[self.seed // 2 % 2] if self.seed % 2 and find_spec("iii") is not None else None

    @property
    def lost_allowed(self) -> int:
        """How many workers a job may lose: where none is killed, a single one that is counted kills the job."""
        if self.mishap == "poison":
            return 3
        return 1000 if any(deed.startswith("kill ") and deed not in ENDS_OF_THE_ENGINE for _, deed in self.deeds) else 1


def _pause(rng: Random) -> float:
    return rng.choice((rng.uniform(0.0, 0.05), rng.uniform(0.05, 0.5), rng.uniform(0.3, 1.5)))


def conduct_of(rng: Random) -> Conduct:
    """How the handler of a job is to behave: as it should; fail its first attempt; fail them all."""
    return rng.choices(("well", "flaky", "doomed"), (90, 8, 2))[0]
