"""Random histories of shared queues, a few here and more with III_CLUSTER_HISTORIES=N, and what fencing is for."""

from __future__ import annotations

import os
from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from .mesh_world import LEASE_SECONDS
from .queue_histories import LATE, ONE_SHARD, owns, violation_of
from .test_cluster_queues import enqueue, owner, shared

NUMBER = int(os.environ.get("III_CLUSTER_HISTORIES", "15"))


@pytest.mark.slow
def test_N23_histories_of_lost_owners_lose_no_acknowledged_job() -> None:
    assert [found for seed in range(NUMBER) if (found := violation_of(seed)) is not None] == []


@pytest.mark.slow
def test_N22_a_split_brain_is_found_where_the_store_does_not_check_fencing_numbers() -> None:
    # Of such histories the second had one, after 4 s of CPU.
    assert any(violation_of(seed, checks_fences=False, **LATE) is not None for seed in range(40))


@pytest.mark.parametrize(("clock_rate", "is_safe"), [(0.85, True), (0.5, False)])
async def test_N25_an_owner_whose_clock_is_slow_stops_in_time_up_to_a_fifth(
    autojump_clock: MockClock, clock_rate: float, is_safe: bool
) -> None:
    async with shared() as world:
        world.clock_rates["a"] = clock_rate
        for name in "ab":
            await world.start(name, modules=ONE_SHARD)
        await world.settle()
        await world.until(lambda: owner(world) == "a")
        world.cut_from_store("a")
        most = 0
        with trio.move_on_after(3 * LEASE_SECONDS):
            while True:
                most = max(most, sum(len(owns(node.engine.modules)) for node in world.nodes.values()))
                await trio.sleep(0.05)
        assert owns(world["b"].engine.modules)
        # A clock that runs at half the speed is beyond what is promised, and shows that the simulation has clocks.
        assert most == (1 if is_safe else 2)


@pytest.mark.parametrize("checks_fences", [True, False])
async def test_N22_a_late_write_of_an_earlier_owner_costs_no_job_because_it_is_fenced(
    autojump_clock: MockClock, checks_fences: bool
) -> None:
    done: Counter[int] = Counter()
    async with (
        shared("a", "b", "c", checks_fences=checks_fences) as world,
        world.open_worker("c", "worker") as worker,
        trio.open_nursery() as nursery,
    ):

        @worker.function("job")
        async def job(n: int) -> None:
            done[n] += 1

        await worker.wait_registered()
        await world.settle()
        # The write of the first job is on its way for three leases, and its owner can do nothing meanwhile.
        world.store_delay = lambda: 3 * LEASE_SECONDS
        first = trio.CancelScope()

        async def enqueue_first() -> None:
            with first:
                await enqueue(world, "a", 1, delay_seconds=300)

        nursery.start_soon(enqueue_first)
        await trio.sleep(0.5)
        world.store_delay = None
        first.cancel()
        world.cut_from_store("a", "c")
        await world.until(lambda: owner(world) == "b")
        world.reach_store("c")
        await enqueue(world, "c", 2, delay_seconds=200)
        await trio.sleep(6 * LEASE_SECONDS)
        # The next owner knows what the store has, and nothing else.
        await world.kill("b")
        await world.until(lambda: owner(world) == "c")
        await trio.sleep(400)
        assert (done[2] == 1) is checks_fences
