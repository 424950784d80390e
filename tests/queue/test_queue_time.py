"""Settings and pauses over restarts and clock steps, and waits for functions (Q12, Q18, Q19)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import EngineConfig, QueueConfig, QueueSettings, enqueue
from iii_trio.environment import Environment
from iii_trio.triggers.queue import MemoryStore
from tests.helpers.queue_world import NoJitter, Seen, dead, inline, queueing, rows, settled

Clock = trio.testing.MockClock


async def test_Q12_settings_stay_with_the_jobs_of_a_queue_that_a_restart_has_taken_away(autojump_clock: Clock) -> None:
    store = MemoryStore()
    for _ in range(2):  # the second time nothing configures them, either
        async with queueing(store, once=QueueSettings(max_attempts=1)) as engine, engine.open_worker("w") as worker:
            await worker.trigger("fail", {}, action=enqueue("once"))
        async with queueing(store):
            pass
    calls: list[int] = []
    async with queueing(store) as engine, engine.open_worker("w") as worker:

        @worker.function("fail")
        async def fail() -> None:
            calls.append(1)
            raise ValueError

        await trio.sleep(10_000)
        assert len(calls) == 2 and len(await dead(worker, "once")) == 2
        await worker.trigger("engine::queue::discard", {"queue": "once"})
    assert list(store.load().lanes) == []


async def test_Q12_a_group_keeps_its_order_when_its_queue_is_taken_away(autojump_clock: Clock) -> None:
    store = MemoryStore()
    async with queueing(store, led=QueueSettings(fifo=True, group_by="g")) as engine, engine.open_worker("w") as worker:
        for n in range(6):
            await worker.trigger("f", {"g": 1, "n": n}, action=enqueue("led"))
    async with queueing(store) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(n: int) -> None:
            await trio.sleep(1)
            seen.add(n)

        await trio.sleep(100)
        assert seen.what == list(range(6))
        assert [round(time - seen.times[0]) for time in seen.times] == list(range(6))


@pytest.mark.parametrize("step_seconds", [-2 * 86_400, -3600, 0])
async def test_Q18_a_clock_that_goes_back_over_a_restart_lengthens_no_pause(
    autojump_clock: Clock, step_seconds: float
) -> None:
    store = MemoryStore()
    wall = 1_700_000_000.0
    queues = {
        "late": QueueSettings(delay_seconds=6),
        "mail": QueueSettings(backoff_seconds=2, delay_seconds=0),
    }
    for start in range(2):
        config = EngineConfig(modules={"queue": QueueConfig(queues=queues)})
        began, at = trio.current_time(), wall + start * step_seconds
        async with (
            iii_trio.open_engine(
                config, stores={"queue": store}, environment=Environment(
                    run_blocking=inline, rng=NoJitter(),
                    wall_clock=lambda began=began, at=at: at + trio.current_time() - began,  # type: ignore[misc]
                ),
            ) as engine,
            engine.open_worker("w") as worker,
        ):  # fmt: skip
            seen = Seen()

            @worker.function("f")
            async def f(name: str, metadata: Any) -> None:
                seen.add(name)  # noqa: B023
                if name == "mail" and metadata["job"]["attempt"] == 1:
                    raise ValueError

            if start == 0:
                for name in queues:
                    await worker.trigger("f", {"name": name}, action=enqueue(name))
                await settled()
                assert seen.what == ["mail"]
            else:
                await trio.sleep(1000)
                assert seen == [(2.0, "mail"), (6.0, "late")]


async def test_Q18_a_shorter_delay_does_not_cut_one_that_was_promised(autojump_clock: Clock) -> None:
    store = MemoryStore()
    async with queueing(store, late=QueueSettings(delay_seconds=500)) as engine, engine.open_worker("w") as worker:
        began = trio.current_time()
        await worker.trigger("f", {}, action=enqueue("late"))
    wall = store.load().jobs
    assert [record.progress.pause_ms for record in wall] == [500_000]  # type: ignore[union-attr]
    async with queueing(store, late=QueueSettings(delay_seconds=1)) as engine, engine.open_worker("w") as worker:
        called = trio.Event()

        @worker.function("f")
        async def f() -> None:
            called.set()

        await called.wait()
        assert trio.current_time() - began > 400


async def test_Q19_a_job_waits_for_its_function_and_no_attempt_is_used_up(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        await worker.trigger("later", {}, action=enqueue())
        await trio.sleep(80_000)
        assert (await rows(worker))["default"]["waits_for"] == ["later in default"]
        attempts: list[int] = []

        @worker.function("later")
        async def later(metadata: dict[str, Any]) -> None:
            attempts.append(metadata["job"]["attempt"])

        await trio.sleep(1)
        assert attempts == [1]


async def test_Q7_a_function_that_a_queue_and_a_topic_need_starts_both_when_it_comes(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        worker.register_trigger("durable:subscriber", "f", config={"topic": "t"})
        await worker.wait_registered()
        await settled()
        await worker.trigger("f", {"of": "queue"}, action=enqueue())
        await settled()
        await worker.trigger("iii::durable::publish", {"topic": "t", "data": {"of": "topic"}})
        await trio.sleep(10)
        done: list[str] = []

        @worker.function("f")
        async def f(of: str) -> None:
            done.append(of)

        await trio.sleep(1)
        assert sorted(done) == ["queue", "topic"]


async def test_Q7_a_subscriber_that_unsubscribed_and_came_back_is_remembered(autojump_clock: Clock) -> None:
    store = MemoryStore()
    async with queueing(store) as engine, engine.open_worker("w") as worker:
        binding = worker.register_trigger("durable:subscriber", "f", config={"topic": "t"})
        await worker.wait_registered()
        await settled()
        await worker.trigger("iii::durable::publish", {"topic": "t", "data": 1})  # is left in it
        binding.unregister()
        await settled()
        assert list(store.load().subscribers) == []
        worker.register_trigger("durable:subscriber", "f", config={"topic": "t"})
        await worker.wait_registered()
        await settled()
    assert [one.function_id for one in store.load().subscribers] == ["f"]


async def test_Q10_a_member_job_of_the_callers_metadata_gives_way_and_all_others_stay(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        seen: list[Any] = []

        @worker.function("f")
        async def f(metadata: Any) -> None:
            seen.append(metadata)

        receipt = await worker.trigger("f", {}, metadata={"job": "forged", "a": 1}, action=enqueue())
        await settled()
        job = {"id": receipt.id, "attempt": 1, "max_attempts": 3, "queue": "default"}
        assert seen == [{"a": 1, "job": job}]
