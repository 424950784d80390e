"""Three nodes in processes of their own and a real Valkey, killed and stopped under load.

III_CLUSTER_ROUNDS sets the number of rounds. Without it, each party is killed once.
"""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

import iii_trio
from iii_trio.errors import CallError, ChannelBroken, ConnectionFailed

from .node_processes import three_nodes, until_true

ROUNDS = int(os.environ.get("III_CLUSTER_ROUNDS", "4"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240 + 20 * ROUNDS)]
ITEMS = 200
ANSWER_SECONDS = 75
"""Longer than a worker waits between two attempts to dial an engine that takes long to start again (30 s)."""


class Load:
    """Calls, streams and jobs across the nodes, and what has become of them."""

    def __init__(self) -> None:
        self.answered = self.failed = self.complete = self.broken = 0
        self.acknowledged: set[int] = set()
        self.done: set[int] = set()
        self.violations: list[str] = []

    def offer(self, one: iii_trio.Worker, two: iii_trio.Worker) -> None:
        @one.function("echo")
        async def echo(n: int) -> int:
            return n

        @two.function("give")
        async def give(writer: iii_trio.ChannelWriter) -> None:
            for number in range(ITEMS):
                await writer.send(str(number) + "." * 500)

        @two.function("job")
        async def job(n: int) -> None:
            self.done.add(n)

    async def call(self, worker: iii_trio.Worker) -> None:
        n = 0
        while True:
            n += 1
            try:
                with trio.fail_after(ANSWER_SECONDS):
                    if await worker.trigger("echo", {"n": n}) != n:
                        self.violations.append(f"call {n} got another's answer")
                self.answered += 1
            except trio.TooSlowError:
                self.violations.append(f"call {n} was not answered")
            except (CallError, ConnectionFailed):
                self.failed += 1
            await trio.sleep(0.01)

    async def stream(self, worker: iii_trio.Worker) -> None:
        while True:
            try:
                with trio.move_on_after(40) as scope:
                    await self._stream_once(worker)
                if scope.cancelled_caught:
                    self.violations.append("a stream hung")
            except* (CallError, ConnectionFailed, ChannelBroken):
                self.broken += 1
            await trio.sleep(0.01)

    async def _stream_once(self, worker: iii_trio.Worker) -> None:
        got = 0
        async with worker.create_channel() as channel, trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, worker, channel.writer.ref, nursery.cancel_scope)
            async for item in channel.reader:
                if not str(item).startswith(f"{got}."):
                    self.violations.append(f"item {got} is {item[:10]!r}")
                got += 1
            if got != ITEMS:
                self.violations.append(f"a stream ended cleanly after {got} items")
            self.complete += 1

    async def _ask(self, worker: iii_trio.Worker, ref: Any, scope: trio.CancelScope) -> None:
        try:
            await worker.trigger("give", {"writer": ref})
        # The writer may never come, and only this call tells so.
        except (CallError, ConnectionFailed):
            scope.cancel()

    async def enqueue(self, worker: iii_trio.Worker) -> None:
        n = 0
        while True:
            n += 1
            try:
                with trio.fail_after(ANSWER_SECONDS):
                    await worker.trigger("job", {"n": n}, action=iii_trio.enqueue("default"))
                self.acknowledged.add(n)
            except trio.TooSlowError:
                self.violations.append(f"job {n} was not answered")
            except (CallError, ConnectionFailed):
                pass
            await trio.sleep(0.05)


