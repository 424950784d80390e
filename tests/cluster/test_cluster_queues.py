"""The queues of a mesh, in virtual time (promises N21 to N28 of docs/cluster.md)."""

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
from iii_trio.triggers.queue.front import FUNCTIONS
from iii_trio.triggers.queue.mesh_queue import MeshQueue
from iii_trio.triggers.queue.settings import QueueConfig, QueueSettings

from .mesh_world import LEASE_SECONDS, MeshWorld, mesh_world

QUEUES = {
    "mail": QueueSettings(concurrency=3, backoff_seconds=0.1),
    "one": QueueSettings(concurrency=1),
    "once": QueueSettings(max_attempts=1),
}
SHARED = {"queue": QueueConfig(queues=QUEUES, in_mesh=True, shards=1)}
"""With one shard, one node owns everything."""
FAILOVER_SECONDS = 1.2 * LEASE_SECONDS
"""What docs/cluster.md says of a lost owner, and a little for the loading."""


@asynccontextmanager
async def shared(*names: str, **store: Any) -> AsyncIterator[MeshWorld]:
    """Open a mesh whose nodes share their queues. The first node owns them."""
    async with mesh_world(**store) as world:
        for name in names:
            await world.start(name, modules=SHARED)
            await world.until(lambda: owner(world) == names[0])
        await world.settle()
        yield world


def queue(world: MeshWorld, name: str) -> MeshQueue:
    found = world[name].engine.modules["queue"]
    assert isinstance(found, MeshQueue)
    return found


def owner(world: MeshWorld) -> str | None:
    """The node that may start jobs now. There is never more than one."""
    owners = [name for name in world.nodes if "queue" in world[name].engine.modules and queue(world, name).owned]
    assert len(owners) < 2, owners
    return owners[0] if owners else None


class Jobs:
    """A worker whose function counts the jobs that it was given, and holds them while `gate` is closed."""

    def __init__(self, worker: iii_trio.Worker) -> None:
        self.done: Counter[int] = Counter()
        self.started: Counter[int] = Counter()
        self.running = self.most = 0
        self.gate = trio.Event()
        self.gate.set()
        worker.register_function("job", self._job)

    async def _job(self, n: int) -> int:
        self.started[n] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        self.done[n] += 1
        return n


async def enqueue(
    world: MeshWorld, node: str, *numbers: int, queue: str = "mail", **options: Any
) -> list[iii_trio.Receipt]:
    async with world.open_worker(node, "client") as client:
        action = iii_trio.enqueue(queue, **options)
        return [await client.trigger("job", {"n": n}, action=action) for n in numbers]


async def call(world: MeshWorld, node: str, function_id: str, **payload: Any) -> Any:
    async with world.open_worker(node, "operator") as operator:
        return await operator.trigger(function_id, payload)


