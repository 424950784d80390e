"""How the queues of a mesh spread over its nodes, in virtual time (promises N32 to N34 of docs/cluster.md)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio.errors import CallError
from iii_trio.triggers.queue.settings import QueueConfig, QueueSettings
from iii_trio.triggers.queue.shards import shard_of, shards_in_words

from .mesh_world import LEASE_SECONDS, MeshWorld, mesh_world
from .test_cluster_queues import FAILOVER_SECONDS, Jobs, call, enqueue, queue

SHARDS = 6
NAMES = tuple(f"queue-{number}" for number in range(12))
QUEUES = {name: QueueSettings(concurrency=3, backoff_seconds=0.1, max_attempts=1) for name in NAMES}
SPREAD = {"queue": QueueConfig(queues=QUEUES, in_mesh=True, shards=SHARDS)}
SPREAD_SECONDS = 2 * LEASE_SECONDS
"""What docs/cluster.md says of a node that joins, where no job runs."""


def owners(world: MeshWorld) -> dict[str, list[int]]:
    """The shards whose jobs each node may start. No shard is of two nodes."""
    found = {name: queue(world, name).owned for name in world.nodes if "queue" in world[name].engine.modules}
    assert max(Counter(shard for shards in found.values() for shard in shards).values(), default=1) == 1
    return found


def is_spread(world: MeshWorld, *counts: int) -> bool:
    return sorted(len(shards) for shards in owners(world).values()) == sorted(counts)


def queue_of(world: MeshWorld, node: str) -> str:
    """A queue of a shard that this node owns."""
    return next(name for name in NAMES if shard_of(name, SHARDS) in owners(world)[node])


@asynccontextmanager
async def spread(*names: str, config: dict[str, Any] = SPREAD, **store: Any) -> AsyncIterator[MeshWorld]:
    """Open a mesh whose nodes have all taken their parts."""
    async with mesh_world(**store) as world:
        for name in names:
            await world.start(name, modules=config)
        await world.until(lambda: is_spread(world, *[SHARDS // len(names)] * len(names)))
        await world.settle()
        yield world


def test_names_are_of_all_shards_and_stay_there() -> None:
    assert {shard_of(f"queue {number}", 16) for number in range(200)} == set(range(16))
    # A name has to be in the same shard for every version, for its jobs are there.
    assert [shard_of(name, 16) for name in ("jobs", "mail", "default", "ü", "")] == [5, 8, 15, 5, 0]


def test_shards_are_named_by_ranges() -> None:
    assert shards_in_words([7, 0, 1, 2, 4]) == "0-2, 4, 7"
    assert shards_in_words([]) == ""


async def test_N32_nodes_that_join_get_their_parts(autojump_clock: MockClock) -> None:
    async with mesh_world() as world:
        await world.start("a", modules=SPREAD)
        await world.until(lambda: is_spread(world, 6))
        await world.start("b", modules=SPREAD)
        await world.until(lambda: is_spread(world, 3, 3), SPREAD_SECONDS)
        await world.start("c", modules=SPREAD)
        await world.until(lambda: is_spread(world, 2, 2, 2), SPREAD_SECONDS)
        before = owners(world)
        await trio.sleep(5 * LEASE_SECONDS)
        assert owners(world) == before  # nothing moves without a reason


async def test_N32_one_shard_at_a_time_is_handed_over(autojump_clock: MockClock) -> None:
    async with spread("a", config=SPREAD) as world:
        least = SHARDS
        async with trio.open_nursery() as nursery:
            await world.start("b", modules=SPREAD)

            @nursery.start_soon
            async def look() -> None:
                nonlocal least
                while not is_spread(world, 3, 3):
                    least = min(least, sum(len(shards) for shards in owners(world).values()))
                    await trio.sleep(0.01)

        assert least == SHARDS - 1


async def test_N32_jobs_that_run_end_before_their_shard_moves(autojump_clock: MockClock) -> None:
    async with spread("a") as world, world.open_worker("a", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        jobs.gate = trio.Event()
        for number, name in enumerate(NAMES):
            await enqueue(world, "a", number, queue=name)
        await world.until(lambda: jobs.running == len(NAMES))
        await world.start("b", modules=SPREAD)
        await trio.sleep(0.7 * LEASE_SECONDS)
        assert is_spread(world, 6, 0)
        jobs.gate.set()
        await world.until(lambda: is_spread(world, 3, 3))
        await world.until(lambda: not world.store.jobs.records)
        assert jobs.started == dict.fromkeys(range(len(NAMES)), 1)


async def test_N32_jobs_of_all_queues_are_done_from_every_node_while_shards_move(autojump_clock: MockClock) -> None:
    async with spread("a", "b") as world, world.open_worker("a", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: world.start("c", modules=SPREAD))
            for number in range(120):
                await enqueue(world, "ab"[number % 2], number, queue=NAMES[number % 12])
                await trio.sleep(0.1)
        await world.until(lambda: is_spread(world, 2, 2, 2))
        await world.until(lambda: not world.store.jobs.records)
        assert set(jobs.done) == set(range(120))


async def test_N33_a_lost_node_holds_up_the_queues_of_its_shards_only(autojump_clock: MockClock) -> None:
    async with spread("a", "b", "c") as world, world.open_worker("c", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        of_a, of_b = queue_of(world, "a"), queue_of(world, "b")
        others = owners(world)["b"]
        await world.kill("a")
        lost_at = trio.current_time()
        await enqueue(world, "c", 1, queue=of_b)
        await world.until(lambda: jobs.done == {1: 1})
        assert trio.current_time() - lost_at < LEASE_SECONDS / 10
        await enqueue(world, "c", 2, queue=of_a)
        assert LEASE_SECONDS / 2 < trio.current_time() - lost_at < FAILOVER_SECONDS
        await world.until(lambda: is_spread(world, 3, 3), LEASE_SECONDS / 5)
        assert set(others) < set(owners(world)["b"])


async def test_N33_a_drain_hands_over_all_shards_and_nothing_waits_for_a_lease(autojump_clock: MockClock) -> None:
    async with spread("a", "b", "c") as world:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world["a"].engine.drain, 100)
            await world.until(lambda: len(owners(world)["b"]) == len(owners(world)["c"]) == 3, LEASE_SECONDS / 4)
        assert not owners(world).get("a")


async def test_N33_a_node_that_leaves_leaves_its_part_to_the_others(autojump_clock: MockClock) -> None:
    async with spread("a", "b", "c") as world:
        await world.stop("a")
        await world.until(lambda: is_spread(world, 3, 3), LEASE_SECONDS / 4)


@pytest.mark.parametrize("node", "abc")
async def test_N34_lists_are_of_all_shards(autojump_clock: MockClock, node: str) -> None:
    async with spread("a", "b", "c") as world, world.open_worker("a", "worker") as worker:

        @worker.function("job")
        async def job(n: int) -> None:
            raise ValueError("no")

        await worker.wait_registered()
        await world.settle()
        for number, name in enumerate(NAMES):
            [receipt] = await enqueue(world, node, number, queue=name)
            assert (await call(world, node, "engine::queue::wait", id=receipt.id))["state"] == "dead"
        async with world.open_worker(node, "reader") as reader:
            reader.register_trigger("durable:subscriber", "read", config={"topic": "news"})
            await reader.wait_registered()
            await trio.sleep(1)
            expected = ["default", *sorted(NAMES), "news"]
            listed = await call(world, node, "engine::queue::list")
            assert [row["name"] for row in listed["queues"]] == expected
            assert [row["dead"] for row in listed["queues"]] == [0, *[1] * len(NAMES), 0]
            assert listed["storage"] == "memory"
            assert listed["commits"]["count"] >= len(NAMES) and listed["commits"]["max_seconds"] is not None
            assert [row["name"] for row in await call(world, node, "engine::queue::list_topics")] == expected
            rows = await call(world, node, "engine::queue::dlq_topics")
            assert {row["topic"]: row["message_count"] for row in rows} == {
                "default": 0, **dict.fromkeys(NAMES, 1), "news": 0
            }  # fmt: skip


async def test_N34_a_job_is_found_by_its_id_from_every_node(autojump_clock: MockClock) -> None:
    async with spread("a", "b", "c") as world:
        receipts = [(await enqueue(world, "a", number, queue=name))[0].id for number, name in enumerate(NAMES)]
        for node in "abc":
            for number, receipt in enumerate(receipts):
                found = await call(world, node, "engine::queue::job", id=receipt)
                assert found["payload"] == {"n": number}
            for function_id in ("job", "wait", "cancel"):
                with pytest.raises(CallError) as caught:
                    await call(world, node, f"engine::queue::{function_id}", id="nothing")
                assert caught.value.code == "job_not_found"
        # One that this node has enqueued, and one that another node has.
        assert (await call(world, "a", "engine::queue::cancel", id=receipts[0]))["was"].startswith("waiting")
        assert (await call(world, "b", "engine::queue::cancel", id=receipts[1]))["was"].startswith("waiting")
        with pytest.raises(CallError) as caught:
            await call(world, "c", "engine::queue::cancel", id=receipts[1])
        assert caught.value.code == "job_not_cancellable"


async def test_N34_a_wait_at_a_node_that_did_not_enqueue_ends_with_the_job(autojump_clock: MockClock) -> None:
    async with spread("a", "b", "c") as world, world.open_worker("a", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        jobs.gate = trio.Event()
        [receipt] = await enqueue(world, "a", 1, queue=queue_of(world, "b"), keep_result_seconds=60)
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await call(world, "c", "engine::queue::wait", id=receipt.id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await world.until(lambda: jobs.running == 1)
            await trio.sleep(1)
            assert answers == []
            jobs.gate.set()
        assert answers == [{"id": receipt.id, "state": "done", "result": 1}]


async def test_N34_a_job_is_found_while_the_owner_of_another_shard_is_lost(autojump_clock: MockClock) -> None:
    async with spread("a", "b", "c") as world:
        of_b = queue_of(world, "b")
        [receipt] = await enqueue(world, "b", 1, queue=of_b)
        await world.kill("a")
        began = trio.current_time()
        assert (await call(world, "c", "engine::queue::job", id=receipt.id))["id"] == receipt.id
        assert trio.current_time() - began < LEASE_SECONDS / 10
        # A list without the lost shards would look whole, so it waits for their next owners.
        rows = (await call(world, "c", "engine::queue::list"))["queues"]
        assert len(rows) == len(NAMES) + 1
        assert LEASE_SECONDS / 2 < trio.current_time() - began < FAILOVER_SECONDS


async def test_N34_a_call_of_all_shards_that_is_cancelled_ends_at_their_owners(autojump_clock: MockClock) -> None:
    async with spread("a", "b") as world:
        [receipt] = await enqueue(world, "b", 1, queue=NAMES[0])
        with trio.move_on_after(1) as scope:
            await call(world, "a", "engine::queue::wait", id=receipt.id)
        assert scope.cancelled_caught
        await trio.sleep(1)
        assert await call(world, "a", "engine::queue::job", id=receipt.id)


async def test_N28_bounds_of_all_jobs_hold_for_all_shards_of_a_node_together(autojump_clock: MockClock) -> None:
    config = {"queue": QueueConfig(queues=QUEUES, in_mesh=True, shards=SHARDS, jobs=5)}
    async with spread("a", config=config) as world:
        for number in range(5):
            await enqueue(world, "a", number, queue=NAMES[number])
        with pytest.raises(CallError, match="there are 5 jobs that are not done, and at most 5 may be"):
            await enqueue(world, "a", 6, queue=NAMES[7])
        await call(world, "a", "engine::queue::purge", queue=NAMES[2])
        await enqueue(world, "a", 6, queue=NAMES[7])


async def test_N29_nodes_show_their_shards_and_queues(autojump_clock: MockClock) -> None:
    async with spread("a", "b") as world:
        there = owners(world)
        for node in "ab":
            rows = {row["node"]: row for row in (await call(world, node, "engine::cluster::nodes"))["nodes"]}
            for name in "ab":
                names = sorted(each for each in (*NAMES, "default") if shard_of(each, SHARDS) in there[name])
                assert (rows[name]["shards"], rows[name]["queues"]) == (there[name], names)
            health = world[node].engine._shell.health["queue"]
            assert health == {"owners": there, "owns": there[node], "shards": SHARDS, "problem": ""}


async def test_N32_a_node_that_wants_another_number_of_shards_takes_that_of_the_mesh(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    other = {"queue": QueueConfig(queues=QUEUES, in_mesh=True, shards=16)}
    async with spread("a") as world:
        with caplog.at_level(logging.WARNING, "iii_trio.queue"):
            await world.start("b", modules=other)
            await world.until(lambda: is_spread(world, 3, 3))
        assert "the queues of this mesh have 6 shards already, so `shards: 16` has no effect" in caplog.text
        await world.settle()
        for name in NAMES:
            [receipt] = await enqueue(world, "b", 1, queue=name)
            assert await call(world, "a", "engine::queue::job", id=receipt.id)


async def test_N27_subscribers_of_topics_of_all_shards_stay_as_owners_change(autojump_clock: MockClock) -> None:
    read: list[int] = []
    topics = [f"topic-{number}" for number in range(8)]
    async with spread("a", "b", "c") as world, world.open_worker("c", "reader") as reader:

        @reader.function("read")
        async def read_one(n: int) -> None:
            read.append(n)

        for topic in topics:
            reader.register_trigger("durable:subscriber", "read", config={"topic": topic})
        await reader.wait_registered()
        await world.settle()
        await trio.sleep(1)
        await world.kill("a")
        for number, topic in enumerate(topics):
            await call(world, "b", "iii::durable::publish", topic=topic, data={"n": number})
        await world.until(lambda: sorted(read) == list(range(8)))
        await world.start("a", modules=SPREAD)
        await world.until(lambda: is_spread(world, 2, 2, 2))
        await world.settle()
        for number, topic in enumerate(topics):
            await call(world, "a", "iii::durable::publish", topic=topic, data={"n": number})
        await world.until(lambda: sorted(read) == sorted([*range(8), *range(8)]))
        rows = (await call(world, "b", "engine::queue::list"))["queues"]
        there = [one for row in rows for one in row.get("subscribers", ())]
        assert len(there) == 8 and all(one["away_since_ms"] is None for one in there)


async def test_a_worker_of_iii_trio_waits_for_its_receipt_across_shards(autojump_clock: MockClock) -> None:
    async with spread("a", "b") as world, world.open_worker("a", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        async with world.open_worker("b", "client") as client:
            for number, name in enumerate(NAMES):
                action = iii_trio.enqueue(name, keep_result_seconds=60)
                receipt = await client.trigger("job", {"n": number}, action=action)
                assert await receipt.wait() == number
        assert jobs.done.total() == len(NAMES)
