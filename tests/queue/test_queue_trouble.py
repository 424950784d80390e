"""Troubles that are nobody's fault, and cost a job nothing: full outboxes, unreadable disks, links that are lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import EngineConfig, QueueConfig, QueueSettings, enqueue
from iii_trio.config import Limits, Listener
from iii_trio.environment import Environment
from iii_trio.transport.dial import SocketAddress
from iii_trio.triggers.queue import MemoryStore, Payload, StorageError, open_queue
from tests.helpers.queue_world import Seen, inline

Clock = trio.testing.MockClock
ONCE = QueueSettings(max_attempts=1, max_lost_deliveries=1, concurrency=5, missing_function_seconds=None)
"""The first trouble that counts makes a dead letter."""


async def stats(app: iii_trio.Worker, queue: str = "mail") -> tuple[int, int]:
    found = await app.trigger("engine::queue::topic_stats", {"queue": queue})
    return found["depth"], found["dlq_depth"]


async def test_a_worker_that_takes_nothing_just_now_is_given_its_jobs_later(autojump_clock: Clock) -> None:
    config = EngineConfig(modules={"queue": QueueConfig(queues={"mail": ONCE})}, limits=Limits(outbox_bytes=10_000))
    async with (
        iii_trio.open_engine(config, environment=Environment(run_blocking=inline)) as engine,
        engine.open_worker("app") as app,
        trio.open_nursery() as nursery,
    ):
        link = await nursery.start(engine.address.connect)
        await link.receive()
        link.send(b'{"type":"invokefunction","function_id":"engine::workers::register","data":{"name":"busy"}}')
        link.send(b'{"type":"registerfunction","id":"busy::take"}')
        for n in range(5):
            await app.trigger("busy::take", {"n": n, "filler": "x" * 4_000}, action=enqueue("mail"))
        await trio.sleep(60)
        assert await stats(app) == (5, 0)
        taken = set()
        with trio.fail_after(600):
            while len(taken) < 5:
                message = json.loads(await link.receive() or b"")
                if message["type"] == "invokefunction":
                    assert message["metadata"]["job"]["attempt"] == 1
                    taken.add(message["data"]["n"])
                    answer = {
                        "type": "invocationresult", "invocation_id": message["invocation_id"],
                        "function_id": "busy::take", "result": None,
                    }  # fmt: skip
                    link.send(json.dumps(answer).encode())
        await trio.sleep(1)
        assert await stats(app) == (0, 0)
        nursery.cancel_scope.cancel()


class Shelf:
    """Memory, from which data can be read when it is told so."""

    def __init__(self) -> None:
        self._inner = MemoryStore()
        self.place, self.load, self.write = "memory", self._inner.load, self._inner.write
        self.close, self.tidy = self._inner.close, self._inner.tidy
        self.readable = True

    def fetch(self, keys: Sequence[int]) -> dict[int, Payload]:
        if not self.readable:
            raise StorageError("the jobs cannot be read: a scratch; see to its disk")
        return self._inner.fetch(keys)


async def test_data_that_cannot_be_read_now_is_read_later(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Shelf()
    config = EngineConfig(modules={"queue": QueueConfig(queues={"mail": ONCE}, memory_bytes=0)})
    async with (
        iii_trio.open_engine(config, stores={"queue": store}, environment=Environment(run_blocking=inline)) as engine,
        engine.open_worker("app") as app,
    ):
        seen = Seen()

        @app.function("app::send")
        async def send(n: int, metadata: Any) -> None:
            seen.add((n, metadata["job"]["attempt"]))

        store.readable = False
        await app.trigger("app::send", {"n": 1}, action=enqueue("mail"))
        await trio.sleep(10)
        assert await stats(app) == (1, 0)
        assert any("cannot be read: the jobs cannot be read: a scratch" in line.message for line in caplog.records)
        store.readable = True
        await trio.sleep(10)
        assert seen.what == [(1, 1)]
        assert await stats(app) == (0, 0)


async def test_dead_letters_that_are_thrown_away_while_they_are_looked_at_are_left_out(autojump_clock: Clock) -> None:
    looking, go_on = trio.Event(), trio.Event()
    hold = False

    async def run(function: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if hold:
            looking.set()
            await go_on.wait()
        return function()

    config = EngineConfig(modules={"queue": QueueConfig(queues={"mail": ONCE})})
    async with (
        iii_trio.open_engine(
            config, stores={"queue": MemoryStore()}, environment=Environment(run_blocking=run)
        ) as engine,
        engine.open_worker("app") as app,
    ):

        @app.function("app::fail")
        async def fail() -> None:
            raise ValueError("it is broken")

        idents = [(await app.trigger("app::fail", n, action=enqueue("mail"))).id for n in range(2)]
        await trio.sleep(1)
        listed: list[Any] = []

        async def look() -> None:
            listed.extend(await app.trigger("engine::queue::dlq_messages", {"queue": "mail"}))

        async def discard(ident: str) -> None:
            await app.trigger("iii::queue::discard_message", {"queue": "mail", "message_id": ident})

        [newer, older] = [row["id"] for row in await app.trigger("engine::queue::dlq_messages", {"queue": "mail"})]
        assert {newer, older} == set(idents)
        async with trio.open_nursery() as nursery:
            hold = True
            nursery.start_soon(look)
            await looking.wait()
            nursery.start_soon(discard, older)
            await trio.testing.wait_all_tasks_blocked()
            hold = False
            go_on.set()
        assert [row["id"] for row in listed] == [newer]


async def serve_without_a_queue(
    port: int, *, task_status: trio.TaskStatus[tuple[str, trio.CancelScope]] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.CancelScope() as scope:
        async with iii_trio.open_engine(EngineConfig(modules={"queue": None})) as engine:
            [url] = await engine.listen(Listener(port=port))
            task_status.started((url, scope))
            await trio.sleep_forever()


async def test_a_queue_of_ones_own_survives_its_engine_and_goes_on_with_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Over a socket, beside an engine that has none: its jobs are ready again when the link is lost, and lose no attempt.

    (An engine that closes says of every call that its callee is gone: to a queue beside it, that is a lost worker.)
    """
    caplog.set_level(logging.CRITICAL, "iii_trio")  # that links are lost is the point
    queues = QueueConfig(queues={"mail": attrs.evolve(ONCE, max_lost_deliveries=2)})
    async with trio.open_nursery() as nursery:
        url, first = await nursery.start(serve_without_a_queue, 0)
        async with open_queue(SocketAddress(url), queues), iii_trio.open_worker(url, name="app") as app:
            attempts: list[int] = []
            began, done, heard = trio.Event(), trio.Event(), trio.Event()

            @app.function("app::send")
            async def send(metadata: Any) -> None:
                attempts.append(metadata["job"]["attempt"])
                if len(attempts) == 1:
                    began.set()
                    await trio.sleep_forever()
                done.set()

            @app.subscribe("news", "app::hear")
            async def hear(data: dict[str, Any]) -> None:
                heard.set()

            await app.trigger("app::send", {}, action=enqueue("mail"))
            with trio.fail_after(30):
                await began.wait()
            first.cancel()
            await nursery.start(serve_without_a_queue, int(url.rpartition(":")[2]))
            with trio.fail_after(60):
                await done.wait()
                while await stats(app) != (0, 0):  # noqa: ASYNC110  (there is no event for it)
                    await trio.sleep(0.01)
                await app.trigger("iii::durable::publish", {"topic": "news", "data": {}})
                await heard.wait()
        nursery.cancel_scope.cancel()
    assert attempts == [1, 1]