async def test_N21_a_job_enqueued_at_any_node_is_done_at_any_node(autojump_clock: MockClock) -> None:
    async with shared("a", "b", "c") as world, world.open_worker("c", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        for number, node in enumerate("abc"):
            await enqueue(world, node, number)
        await world.until(lambda: jobs.done == {0: 1, 1: 1, 2: 1})
        await world.until(lambda: not world.store.jobs.records)


@pytest.mark.parametrize("node", "ab")
async def test_N21_every_verb_works_from_every_node(autojump_clock: MockClock, node: str) -> None:
    async with shared("a", "b") as world:
        [first, second] = await enqueue(world, node, 1, 2)
        rows = (await call(world, node, "engine::queue::list"))["queues"]
        [row] = [row for row in rows if row["name"] == "mail"]
        assert row["depth"] == 2
        found = (await call(world, node, "engine::queue::jobs", queue="mail"))["jobs"]
        assert [each["id"] for each in found] == [first.id, second.id]
        about = await call(world, node, "engine::queue::job", id=first.id)
        assert about["payload"] == {"n": 1}
        await call(world, node, "engine::queue::pause", queue="mail")
        await call(world, node, "engine::queue::cancel", id=first.id)
        assert (await call(world, node, "engine::queue::purge", queue="mail"))["purged"] == 1
        await call(world, node, "engine::queue::resume", queue="mail")
        stats = await call(world, node, "engine::queue::topic_stats", queue="mail")
        assert stats["depth"] == 0
        with pytest.raises(CallError, match="append-only") as caught:
            async with world.open_worker(node, "operator") as operator, operator.create_channel() as channel:
                await operator.trigger("engine::queue::backup", {"writer": channel.writer_ref})
        assert caught.value.code == "storage_failed"


@pytest.mark.parametrize("node", "ab")
async def test_N21_dead_letters_are_shown_and_redriven_from_every_node(autojump_clock: MockClock, node: str) -> None:
    async with shared("a", "b") as world, world.open_worker("b", "worker") as worker:
        fails = True

        @worker.function("job")
        async def job(n: int) -> None:
            if fails:
                raise ValueError("no")

        await worker.wait_registered()
        await world.settle()
        [receipt] = await enqueue(world, node, 1, queue="once")
        ended = await call(world, node, "engine::queue::wait", id=receipt.id)
        assert ended["state"] == "dead"
        [dead] = await call(world, node, "engine::queue::dlq_messages", queue="once")
        assert dead["payload"] == {"n": 1}
        fails = False
        assert (await call(world, node, "iii::queue::redrive", queue="once"))["redriven"] == 1
        await world.until(lambda: not world.store.jobs.records)


async def test_N21_a_node_offers_the_functions_of_a_queue_without_a_mesh(autojump_clock: MockClock) -> None:
    async def functions(engine: iii_trio.Engine) -> dict[str, str]:
        async with engine.open_worker("asks") as worker:
            found = await worker.trigger("engine::functions::list", {"include_internal": True})
            return {
                row["function_id"]: row.get("description")
                for row in found["functions"]
                if "queue" in row["function_id"] or "durable" in row["function_id"]
            }

    async with iii_trio.open_engine() as engine, shared("a") as world:
        alone = {name: text for name, text in (await functions(engine)).items() if not name.startswith("iii-queue::")}
        assert alone == FUNCTIONS
        assert (await functions(world["a"].engine)).items() >= FUNCTIONS.items()


async def test_N23_a_lost_owner_loses_no_job_and_what_ran_runs_again(autojump_clock: MockClock) -> None:
    async with shared("a", "b", "c") as world, world.open_worker("b", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        jobs.gate = trio.Event()
        await enqueue(world, "c", *range(10))
        await world.until(lambda: jobs.running == 3)
        await world.kill("a")
        lost_at = trio.current_time()
        assert owner(world) is None
        await world.until(lambda: owner(world) is not None, FAILOVER_SECONDS)
        assert trio.current_time() - lost_at > LEASE_SECONDS / 2  # the store keeps the lease of a dead node
        jobs.gate.set()
        await world.until(lambda: set(jobs.done) == set(range(10)))
        await world.until(lambda: not world.store.jobs.records)
        assert jobs.started.total() <= 13  # those three once more, and nothing else


async def test_N23_a_job_that_waits_for_its_time_waits_it_out_at_the_next_owner(autojump_clock: MockClock) -> None:
    async with shared("a", "b") as world, world.open_worker("b", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        began = trio.current_time()
        await enqueue(world, "b", 1, delay_seconds=60)
        await world.kill("a")
        await world.until(lambda: jobs.done == {1: 1}, 120)
        assert trio.current_time() - began > 59


async def test_N24_an_enqueue_waits_for_the_next_owner_and_keeps_one_job(autojump_clock: MockClock) -> None:
    async with shared("a", "b") as world, world.open_worker("b", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        await world.kill("a")
        [receipt] = await enqueue(world, "b", 1)
        assert receipt.id
        await world.until(lambda: jobs.done == {1: 1})
        await trio.sleep(LEASE_SECONDS)
        assert jobs.started == {1: 1}


async def test_N24_an_enqueue_whose_answer_was_lost_keeps_one_job(autojump_clock: MockClock) -> None:
    async with shared("a", "b") as world, world.open_worker("b", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        world.store_delay = lambda: 1.0
        answers: list[Any] = []

        async def ask() -> None:
            answers.extend(await enqueue(world, "b", 1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await world.until(lambda: bool(world.store.jobs.records))
            await world.kill("a")  # the store has it, and the answer is on its way to a
            world.store_delay = None
        assert len(answers) == 1
        await world.until(lambda: jobs.done == {1: 1})
        await trio.sleep(LEASE_SECONDS)
        assert jobs.started == {1: 1}


async def test_N24_without_an_owner_calls_are_refused_in_the_end(autojump_clock: MockClock) -> None:
    async with shared("a") as world:
        world.cut_from_store("a")
        began = trio.current_time()
        await world.until(lambda: owner(world) is None)
        with pytest.raises(CallError) as caught:
            await call(world, "a", "engine::queue::list")
        assert caught.value.code == "queue_unavailable"
        assert trio.current_time() - began <= 3.5 * LEASE_SECONDS
        world.reach_store("a")
        await world.until(lambda: owner(world) == "a")
        await call(world, "a", "engine::queue::list")


async def test_N25_a_node_that_loses_the_store_stops_before_its_lease_ends(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with shared("a", "b") as world, world.open_worker("a", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        jobs.gate = trio.Event()
        await enqueue(world, "b", 1)
        await world.until(lambda: jobs.running == 1)
        with caplog.at_level(logging.WARNING):
            world.cut_from_store("a")
            cut_at = trio.current_time()
            await world.until(lambda: owner(world) is None)
        # Its handlers are cancelled, before another node may begin.
        assert jobs.running == 0
        assert trio.current_time() - cut_at < LEASE_SECONDS
        assert trio.current_time() < world.store.jobs.shards[0].until
        await world.until(lambda: "does not own shards 0 of the queues any more" in caplog.text)
        health = world["a"].engine._shell.health["queue"]
        assert health["owns"] == [] and "the network is cut" in str(health["problem"])
        jobs.gate.set()
        await world.until(lambda: owner(world) == "b", FAILOVER_SECONDS)
        await world.until(lambda: jobs.done == {1: 1})


async def test_N25_a_store_that_comes_back_in_time_changes_nothing(autojump_clock: MockClock) -> None:
    async with shared("a", "b") as world, world.open_worker("a", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        number = world.store.jobs.shards[0].number
        world.cut_from_store("a", "b")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(enqueue, world, "b", 1)
            await trio.sleep(0.4 * LEASE_SECONDS)
            assert not world.store.jobs.records
            world.reach_store("a", "b")
        await world.until(lambda: jobs.done == {1: 1})
        assert owner(world) == "a" and world.store.jobs.shards[0].number == number


async def test_N22_an_owner_that_was_stopped_changes_nothing(autojump_clock: MockClock) -> None:
    async with shared("a", "b") as world, world.open_worker("b", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        # What the old owner has written arrives when the new one has begun.
        world.store_delay = lambda: 3 * LEASE_SECONDS
        with trio.move_on_after(1):
            await enqueue(world, "a", 1)
        world.store_delay = None
        world.cut_from_store("a")
        await world.until(lambda: owner(world) == "b")
        refused = world.store.jobs.refused
        await trio.sleep(4 * LEASE_SECONDS)
        assert world.store.jobs.refused > refused
        assert not world.store.jobs.records and not jobs.done


async def test_N26_a_drain_lets_jobs_end_and_hands_the_queues_over(autojump_clock: MockClock) -> None:
    async with shared("a", "b") as world, world.open_worker("b", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        jobs.gate = trio.Event()
        await enqueue(world, "b", *range(5))
        await world.until(lambda: jobs.running == 3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world["a"].engine.drain, 100)
            await trio.sleep(1)
            assert owner(world) == "a" and jobs.running == 3
            jobs.gate.set()
            began = trio.current_time()
            await world.until(lambda: owner(world) == "b")
            assert trio.current_time() - began < LEASE_SECONDS / 5  # nothing waits for the end of the lease
        await world.until(lambda: set(jobs.done) == set(range(5)))
        assert max(jobs.started.values()) == 1


async def test_N26_a_job_that_does_not_end_holds_a_drain_up_for_one_lease(autojump_clock: MockClock) -> None:
    async with shared("a", "b") as world, world.open_worker("b", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        jobs.gate = trio.Event()
        await enqueue(world, "b", 1)
        await world.until(lambda: jobs.running == 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world["a"].engine.drain, 100)
            await world.until(lambda: owner(world) == "b", 1.5 * LEASE_SECONDS)
        await world.until(lambda: jobs.started == {1: 2})
        jobs.gate.set()
        await world.until(lambda: jobs.done == {1: 1})


async def test_N26_a_node_that_leaves_hands_the_queues_over(autojump_clock: MockClock) -> None:
    async with shared("a", "b") as world:
        await enqueue(world, "b", 1)
        await world.stop("a")
        began = trio.current_time()
        await world.until(lambda: owner(world) == "b")
        assert trio.current_time() - began < LEASE_SECONDS / 5
        assert (await call(world, "b", "engine::queue::topic_stats", queue="mail"))["depth"] == 1


async def subscribers(world: MeshWorld, node: str) -> dict[str, bool]:
    """Whether each subscriber of the topic is here."""
    rows = (await call(world, node, "engine::queue::list"))["queues"]
    found = [one for row in rows if row["name"] == "news" for one in row["subscribers"]]
    return {one["function_id"]: one["away_since_ms"] is None for one in found}


async def until_subscribers(world: MeshWorld, node: str, expected: dict[str, bool]) -> None:
    with trio.fail_after(60):
        while await subscribers(world, node) != expected:  # noqa: ASYNC110 - another node knows it
            await trio.sleep(0.1)


@asynccontextmanager
async def reader(world: MeshWorld, node: str, read: list[int], over: str = "memory") -> AsyncIterator[iii_trio.Worker]:
    async with world.open_worker(node, "reader", over) as worker:

        @worker.function("read")
        async def read_one(n: int) -> None:
            read.append(n)

        worker.register_trigger("durable:subscriber", "read", config={"topic": "news"})
        await worker.wait_registered()
        yield worker


async def publish(world: MeshWorld, node: str, n: int) -> None:
    await call(world, node, "iii::durable::publish", topic="news", data={"n": n})


@pytest.mark.parametrize("at", "ab")
async def test_N27_a_subscriber_is_reached_from_every_node(autojump_clock: MockClock, at: str) -> None:
    async with shared("a", "b") as world:
        read: list[int] = []
        async with reader(world, at, read):
            await until_subscribers(world, "b", {"read": True})
            await publish(world, "a", 1)
            await publish(world, "b", 2)
            await world.until(lambda: sorted(read) == [1, 2])


@pytest.mark.parametrize("at", "ab")
async def test_N27_a_subscriber_that_is_away_is_remembered(autojump_clock: MockClock, at: str) -> None:
    async with shared("a", "b") as world:
        read: list[int] = []
        async with reader(world, at, read):
            await until_subscribers(world, "b", {"read": True})
        await until_subscribers(world, "b", {"read": False})
        await publish(world, "b", 1)
        async with reader(world, at, read):
            await world.until(lambda: read == [1])


@pytest.mark.parametrize("at", "ab")
async def test_N27_a_subscription_that_is_withdrawn_ends(autojump_clock: MockClock, at: str) -> None:
    async with shared("a", "b") as world, world.open_worker(at, "reader") as worker:
        binding = worker.register_trigger("durable:subscriber", "read", config={"topic": "news"})
        await until_subscribers(world, "b", {"read": True})
        binding.unregister()
        await until_subscribers(world, "b", {})


async def test_N27_a_subscriber_stays_one_as_the_owner_is_lost(autojump_clock: MockClock) -> None:
    async with shared("a", "b", "c") as world:
        read: list[int] = []
        async with reader(world, "b", read):
            await until_subscribers(world, "c", {"read": True})
            await world.kill("a")
            # The first message finds an owner that has loaded, and knows the subscriber by the store.
            await publish(world, "c", 1)
            await world.until(lambda: read == [1])
            await until_subscribers(world, "c", {"read": True})


async def test_N27_the_subscribers_of_a_lost_node_are_away(autojump_clock: MockClock) -> None:
    async with shared("a", "b") as world:
        read: list[int] = []
        async with reader(world, "b", read, over="network"):
            await until_subscribers(world, "a", {"read": True})
            await world.kill("b")
            await until_subscribers(world, "a", {"read": False})


async def test_N28_limits_hold_for_the_whole_mesh(autojump_clock: MockClock) -> None:
    async with shared("a", "b", "c") as world, world.open_worker("b", "worker") as worker:
        jobs = Jobs(worker)
        await worker.wait_registered()
        await world.settle()
        jobs.gate = trio.Event()
        for node in "abc":
            await enqueue(world, node, *range(4), queue="one")
        await world.until(lambda: jobs.running == 1)
        await world.stop("a")
        await world.until(lambda: owner(world) is not None)
        jobs.gate.set()
        await world.until(lambda: not world.store.jobs.records)
        assert jobs.most == 1


async def test_N29_an_owner_whose_store_has_lost_its_data_blames_no_other_node(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with shared("a") as world:
        with caplog.at_level(logging.WARNING, "iii_trio.queue"):
            world.store.lose_everything()
            await world.until(
                lambda: any("does not own shards 0 of the queues any more" in each for each in caplog.messages)
            )
        (told,) = [each for each in caplog.messages if "does not own shards 0 of the queues any more" in each]
        assert "another node has taken it, or the data of the store is gone" in told


async def test_N29_nodes_and_health_say_who_owns_the_queues(autojump_clock: MockClock) -> None:
    async with shared("a", "b") as world:
        for node in "ab":
            rows = (await call(world, node, "engine::cluster::nodes"))["nodes"]
            assert {row["node"]: row["shards"] for row in rows} == {"a": [0], "b": []}
            health = world[node].engine._shell.health["queue"]
            assert health == {"owners": {"a": [0]}, "owns": [0] if node == "a" else [], "shards": 1, "problem": ""}


async def test_N29_the_functions_of_the_owner_are_in_no_list(autojump_clock: MockClock) -> None:
    async with shared("a", "b") as world:
        for node in "ab":
            rows = (await call(world, node, "engine::functions::list"))["functions"]
            assert not [row for row in rows if row["namespace"].startswith("iii-queue")]
            rows = (await call(world, node, "engine::cluster::nodes"))["nodes"]
            assert [row["functions"] for row in rows] == [0, 0]


async def test_N22_a_second_engine_of_the_owners_name_does_not_take_its_queues(autojump_clock: MockClock) -> None:
    async with shared("a") as world:
        number = world.store.jobs.shards[0].number
        settings = {"advertise": "ws://localhost:7", "node": "a"}
        await world.start("z", modules=SHARED, joins=False, **settings)
        await trio.sleep(3 * LEASE_SECONDS)
        assert world.store.jobs.shards[0].number == number and queue(world, "a").owned == [0]


async def test_N21_an_unknown_queue_is_told_with_the_node_that_lacks_it(autojump_clock: MockClock) -> None:
    async with shared("a") as world:
        more = QueueConfig(queues={**QUEUES, "more": QueueSettings()}, in_mesh=True, shards=1)
        await world.start("b", modules={"queue": more})
        await world.settle()
        assert owner(world) == "a"
        async with world.open_worker("b", "asks") as asks:
            why = "Queue 'more' not found at node a, which owns its shard: give all nodes the same queues"
            with pytest.raises(CallError, match=why):
                await asks.trigger("job", {"n": 1}, action=iii_trio.enqueue("more"))
