"""Random histories of a mesh in virtual time: what happens to it, and what has to hold at its end.

python -m tests.cluster.histories FIRST_SEED NUMBER [nofence]
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

import iii_trio
from iii_trio.errors import CallError, ConnectionFailed
from iii_trio.testing.sim_stream import Conditions
from iii_trio.triggers.cluster.records import FUNCTION, Key

from .mesh_world import LEASE_SECONDS, MeshWorld
from .random_histories import CLOCK_RATES, NAMES, RandomHistory, Violation, main, violation_in

FUNCTIONS = tuple(f"f::{number}" for number in range(4))
STEPS = 14
WORKER_NAMES = ("left", "right")
"""Names that workers of any nodes claim."""
ALL_STEPS = (
    "toggle", "toggle", "toggle", "kill", "leave", "start", "cut", "silence", "mend", "store", "slow", "lose",
    "claim", "claim", "yield",
)  # fmt: skip
LATE_STEPS = ("toggle", "toggle", "toggle", "toggle", "slow", "store", "start", "kill")
"""Of histories in which many requests reach the store late."""
ANSWER_SECONDS = 120.0
"""Longer than two leases and all pauses."""
ASKING_SECONDS = 30.0
"""Longer than it takes to ask whether the holder of a name is alive, and to hear the answer."""


class Site:
    """One node with a worker that offers some functions, and comes and goes with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.worker: iii_trio.Worker | None = None
        self.offered: dict[str, iii_trio.Registered] = {}
        self._scope = trio.CancelScope()
        self._over = trio.Event()

    async def run(self, world: MeshWorld, *, task_status: trio.TaskStatus[None]) -> None:
        self._over = trio.Event()
        try:
            with trio.CancelScope() as self._scope:
                async with world.nodes[self.name].engine.open_worker(f"worker {self.name}") as self.worker:
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self.worker, self.offered = None, {}
            self._over.set()

    async def stop(self) -> None:
        self._scope.cancel()
        await self._over.wait()

    def toggle(self, function_id: str) -> None:
        """Offer a function, or take it back."""
        if (registered := self.offered.pop(function_id, None)) is not None:
            registered.unregister()
        elif self.worker is not None:
            self.offered[function_id] = self.worker.register_function(function_id, _answer(self.name))


class Claim:
    """A worker at a node that claims a name, until it is refused, leaves, or its node stops."""

    def __init__(self, node: str, name: str) -> None:
        self.node, self.name = node, name
        self.has_name = False
        self.refused_at: float | None = None
        self.left_at: float | None = None
        self._scope = trio.CancelScope()
        self._over = trio.Event()

    async def run(self, world: MeshWorld, *, task_status: trio.TaskStatus[None]) -> None:
        started = False
        try:
            with self._scope:
                async with world.nodes[self.node].engine.open_worker(self.name):
                    self.has_name = started = True
                    task_status.started()
                    await trio.sleep_forever()
        except* ConnectionFailed:  # Rejected, which it is too
            self.refused_at = trio.current_time()
        finally:
            if self.has_name and self.refused_at is None:
                self.left_at = trio.current_time()
            self.has_name = False
            self._over.set()
        # One of its own node has the name.
        if not started:
            task_status.started()

    async def leave(self) -> None:
        self._scope.cancel()
        await self._over.wait()


def _answer(name: str) -> Callable[[], Awaitable[str]]:
    async def answer() -> str:
        return name

    return answer


