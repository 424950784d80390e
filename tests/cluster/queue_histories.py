"""Random histories of shared queues in virtual time: owners are killed, drained, cut off and slow, and no job is lost.

python -m tests.cluster.queue_histories FIRST_SEED NUMBER [nofence]
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import trio

import iii_trio
from iii_trio.errors import CallError, ConnectionFailed
from iii_trio.testing.sim_stream import Conditions
from iii_trio.triggers.queue.mesh_queue import MeshQueue
from iii_trio.triggers.queue.settings import QueueConfig, QueueSettings

from .histories import Site
from .mesh_world import LEASE_SECONDS, MeshWorld
from .random_histories import CLOCK_RATES, NAMES, RandomHistory, Violation, main, violation_in

STEPS = 14
ALL_STEPS = ("kill", "kill", "leave", "drain", "start", "start", "cut", "mend", "apart", "down", "back", "slow", "slow")
LATE: dict[str, Any] = {"steps": ("slow", "apart", "back"), "shards": 1, "late_shares": (0.3,), "delays": (90.0,)}
"""Histories in which many requests reach the store late, and jobs are there long enough for the next owners."""
ANSWER_SECONDS = 150.0
"""Longer than the calls of a queue wait for owners, several times in a row."""
SETTINGS = QueueSettings(concurrency=4, max_lost_deliveries=1_000, max_attempts=1_000, backoff_seconds=0.1)
QUEUES = ("jobs", "more", "mail", "orders")
"""In three of four shards."""
ONE_SHARD = {"queue": QueueConfig(queues={"jobs": SETTINGS}, in_mesh=True, shards=1)}


class QueueHistory(RandomHistory):
    """One history, from a seed."""

    def __init__(
        self,
        seed: int,
        *,
        checks_fences: bool = True,
        steps: tuple[str, ...] = ALL_STEPS,
        clock_rates: tuple[float, ...] = CLOCK_RATES,
        names: str = NAMES,
        shards: int = 4,
        late_shares: tuple[float, ...] = RandomHistory.late_shares,
        delays: tuple[float | None, ...] = (None, 30.0, 90.0),
    ) -> None:
        super().__init__(seed, names)
        self._kinds, self._clock_rates, self._shards = steps, clock_rates, shards
        queue = QueueConfig(queues=dict.fromkeys(QUEUES, SETTINGS), in_mesh=True, shards=shards)
        self._modules = {"queue": queue}
        self.late_shares, self._delays = late_shares, delays
        self.acknowledged: set[int] = set()
        self.done: Counter[int] = Counter()
        self.refused = 0
        self._jobs = 0
        self._checks_fences = checks_fences

    async def happen(self) -> None:
        async with trio.open_nursery() as nursery:
            slow = Conditions(delay_seconds=self.random.choice((0.0, 0.001, 0.05)))
            world = self.world = MeshWorld(nursery, self.seed, slow, checks_fences=self._checks_fences)
            self.sites = {name: Site(name) for name in self.names}
            for name in self.names:
                world.clock_rates[name] = self.random.choice(self._clock_rates)
                # Due times are dates, and the next owner may have another calendar.
                world.wall_offsets[name] = self.random.choice((-60.0, 0.0, 0.0, 60.0))
            self.down: set[str] = set()
            self.nursery = nursery
            await nursery.start(world.network.run)
            for name in self.names:
                await self._start(name)
            nursery.start_soon(self._watch)
            for _ in range(STEPS):
                self._enqueue_from_anywhere()
                await self._step()
                await trio.sleep(self.random.choice((0.0, 0.1, 1.0, LEASE_SECONDS / 2, LEASE_SECONDS)))
            await self._end()
            nursery.cancel_scope.cancel()

    async def _start(self, name: str) -> None:
        await self.world.start(name, joins=False, modules=self._modules)
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
        name, other = random.sample(self.names, 2)
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
                self.mend()
            case "apart":
                world.cut_from_store(name)
            case "down":
                world.store.is_down = True
            case "back":
                self.mend_store()
            case "slow":
                self.slow_store()

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
                queue, delay = self.random.choice(QUEUES), self.random.choice(self._delays)
                action = iii_trio.enqueue(queue, delay_seconds=delay)
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
        self.mend()
        self.mend_store()
        for name in list(self.down):
            await self._start(name)
        # One more owner of each shard has to find what the store has, and not only what the last one remembers.
        await trio.sleep(4 * LEASE_SECONDS)
        for name in self.names:
            await self.sites[name].stop()
            await world.kill(name)
            await trio.sleep(2 * LEASE_SECONDS)
            await self._start(name)
        await trio.sleep(8 * LEASE_SECONDS)
        shards = {name: owns(node.engine.modules) for name, node in world.nodes.items()}
        most, quota = max(len(each) for each in shards.values()), -(-self._shards // len(self.names))
        if sorted(itertools.chain(*shards.values())) != list(range(self._shards)) or most > quota:
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
    return violation_in(QueueHistory(seed, **options))


if __name__ == "__main__":
    main(violation_of)
