"""What callers and subscribers notice of shards that move or are lost, in virtual time (promises N21, N24 and N27)."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio.errors import CallError
from iii_trio.triggers.queue.settings import QueueSettings
from iii_trio.triggers.queue.shards import shard_of

from .mesh_world import LEASE_SECONDS, MeshWorld
from .test_cluster_queues import Jobs, call, enqueue, queue
from .test_cluster_shards import NAMES, QUEUES, SHARDS, SPREAD, is_spread, owners, queue_of, spread


async def topics_at(world: MeshWorld, node: str) -> list[str]:
    rows = (await call(world, node, "engine::queue::list"))["queues"]
    return [row["name"] for row in rows if row["kind"] == "topic"]


@pytest.mark.parametrize("extra", [{"id": 7}, {"queue": 7}, {"messageReceiptId": {}}])
async def test_N21_a_field_that_is_not_of_the_function_misleads_no_call(
    autojump_clock: MockClock, extra: dict[str, Any]
) -> None:
    async with spread("a", "b") as world, world.open_worker("a", "reader") as worker:
        read: list[int] = []

        @worker.function("read")
        async def read_one(n: int) -> None:
            read.append(n)

        topics = [f"topic-{number}" for number in range(8)]
        for topic in topics:
            worker.register_trigger("durable:subscriber", "read", config={"topic": topic})
        await worker.wait_registered()
        await world.settle()
        await trio.sleep(1)
        for number, topic in enumerate(topics):
            await call(world, "a", "iii::durable::publish", topic=topic, data={"n": number}, **extra)
        await world.until(lambda: sorted(read) == list(range(8)), 5)


async def test_N24_an_enqueue_without_a_receipt_keeps_one_job(autojump_clock: MockClock) -> None:
    async with spread("a", "b") as world:
        of_a = queue_of(world, "a")
        world.store_delay = lambda: 0.5
        async with world.open_worker("b", "client") as client, trio.open_nursery() as nursery:
            payload = {"queue": of_a, "function_id": "job", "data": {"n": 1}}
            nursery.start_soon(client.trigger, "engine::queue::enqueue", payload)
            # The store has it, and the owner does not know yet.
            await world.until(lambda: bool(world.store.jobs.records))
            await world.kill("a")
            world.store_delay = None
        assert (await call(world, "b", "engine::queue::topic_stats", queue=of_a))["depth"] == 1


@pytest.mark.parametrize("node", "bc")
async def test_N27_a_subscription_that_is_withdrawn_while_its_owner_is_lost_ends(
    autojump_clock: MockClock, node: str
) -> None:
    async with spread("a", "b", "c") as world, world.open_worker(node, "reader") as worker:
        names = (f"topic-{number}" for number in range(100))
        topic = next(name for name in names if shard_of(name, SHARDS) in owners(world)["a"])
        binding = worker.register_trigger("durable:subscriber", "read", config={"topic": topic})
        await worker.wait_registered()
        await world.settle()
        await trio.sleep(1)
        await world.kill("a")
        binding.unregister()
        await world.until(lambda: is_spread(world, 3, 3))
        await trio.sleep(1)
        assert await topics_at(world, "b") == []


async def test_N27_subscriptions_that_are_withdrawn_while_shards_move_end(autojump_clock: MockClock) -> None:
    async with spread("a") as world, world.open_worker("a", "reader") as worker:
        bindings = [
            worker.register_trigger("durable:subscriber", "read", config={"topic": f"topic-{number}"})
            for number in range(20)
        ]
        await worker.wait_registered()
        await world.settle()
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: world.start("b", modules=SPREAD))
            for binding in bindings:
                binding.unregister()
                await trio.sleep(0.17)
        await world.until(lambda: is_spread(world, 3, 3))
        await trio.sleep(1)
        assert await topics_at(world, "b") == []


async def test_new_queues_are_there_where_a_shard_was_loaded_meanwhile(autojump_clock: MockClock) -> None:
    fresh = [f"fresh-{number}" for number in range(8)]
    async with spread("a", "b") as world:
        world.store_delay = lambda: 0.3
        await world.kill("a")
        there = queue(world, "b")
        await world.until(lambda: any(owner.lease.number and owner.queue is None for owner in there.shards))
        there.reconfigure(attrs.evolve(SPREAD["queue"], queues={**QUEUES, **dict.fromkeys(fresh, QueueSettings())}))
        await world.until(lambda: is_spread(world, 6))
        for name in fresh:
            await enqueue(world, "b", 1, queue=name)


async def test_N24_who_waits_for_a_job_is_answered_as_its_shard_moves(autojump_clock: MockClock) -> None:
    async with (
        spread("a") as world,
        world.open_worker("a", "worker") as worker,
        world.open_worker("a", "client") as client,
    ):
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        jobs.gate = trio.Event()
        ends: dict[int, Any] = {}

        async def wait(number: int, receipt: iii_trio.Receipt) -> None:
            try:
                ends[number] = await receipt.wait()
            except CallError as error:
                ends[number] = error.code

        async with trio.open_nursery() as nursery:
            for number, name in enumerate(NAMES):
                action = iii_trio.enqueue(name, keep_result_seconds=60)
                nursery.start_soon(wait, number, await client.trigger("job", {"n": number}, action=action))
            await world.until(lambda: jobs.running == len(NAMES))
            await world.start("b", modules=SPREAD)
            await trio.sleep(LEASE_SECONDS / 2)
            jobs.gate.set()
        assert ends == {number: number for number in range(len(NAMES))}


async def test_N24_a_node_without_the_store_says_so_and_blames_no_owner(autojump_clock: MockClock) -> None:
    async with spread("a", "b") as world:
        of_b = queue_of(world, "b")
        world.cut_from_store("a", "b")
        await trio.sleep(2 * LEASE_SECONDS)
        with pytest.raises(CallError, match=r"it is not known who owns shard .*, because .*the network is cut"):
            await call(world, "b", "engine::queue::topic_stats", queue=of_b)
