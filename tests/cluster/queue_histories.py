"""Random histories of shared queues in virtual time: owners are killed, drained, cut off and slow, and no job is lost.

python -m tests.cluster.queue_histories FIRST_SEED NUMBER [nofence]
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections import Counter
from random import Random
from typing import Any

import trio
from trio.testing import MockClock

import iii_trio
from iii_trio.errors import CallError, ConnectionFailed
from iii_trio.testing.schedule import seeded_schedule
from iii_trio.testing.sim_stream import Conditions
from iii_trio.triggers.queue.mesh_queue import MeshQueue
from iii_trio.triggers.queue.settings import QueueConfig, QueueSettings

from .histories import NAMES, Site, Violation, _leaves
from .mesh_world import LEASE_SECONDS, MeshWorld

STEPS = 14
ALL_STEPS = ("kill", "kill", "leave", "drain", "start", "start", "cut", "mend", "apart", "down", "back", "slow", "slow")
LATE_STEPS = ("slow", "apart", "slow", "back")
"""Of histories in which many requests reach the store late."""
CLOCK_RATES = (0.9, 0.97, 1.0, 1.0, 1.03, 1.1)
"""How fast the nodes' clocks run, beside the store's. The owner stops after four fifths of its lease."""
ANSWER_SECONDS = 150.0
"""Longer than the calls of a queue wait for owners, several times in a row."""
SETTINGS = QueueSettings(concurrency=4, max_lost_deliveries=1_000, max_attempts=1_000, backoff_seconds=0.1)
QUEUES = ("jobs", "more", "mail", "orders")
"""In three of four shards."""
MODULES = {"queue": QueueConfig(queues=dict.fromkeys(QUEUES, SETTINGS), in_mesh=True, shards=4)}
ONE_SHARD = {"queue": QueueConfig(queues={"jobs": SETTINGS}, in_mesh=True, shards=1)}


class QueueHistory:
    """One history, from a seed."""

    def __init__(
        self,
        seed: int,
        *,
        checks_fences: bool = True,
        steps: tuple[str, ...] = ALL_STEPS,
        clock_rates: tuple[float, ...] = CLOCK_RATES,
    ) -> None:
        self.random = Random(seed)
        self.seed = seed
        self._kinds, self._clock_rates = steps, clock_rates
        self.transcript: list[str] = []
        self.acknowledged: set[int] = set()
        self.done: Counter[int] = Counter()
        self.refused = 0
        self._jobs = 0
        self._checks_fences = checks_fences

    def run(self) -> None:
        """Let it happen. Raises Violation."""
        with seeded_schedule(self.seed):
            trio.run(self._main, clock=MockClock(autojump_threshold=0))

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            slow = Conditions(delay_seconds=self.random.choice((0.0, 0.001, 0.05)))
            world = self.world = MeshWorld(nursery, self.seed, slow, checks_fences=self._checks_fences)
            self.sites = {name: Site(name) for name in NAMES}
            for name in NAMES:
                world.clock_rates[name] = self.random.choice(self._clock_rates)
                # Due times are dates, and the next owner may have another calendar.
                world.wall_offsets[name] = self.random.choice((-60.0, 0.0, 0.0, 60.0))
            self.down: set[str] = set()
            self.nursery = nursery
            await nursery.start(world.network.run)
            for name in NAMES:
                await self._start(name)
            nursery.start_soon(self._watch)
            for _ in range(STEPS):
                self._enqueue_from_anywhere()
                await self._step()
                await trio.sleep(self.random.choice((0.0, 0.1, 1.0, LEASE_SECONDS / 2, LEASE_SECONDS)))
            await self._end()
            nursery.cancel_scope.cancel()

    async def _start(self, name: str) -> None:
        await self.world.start(name, joins=False, modules=MODULES)
        await self.nursery.start(self.sites[name].run, self.world)
        worker = self.sites[name].worker
        assert worker is not None
        worker.register_function("job", self._do)
        self.down.discard(name)

    async def _do(self, n: int) -> None:
        await trio.sleep(self.random.choice((0.0, 0.0, 1.0, LEASE_SECONDS)))
        self.done[n] += 1

    async def _step(self) -> None:
        world, random = self.world, self.random
        name, other = random.sample(NAMES, 2)
        step = random.choice(self._kinds)
        self.transcript.append(f"{trio.current_time():.2f} {step} {name} {other}")
        up = name not in self.down
        match step:
            case "kill" | "leave" if up:
                self.down.add(name)
                await self.sites[name].stop()
                await (world.kill(name) if step == "kill" else world.stop(name))
            case "drain" if up:
                self.down.add(name)
                await world[name].engine.drain(random.choice((1.0, 3 * LEASE_SECONDS)))
                await self.sites[name].stop()
                await world.stop(name)
            case "start" if not up and not world.store.is_down:
                await self._start(name)
            case "cut":
                world.cut(name, other)
            case "mend":
                self._mend()
            case "apart":
                world.cut_from_store(name)
            case "down":
                world.store.is_down = True
            case "back":
                self._mend_store()
            case "slow":
                # Some requests come late, as over a connection that stalls, and others go past them.
                share = random.choice((0.0, 0.1, 0.3))
                world.store_delay = lambda: random.random() * (3 * LEASE_SECONDS if random.random() < share else 0.1)

    def _mend(self) -> None:
        for number, one in enumerate(NAMES):
            for other in NAMES[number + 1 :]:
                self.world.mend(one, other)

    def _mend_store(self) -> None:
        self.world.reach_store(*NAMES)
        self.world.store.is_down = False
        self.world.store_delay = None

    def _enqueue_from_anywhere(self) -> None:
        for site in self.sites.values():
            for _ in range(self.random.choice((0, 1, 5))):
                if site.worker is not None:
                    self._jobs += 1
                    self.nursery.start_soon(self._enqueue, site.worker, self._jobs)

    async def _enqueue(self, worker: iii_trio.Worker, n: int) -> None:
        try:
            with trio.fail_after(ANSWER_SECONDS):
                # Most jobs wait for a while, so that several owners in a row have to find them in the store.
                action = iii_trio.enqueue(
                    self.random.choice(QUEUES), delay_seconds=self.random.choice((None, 30.0, 90.0))
                )
                await worker.trigger("job", {"n": n}, action=action)
            self.acknowledged.add(n)
        except trio.TooSlowError:
            raise Violation(f"the enqueueing of job {n} from {worker.name} was not answered") from None
        except (CallError, ConnectionFailed):
            self.refused += 1

    async def _watch(self) -> None:
        """See that no two nodes start jobs of one shard at a time."""
        while True:
            owners = Counter(shard for node in self.world.nodes.values() for shard in owns(node.engine.modules))
            if any(count > 1 for count in owners.values()):
                raise Violation(f"several nodes own one shard at {trio.current_time():.2f}: {owners}")
            await trio.sleep(0.05)

    async def _end(self) -> None:
        """Mend everything, and see that all jobs are done that were acknowledged."""
        world = self.world
        self._mend()
        self._mend_store()
        for name in list(self.down):
            await self._start(name)
        # One more owner of each shard has to find what the store has, and not only what the last one remembers.
        await trio.sleep(4 * LEASE_SECONDS)
        for name in list(NAMES):
            await self.sites[name].stop()
            await world.kill(name)
            await trio.sleep(2 * LEASE_SECONDS)
            await self._start(name)
        await trio.sleep(8 * LEASE_SECONDS)
        shards = {name: owns(node.engine.modules) for name, node in world.nodes.items()}
        if sorted(itertools.chain(*shards.values())) != [0, 1, 2, 3] or max(len(each) for each in shards.values()) > 2:
            raise Violation(f"the shards are not spread: {shards}")
        with trio.move_on_after(600):
            while not self.acknowledged <= set(self.done) or world.store.jobs.records:  # noqa: ASYNC110 - of many objects
                await trio.sleep(0.5)
            return
        lost = sorted(self.acknowledged - set(self.done))
        raise Violation(f"jobs {lost} were acknowledged and not done; the store has {len(world.store.jobs.records)}")


def owns(modules: Any) -> list[int]:
    """Return the shards whose jobs an engine with these modules may start."""
    queue = modules.get("queue")
    return queue.owned if isinstance(queue, MeshQueue) else []


def violation_of(seed: int, **options: Any) -> str | None:
    """Run one history, and return what did not hold."""
    history = QueueHistory(seed, **options)
    try:
        history.run()
    except BaseExceptionGroup as group:
        found = group.subgroup(Violation)
        if found is None:
            raise
        return f"seed {seed}: {next(_leaves(found))}\n" + "\n".join(history.transcript)
    return None


def main() -> None:
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


if __name__ == "__main__":
    main()
