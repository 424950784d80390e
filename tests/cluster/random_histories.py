"""Random histories of a mesh in virtual time, each from a seed: how they are run, and how what did not hold is told."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

import trio
from trio.testing import MockClock

from iii_trio.testing.schedule import seeded_schedule

from .mesh_world import LEASE_SECONDS, MeshWorld

NAMES: Final = "abc"
CLOCK_RATES: Final = (0.9, 0.97, 1.0, 1.0, 1.03, 1.1)
"""How fast the nodes' clocks run, beside the store's. An owner of queues stops after four fifths of its lease."""


class Violation(AssertionError):
    """Something that must hold did not."""


class RandomHistory:
    """One history. A subclass says what happens, and raises Violation."""

    world: MeshWorld
    late_shares: tuple[float, ...] = (0.0, 0.1, 0.3)
    """Of the requests to a slow store, those that are late."""

    def __init__(self, seed: int, names: str = NAMES) -> None:
        self.seed = seed
        self.names = names
        self.random = Random(seed)
        self.transcript: list[str] = []

    def run(self) -> None:
        """Let it happen. Raises Violation."""
        with seeded_schedule(self.seed):
            trio.run(self.happen, clock=MockClock(autojump_threshold=0))

    async def happen(self) -> None:
        """Do random steps, mend everything, and look at what is there."""
        raise NotImplementedError

    def mend(self) -> None:
        """Let all nodes reach each other again."""
        for number, one in enumerate(self.names):
            for other in self.names[number + 1 :]:
                self.world.mend(one, other)
                self.world.hear(one, other)

    def mend_store(self) -> None:
        """Let all nodes reach the store again."""
        self.world.reach_store(*self.names)
        self.world.store.is_down = False
        self.world.store_delay = None

    def slow_store(self) -> None:
        """Have some requests reach the store late, as over a connection that stalls. Others go past them."""
        random = self.random
        share = random.choice(self.late_shares)
        self.world.store_delay = lambda: random.random() * (3 * LEASE_SECONDS if random.random() < share else 0.1)


def violation_in(history: RandomHistory) -> str | None:
    """Run one history, and return what did not hold."""
    try:
        history.run()
    except BaseExceptionGroup as group:
        found = group.subgroup(Violation)
        if found is None:
            raise
        return f"seed {history.seed}: {next(_leaves(found))}\n" + "\n".join(history.transcript)
    return None


def _leaves(group: BaseException) -> Iterator[BaseException]:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    yield group


def main(violation_of: Callable[..., str | None]) -> None:
    """Run the histories that the command line asks for, until one does not hold."""
    logging.disable(logging.CRITICAL)
    first, number = int(sys.argv[1]), int(sys.argv[2])
    began = time.process_time()
    for seed in range(first, first + number):
        found = violation_of(seed, checks_fences="nofence" not in sys.argv)
        if found is not None:
            print(found)
            print(f"after {seed - first + 1} histories, {time.process_time() - began:.1f} s of CPU")
            raise SystemExit(1)
    print(f"{number} histories without a violation, {time.process_time() - began:.1f} s of CPU")