class History(RandomHistory):
    """One history, from a seed."""

    def __init__(
        self, seed: int, *, checks_fences: bool = True, steps: tuple[tuple[str, ...], ...] = (ALL_STEPS, LATE_STEPS)
    ) -> None:
        super().__init__(seed)
        self._kinds = steps
        self.calls = self.failed = 0
        self._checks_fences = checks_fences

    async def happen(self) -> None:
        async with trio.open_nursery() as nursery:
            slow = Conditions(delay_seconds=self.random.choice((0.0, 0.001, 0.2)))
            world = self.world = MeshWorld(nursery, self.seed, slow, checks_fences=self._checks_fences, log_length=20)
            self.steps = self.random.choice(self._kinds)
            self.sites = {name: Site(name) for name in NAMES}
            self.claims: list[Claim] = []
            for name in NAMES:
                world.clock_rates[name] = self.random.choice(CLOCK_RATES)
                world.wall_offsets[name] = self.random.choice((-3600.0, 0.0, 0.0, 86_400.0))
            self.down: set[str] = set()
            await nursery.start(world.network.run)
            self.nursery = nursery
            for name in NAMES:
                await self._start(name)
            for _ in range(STEPS):
                self._call_from_anywhere()
                await self._step()
                await trio.sleep(self.random.choice((0.0, 0.01, 0.5, 2.0, LEASE_SECONDS)))
            await self._end()
            nursery.cancel_scope.cancel()

    async def _start(self, name: str) -> None:
        await self.world.start(name, joins=False)
        await self.nursery.start(self.sites[name].run, self.world)
        self.down.discard(name)

    async def _step(self) -> None:
        world, random = self.world, self.random
        name, other = random.sample(NAMES, 2)
        step = random.choice(self.steps)
        self.transcript.append(f"{trio.current_time():.2f} {step} {name} {other}")
        up = name not in self.down
        if step == "toggle" and up:
            self.sites[name].toggle(random.choice(FUNCTIONS))
        elif step in ("kill", "leave") and up:
            self.down.add(name)
            await self.sites[name].stop()
            for claim in self.claims:
                if claim.node == name:
                    await claim.leave()
            await (world.kill(name) if step == "kill" else world.stop(name))
        elif step == "start" and not up and not world.store.is_down:
            await self._start(name)
        elif step == "claim" and up:
            self.claims.append(Claim(name, random.choice(WORKER_NAMES)))
            await self.nursery.start(self.claims[-1].run, world)
        elif step == "yield" and (holders := [each for each in self.claims if each.has_name]):
            await random.choice(holders).leave()
        elif step == "cut":
            world.cut(name, other)
        elif step == "silence":
            world.silence(name, other)
        elif step == "mend":
            self.mend()
        elif step == "store":
            which = random.choice(("down", "apart", "back"))
            if which == "apart":
                world.cut_from_store(name)
            elif which == "down":
                world.store.is_down = True
            else:
                self.mend_store()
        elif step == "slow":
            self.slow_store()
        elif step == "lose" and random.random() < 0.3:
            world.store.lose_everything()

    def _call_from_anywhere(self) -> None:
        for site in self.sites.values():
            if site.worker is not None:
                self.nursery.start_soon(self._call, site.worker, self.random.choice(FUNCTIONS))

    async def _call(self, worker: iii_trio.Worker, function_id: str) -> None:
        self.calls += 1
        try:
            with trio.fail_after(ANSWER_SECONDS):
                await worker.trigger(function_id)
        except trio.TooSlowError:
            raise Violation(f"a call of {function_id} from {worker.name} was not answered") from None
        except (CallError, ConnectionFailed):
            self.failed += 1

    async def _end(self) -> None:
        """Mend everything, and look at what is there."""
        world = self.world
        self.mend()
        self.mend_store()
        for name in list(self.down):
            await self._start(name)
        # A request that was given up long ago may still be on its way to the store.
        await trio.sleep(5 * LEASE_SECONDS)
        try:
            await world.until(lambda: world.agreed, 60)
        except trio.TooSlowError:
            raise Violation(f"the nodes do not agree: {self._describe()}") from None
        snapshot = world.store.snapshot()
        for name, node in world.nodes.items():
            for key, offers in ((key, node.cluster.directory.offers(key)) for key in node.cluster.directory):
                stored = {each: rows[key] for each, rows in snapshot.offers.items() if key in rows}
                if dict(offers) != stored:
                    raise Violation(f"{name} believes of {key.id} {offers}, and the store {stored}")
        for function_id in FUNCTIONS:
            await self._check(function_id)
        for worker_name in WORKER_NAMES:
            await self._check_name(worker_name)
        for name, node in world.nodes.items():
            if any(link.calls for link in node.cluster.links.values()):
                raise Violation(f"{name} keeps calls that have ended")

    async def _check(self, function_id: str) -> None:
        """Call a function from every node: someone who offers it has to answer, or nobody does."""
        offering = {site.name for site in self.sites.values() if function_id in site.offered}
        listed = {
            name for name, _ in self.world.nodes["a"].cluster.directory.offers(Key(FUNCTION, "default", function_id))
        }
        if not listed <= offering:
            raise Violation(f"{function_id} is offered by {sorted(offering)}, and the directory says {sorted(listed)}")
        for site in self.sites.values():
            assert site.worker is not None
            try:
                with trio.fail_after(ANSWER_SECONDS):
                    answer = await site.worker.trigger(function_id)
            except CallError as error:
                if offering or error.code != "function_not_found":
                    raise Violation(
                        f"{function_id}, offered by {sorted(offering)}, from {site.name}: {error}"
                    ) from None
            else:
                if answer not in offering:
                    raise Violation(f"{function_id} was answered by {answer}, which does not offer it")

    async def _check_name(self, worker_name: str) -> None:
        """See that one worker has a name, if any claimed it and none that had it has left since (promise N30)."""
        claims = [each for each in self.claims if each.name == worker_name]

        def holders() -> list[str]:
            return [each.node for each in claims if each.has_name]

        try:
            await self.world.until(lambda: len(holders()) <= 1, ASKING_SECONDS)
        except trio.TooSlowError:
            raise Violation(f"workers at {holders()} have the name {worker_name}") from None
        refused = max((each.refused_at for each in claims if each.refused_at is not None), default=-math.inf)
        left = max((each.left_at for each in claims if each.left_at is not None), default=-math.inf)
        if not holders() and refused > left + ASKING_SECONDS:
            raise Violation(f"all workers that claimed the name {worker_name} were refused")

    def _describe(self) -> str:
        world = self.world
        return (
            "; ".join(
                f"{name}: joined={node.cluster.joined} nodes={sorted(node.cluster.directory.nodes)} "
                f"links={[(each, link.state.current.name) for each, link in node.cluster.links.items()]} "
                f"at {node.cluster.directory.position}"
                for name, node in world.nodes.items()
            )
            + f"; store at {world.store.epoch}.{world.store.number} with {sorted(world.store.nodes)}"
        )


def violation_of(seed: int, **options: Any) -> str | None:
    """Run one history, and return what did not hold."""
    return violation_in(History(seed, **options))


if __name__ == "__main__":
    main(violation_of)
