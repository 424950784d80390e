"""The verbs of operators: pages of jobs, one job, cancel, pause and resume."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import CallError, QueueSettings, enqueue
from iii_trio.triggers.queue import MemoryStore
from iii_trio.triggers.queue.job_rows import JobFilter, page
from iii_trio.triggers.queue.ledger import Ledger
from iii_trio.triggers.queue.record import Timestamp
from iii_trio.triggers.queue.settings import QueueConfig
from tests.helpers.queue_world import Seen, queueing, rows, settled

Clock = trio.testing.MockClock


async def listed(worker: iii_trio.Worker, queue: str = "default", **about: Any) -> list[Any]:
    answer = await worker.trigger("engine::queue::jobs", {"queue": queue, **about})
    return list(answer["jobs"])


# --- Q23: list and show


async def test_Q23_jobs_are_listed_by_page_in_every_state(autojump_clock: Clock) -> None:
    one = QueueSettings(concurrency=1, max_attempts=1)
    slow = QueueSettings(delay_seconds=100)
    async with queueing(default=one, slow=slow) as engine, engine.open_worker("w") as worker:

        @worker.function("f")
        async def f(n: int) -> None:
            if n == 0:
                raise CallError("broken", "zero")
            await trio.sleep_forever()

        ids = [(await worker.trigger("f", {"n": n}, action=enqueue())).id for n in range(5)]
        await worker.trigger("f", {"n": 1}, action=enqueue("slow"))
        await settled()
        found = await listed(worker)
        assert [(row["id"], row["state"]) for row in found] == list(
            zip(ids, ["dead", "running", "waiting", "waiting", "waiting"], strict=True)
        )
        assert (found[0]["code"], found[0]["message"], found[0]["failed"]) == ("broken", "zero", 1)
        (delayed,) = await listed(worker, "slow")
        assert (delayed["state"], round(delayed["due_seconds"])) == ("delayed", 100)
        assert [row["id"] for row in await listed(worker, state="dead")] == ids[:1]
        assert [row["id"] for row in await listed(worker, state="waiting")] == ids[2:]
        assert await listed(worker, function_id="g") == []

        pages, after = [], 0
        while after is not None:
            answer = await worker.trigger("engine::queue::jobs", {"queue": "default", "limit": 2, "after": after})
            pages.append([row["id"] for row in answer["jobs"]])
            after = answer["after"]
        assert pages == [ids[:2], ids[2:4], ids[4:]]
        with pytest.raises(CallError, match="give one of waiting, running"):
            await listed(worker, state="asleep")


async def test_Q23_jobs_are_filtered_by_their_age(autojump_clock: Clock) -> None:
    now = [1000.0]
    config = iii_trio.EngineConfig(modules={"queue": QueueConfig()})
    environment = iii_trio.environment.Environment(wall_clock=lambda: now[0])
    async with iii_trio.open_engine(config, environment=environment) as engine, engine.open_worker("w") as worker:
        old = (await worker.trigger("nobody", {}, action=enqueue())).id
        now[0] += 60
        new = (await worker.trigger("nobody", {}, action=enqueue())).id
        now[0] += 10
        assert [row["id"] for row in await listed(worker, older_than_seconds=30)] == [old]
        assert [row["id"] for row in await listed(worker, newer_than_seconds=30)] == [new]
        assert [row["age_seconds"] for row in await listed(worker)] == [70, 10]


def test_Q23_a_page_looks_at_some_thousand_jobs_only_wherever_it_begins() -> None:
    ledger = Ledger(QueueConfig(), lambda: 1.0)
    lane, timestamp = ledger.lanes.queue("default"), Timestamp(0.0, 0)
    assert lane is not None
    jobs = [ledger.admit(lane, str(n), ("default", "f"), b"{}", timestamp) for n in range(20_000)]
    for job in jobs:
        ledger.stored(job, timestamp)
    for job in jobs[:15_000:2]:
        ledger.cancel(job)
        ledger.erased(job)
    assert [row["id"] for row in page([lane], JobFilter(), 16_000, 3, timestamp)[0]] == ["16000", "16001", "16002"]
    looked = page([lane], JobFilter(function_id="g"), 0, 3, timestamp)
    assert looked == ([], 10_000), "5,000 jobs that are there, and no more"
    shown, after = [], 0
    while after is not None:
        found, after = page([lane], JobFilter(), after, 500, timestamp)
        shown += [int(row["id"]) for row in found]
    assert shown == [n for n in range(20_000) if n >= 15_000 or n % 2]


async def test_Q23_one_job_is_shown_with_its_payload_cut(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        receipt = await worker.trigger(
            "nobody", {"text": "x" * 50}, metadata={"m": 1}, traceparent=parent, action=enqueue()
        )
        await settled()
        found = await worker.trigger("engine::queue::job", {"id": receipt.id})
        assert (found["state"], found["payload"], found["metadata"], found["max_attempts"]) == (
            "waiting_for_function", {"text": "x" * 50}, {"m": 1}, 3
        )  # fmt: skip
        assert found["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
        found = await worker.trigger("engine::queue::job", {"id": receipt.id, "payload_bytes": 20})
        assert "payload" not in found and found["payload_begins"] == '{"text":"xxxxxxxxxxx'

        @worker.function("nobody")
        async def nobody(text: str) -> None: ...

        await trio.sleep(10)
        assert await worker.trigger("engine::queue::job", {"id": receipt.id}) == {"id": receipt.id, "state": "done"}
        with pytest.raises(CallError, match="there is no job x") as caught:
            await worker.trigger("engine::queue::job", {"id": "x"})
        assert caught.value.code == "job_not_found"


# --- Q24: cancel


async def test_Q23_jobs_that_wait_for_their_function_are_among_those_that_wait(autojump_clock: Clock) -> None:
    settings = QueueSettings(concurrency=1)
    async with queueing(mail=settings) as engine, engine.open_worker("w") as worker:

        @worker.function("f")
        async def f() -> None:
            await trio.sleep_forever()

        ids = []
        for name in "gfff":
            ids.append((await worker.trigger(name, {}, action=enqueue("mail"))).id)
            await trio.sleep(1)  # the first one has its place taken before it is known that its function is missing
        states = {row["id"]: row["state"] for row in await listed(worker, "mail")}
        assert sorted(states.values()) == ["running", "waiting", "waiting", "waiting_for_function"]
        running = [row["id"] for row in await listed(worker, "mail", state="running")]
        missing = [row["id"] for row in await listed(worker, "mail", state="waiting_for_function")]
        assert (len(running), missing) == (1, ids[:1])
        assert [row["id"] for row in await listed(worker, "mail", state="waiting")] == [
            one for one in ids if one not in running
        ]
        purged = {"queue": "mail", "purged": 3, "by_state": {"waiting": 2, "waiting_for_function": 1}}
        assert await worker.trigger("engine::queue::purge", {"queue": "mail", "dry_run": True}) == purged
        assert await worker.trigger("engine::queue::purge", {"queue": "mail"}) == purged


@pytest.mark.parametrize("state", ["waiting", "running", "delayed", "waiting_for_function"])
async def test_Q24_a_cancelled_job_is_gone_in_every_state_and_for_good(autojump_clock: Clock, state: str) -> None:
    store = MemoryStore()
    settings = QueueSettings(concurrency=1, delay_seconds=100 if state == "delayed" else 0)
    async with queueing(store, default=settings) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(n: int) -> None:
            try:
                seen.add(n)
                await trio.sleep(10)
            except trio.Cancelled:
                seen.add("cancelled")
                raise

        function = "g" if state == "waiting_for_function" else "f"
        if state == "waiting":
            await worker.trigger("f", {"n": 0}, action=enqueue())
        receipt = await worker.trigger(function, {"n": 1}, action=enqueue())
        await settled()
        assert await worker.trigger("engine::queue::cancel", {"id": receipt.id}) == {"id": receipt.id, "was": state}
        await worker.trigger("f", {"n": 2}, action=enqueue())
        await trio.sleep(1000)
        expected = {"running": [1, "cancelled", 2], "waiting": [0, 2]}.get(state, [2])
        assert seen.what == expected
        assert (await rows(worker))["default"]["depth"] == 0
        assert list(store.load().jobs) == []
        gone = await worker.trigger("engine::queue::job", {"id": receipt.id})
        assert gone["state"] == "removed"


async def test_Q24_a_dead_letter_cannot_be_cancelled(autojump_clock: Clock) -> None:
    async with queueing(default=QueueSettings(max_attempts=1)) as engine, engine.open_worker("w") as worker:

        @worker.function("f")
        async def f() -> None:
            raise CallError("broken", "it is")

        receipt = await worker.trigger("f", {}, action=enqueue())
        await settled()
        with pytest.raises(CallError, match="is dead, and cannot be cancelled; discard it instead"):
            await worker.trigger("engine::queue::cancel", {"id": receipt.id})


# --- Q25: pause and resume


async def test_Q25_a_paused_queue_takes_jobs_and_starts_none_also_after_a_restart(autojump_clock: Clock) -> None:
    store, seen = MemoryStore(), Seen()

    async def work(engine: iii_trio.Engine, n: int) -> None:
        async with engine.open_worker("w") as worker:

            @worker.function("f")
            async def f(n: int) -> None:
                seen.add(n)

            if n == 1:
                await worker.trigger("engine::queue::pause", {"queue": "default"})
                await worker.trigger("engine::queue::pause", {"queue": "default"})  # twice is once
            await worker.trigger("f", {"n": n}, action=enqueue())
            await worker.trigger("f", {"n": -n}, action=enqueue("other"))
            await trio.sleep(100)
            shown = await rows(worker)
            assert (shown["default"]["paused"], shown["other"]["paused"]) == (True, False)
            if n == 2:
                assert seen.what == [-1, -2]
                await worker.trigger("engine::queue::resume", {"queue": "default"})
                await trio.sleep(1)
                assert sorted(seen.what) == [-2, -1, 1, 2]

    for n in (1, 2):
        async with queueing(store, other=QueueSettings()) as engine:
            await work(engine, n)
    async with queueing(store, other=QueueSettings()) as engine, engine.open_worker() as worker:
        assert not (await rows(worker))["default"]["paused"], "the end of the pause is kept, too"


async def test_Q25_an_empty_queue_stays_paused_over_a_restart(autojump_clock: Clock) -> None:
    store = MemoryStore()
    async with queueing(store) as engine, engine.open_worker() as worker:
        await worker.trigger("engine::queue::pause", {"queue": "default"})
    for _ in range(2):
        async with queueing(store) as engine, engine.open_worker() as worker:
            assert (await rows(worker))["default"]["paused"]


async def test_Q25_one_subscriber_is_paused_and_the_other_goes_on(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.subscribe("orders", "a")
        async def a(n: int) -> None:
            seen.add(("a", n))

        @worker.subscribe("orders", "b")
        async def b(n: int) -> None:
            seen.add(("b", n))

        await worker.wait_registered()
        answer = await worker.trigger("engine::queue::pause", {"topic": "orders", "function_id": "a"})
        assert answer == {"queue": "orders", "paused": True, "lanes": 1}
        await worker.trigger("iii::durable::publish", {"topic": "orders", "data": {"n": 1}})
        await trio.sleep(1)
        assert seen.what == [("b", 1)]
        await worker.trigger("engine::queue::resume", {"topic": "orders"})
        await trio.sleep(1)
        assert seen.what == [("b", 1), ("a", 1)]
        with pytest.raises(CallError, match="there is no queue, topic or subscriber c of orders"):
            await worker.trigger("engine::queue::pause", {"topic": "orders", "function_id": "c"})


# --- names


async def test_a_name_that_no_queue_has_is_not_an_empty_queue(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        queues = iii_trio.Queues(worker)
        assert await queues.jobs("default") == ([], None)
        assert await queues.dead_letters("default") == []
        assert [await queues.redrive("default"), await queues.redrive("default", "id")] == [0, 0]
        assert [await queues.discard("default"), await queues.discard("default", "id")] == [0, 0]
        assert await queues.purge("default") == 0
        for ask in (
            queues.jobs,
            queues.dead_letters,
            queues.redrive,
            lambda name: queues.redrive(name, "id"),
            queues.discard,
            lambda name: queues.discard(name, "id"),
            queues.purge,
        ):
            with pytest.raises(CallError) as caught:
                await ask("defualt")
            assert str(caught.value).startswith("queue_not_found: there is no queue or topic defualt")


async def test_the_functions_of_iii_call_a_name_that_no_queue_has_empty(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        about = {"queue": "defualt", "message_id": "id"}
        assert await worker.trigger("engine::queue::dlq_messages", about) == []
        assert (await worker.trigger("iii::queue::redrive", about))["redriven"] == 0
        assert (await worker.trigger("iii::queue::redrive_message", about))["redriven"] == 0
        assert (await worker.trigger("iii::queue::discard_message", about))["redriven"] == 0
        assert (await worker.trigger("engine::queue::topic_stats", about))["depth"] == 0
