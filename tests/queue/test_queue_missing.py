"""Jobs of different queues that wait for one function."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import iii_trio
from iii_trio import EngineConfig, QueueConfig, QueueSettings


async def test_Q7_a_subscriber_waits_on_for_a_function_that_a_job_of_a_queue_has_given_up(
    autojump_clock: MockClock,
) -> None:
    given_up = QueueSettings(max_attempts=1, missing_function_seconds=60.0)
    config = EngineConfig(modules={"queue": QueueConfig(queues={"q": given_up})})
    async with iii_trio.open_engine(config) as engine, engine.open_worker("w") as worker:
        worker.register_trigger("durable:subscriber", "f", config={"topic": "t"})
        await worker.wait_registered()
        await worker.trigger("f", {"from": "q"}, action=iii_trio.enqueue("q"))
        await wait_all_tasks_blocked()
        await worker.trigger("iii::durable::publish", {"topic": "t", "data": {"from": "t"}})
        await trio.sleep(100)
        assert len(await worker.trigger("engine::queue::dlq_messages", {"queue": "q"})) == 1
        calls: list[Any] = []

        @worker.function("f")
        async def f(payload: Any) -> None:
            calls.append(payload)

        await trio.sleep(1)
        assert calls == [{"from": "t"}]