async def test_kills_of_each_party_under_load(tmp_path: Path) -> None:
    load = Load()
    async with AsyncExitStack() as stack:
        nodes, valkey = await stack.enter_async_context(three_nodes(tmp_path))
        workers = {
            name: await stack.enter_async_context(iii_trio.open_worker(node.url, name=f"worker {name}"))
            for name, node in nodes.items()
        }
        load.offer(workers["a"], workers["b"])

        async def works() -> bool:
            await workers["c"].trigger("echo", {"n": 0})
            complete = load.complete
            with trio.move_on_after(8):
                while load.complete == complete:  # noqa: ASYNC110 - a look now and then is enough
                    await trio.sleep(0.05)
            return load.complete > complete

        nursery = await stack.enter_async_context(trio.open_nursery())
        for task in (load.call, load.stream, load.enqueue):
            nursery.start_soon(task, workers["c"])
        await until_true(works)
        for number in range(ROUNDS):
            victim = "abcv"[number % 4]
            if victim == "v":
                valkey.stop()
                await trio.sleep(0.5)
                valkey.start()
            else:
                await nodes[victim].end()
                await trio.sleep(0.2 + number % 3)
                await nodes[victim].start()
            await until_true(works)
            assert not load.violations, (number, victim, load.violations)
            print(f"round {number}: {victim} was killed", flush=True)
        assert load.acknowledged
        await until_true(lambda: _later(load.acknowledged <= load.done))
        print(
            f"{ROUNDS} rounds: {load.answered} calls answered, {load.failed} failed, "
            f"{load.complete} streams whole, {load.broken} broken, {len(load.done)} jobs"
        )
        nursery.cancel_scope.cancel()
    assert not load.violations


async def _later(value: bool) -> bool:
    return value


async def test_a_node_that_was_stopped_for_longer_than_its_lease_comes_back_with_a_new_number(tmp_path: Path) -> None:
    async with three_nodes(tmp_path) as (nodes, _):
        async with (
            iii_trio.open_worker(nodes["a"].url, name="one") as one,
            iii_trio.open_worker(nodes["b"].url, name="two") as two,
            iii_trio.open_worker(nodes["c"].url, name="caller") as caller,
        ):

            @one.function("where")
            async def at_a() -> str:
                return "a"

            await until_true(lambda: caller.trigger("where"))
            second = two.register_function("where", _at_b)
            await two.wait_registered()
            assert second.refused is not None

            async def fence() -> int:
                rows = (await caller.trigger("engine::cluster::nodes"))["nodes"]
                return next((int(row["fence"]) for row in rows if row["node"] == "a"), 0)

            before = await fence()
            process = nodes["a"].process
            assert process is not None
            process.send_signal(signal.SIGSTOP)

            async def taken_over() -> bool:
                return bool(await caller.trigger("where") == "b")

            began = trio.current_time()
            await until_true(taken_over, 60)
            took = trio.current_time() - began
            process.send_signal(signal.SIGCONT)

            async def is_back() -> bool:
                return await fence() > before

            await until_true(is_back, 30)
            await until_true(lambda: caller.trigger("where"))
            assert took < 15, took  # one lease of 3 s, a look at it each second, and the call that waited


async def _at_b() -> str:
    return "b"


async def test_a_rolling_restart_fails_no_call_where_a_standby_exists(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        nodes, _ = await stack.enter_async_context(three_nodes(tmp_path))
        caller = await stack.enter_async_context(iii_trio.open_worker(nodes["c"].url, name="caller"))
        for name in "ab":
            worker = await stack.enter_async_context(iii_trio.open_worker(nodes[name].url, name=f"worker {name}"))
            worker.register_function("where", _at_b)
        await until_true(lambda: caller.trigger("where"))
        counts = {"answered": 0}
        failures: list[str] = []

        async def call_on() -> None:
            while True:
                try:
                    await caller.trigger("where")
                    counts["answered"] += 1
                except CallError as error:
                    failures.append(str(error))
                await trio.sleep(0.005)

        async def both_offer_it() -> bool:
            rows = (await caller.trigger("engine::cluster::nodes"))["nodes"]
            return len(rows) == 3 and all(row["functions"] for row in rows if row["node"] in "ab")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_on)
            for name in "ab":
                await until_true(both_offer_it)
                await nodes[name].end(signal.SIGTERM)
                await nodes[name].start()
            await until_true(both_offer_it)
            nursery.cancel_scope.cancel()
        assert failures == [] and counts["answered"] > 100
