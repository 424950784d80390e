"""Calls between nodes, over a model of the store in virtual time (promises N1 to N9 of docs/cluster.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio.errors import CallError
from iii_trio.testing.sim_stream import Conditions
from iii_trio.triggers.cluster.records import FUNCTION, Key

from .mesh_world import LEASE_SECONDS, MeshWorld, mesh_world

SAY = Key(FUNCTION, "default", "say")


async def offer(worker: iii_trio.Worker, answer: str, function_id: str = "say") -> iii_trio.Registered:
    """Have a worker offer a function that answers with a text."""

    async def handler() -> str:
        return answer

    registered = worker.register_function(function_id, handler)
    await worker.wait_registered()
    return registered


async def test_N1_a_function_of_another_node_is_called_and_its_errors_come_back(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world:
        async with world.open_worker("a", "shop", "network") as shop, world.open_worker("b", "app", "network") as app:
            seen: list[Any] = []
            ids: list[str] = []

            @shop.function("orders::price", description="the price")
            async def price(amount: int, metadata: Any = None) -> int:
                call = iii_trio.current_call()
                assert call is not None
                seen.append((metadata, call.traceparent, call.baggage, call.caller))
                ids.append(call.invocation_id)
                if amount < 0:
                    raise CallError("negative", f"{amount} is not an amount", stacktrace="line 1")
                return 3 * amount

            await shop.wait_registered()
            await world.settle()
            trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            asked = {"metadata": {"for": "you"}, "traceparent": trace, "baggage": "k=v"}
            assert await app.trigger("orders::price", {"amount": 7}, **asked) == 21
            assert seen[0] == ({"for": "you"}, trace, "k=v", app.worker_id)
            with pytest.raises(CallError) as failed:
                await app.trigger("orders::price", {"amount": -1})
            error = failed.value
            assert (error.code, error.message, error.stacktrace, error.origin) == (
                "negative",
                "-1 is not an amount",
                "line 1",
                "handler",
            )
            listed = await app.trigger("engine::functions::list", {"prefix": "orders::"})
            (row,) = listed["functions"]
            assert (row["worker_name"], row["node"], row["description"]) == ("shop", "a", "the price")
            large = await app.trigger("orders::price", {"amount": 1, "more": "x" * 3_000_000})
            assert large == 3  # beyond what an engine's own functions take


async def test_N2_a_worker_of_the_own_node_is_preferred(autojump_clock: MockClock) -> None:
    async with mesh_world() as world:
        # Both offer it before their nodes know of each other.
        await world.start("a")
        async with world.open_worker("a", "one") as one:
            await offer(one, "a")
            world.cut_from_store("b")
            await world.start("b")
            async with world.open_worker("b", "two") as two:
                await offer(two, "b")
                world.reach_store("b")
                await world.settle()
                assert await one.trigger("say") == "a"
                assert await two.trigger("say") == "b"


async def test_N3_a_worker_of_another_node_stands_by_and_takes_over(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b", "c") as world, world.open_worker("c", "caller") as caller:
        answers: list[str] = []

        async def call_on() -> None:
            while True:
                answers.append(await caller.trigger("say"))
                await trio.sleep(0.001)

        async with world.open_worker("a", "one") as one:
            held = await offer(one, "a")
            await world.settle()
            async with world.open_worker("b", "two") as two, trio.open_nursery() as nursery:
                second = await offer(two, "b")
                await two.wait_registered()
                assert second.refused is not None and "this one takes over when it goes" in second.refused
                nursery.start_soon(call_on)
                await trio.sleep(0.5)
                held.unregister()
                await trio.sleep(2)
                nursery.cancel_scope.cancel()
        # No call between was refused.
        assert set(answers) == {"a", "b"} and answers == sorted(answers)


@pytest.mark.parametrize("ends", ["reached", "refused", "left", "cancelled"])
async def test_N3_a_call_waits_while_a_node_that_has_just_joined_is_dialled(
    ends: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh_world("b") as world:
        dial, answered = world._dial, trio.Event()

        async def slow(here: str, there: str) -> trio.abc.Stream:
            if (here, there) == ("b", "a"):
                await answered.wait()
                if ends == "refused":
                    raise ConnectionRefusedError(111, "Connection refused")
            return await dial(here, there)

        monkeypatch.setattr(world, "_dial", slow)
        await world.start("a")
        told: list[object] = []

        async def call(two: iii_trio.Worker) -> None:
            try:
                told.append(await two.trigger("say"))
            except CallError as error:
                told.append(error.code)

        async with world.open_worker("a", "one") as one, world.open_worker("b", "two") as two:
            await offer(one, "a")
            b = world["b"].cluster
            await world.until(lambda: SAY in b.proxies)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, two)
                await trio.sleep(1)
                assert told == [] and b.links["a"].calls == 1
                if ends == "cancelled":
                    nursery.cancel_scope.cancel()
                elif ends == "left":
                    await world.stop("a")
                else:
                    answered.set()
            expected = {"reached": ["a"], "refused": ["function_not_found"], "left": ["function_not_found"]}
            assert told == expected.get(ends, [])
            await world.until(lambda: all(link.calls == 0 for link in b.links.values()))
            answered.set()


async def waiting_call(world: MeshWorld, results: list[Any]) -> None:
    """Call a function that does not answer, and keep the error with the time at which it came."""
    async with world.open_worker("b", "patient") as worker:
        began = trio.current_time()
        with pytest.raises(CallError) as failed:
            await worker.trigger("wait")
        results.append((failed.value, trio.current_time() - began))


@pytest.mark.parametrize("way", ["killed", "cut", "silent", "left"])
async def test_N4_callers_are_answered_when_the_node_is_lost(way: str, autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world:
        async with world.open_worker("a", "one") as one:

            @one.function("wait")
            async def wait() -> None:
                await trio.sleep_forever()

            await one.wait_registered()
            await world.settle()
            results: list[Any] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiting_call, world, results)
                await trio.sleep(1)
                if way == "cut":
                    world.cut("a", "b")
                elif way == "silent":
                    world.silence("a", "b")
                    world.cut_from_store("a")
                elif way == "killed":
                    await world.kill("a")
                else:
                    await world.stop("a")
            ((error, seconds),) = results
            assert (error.code, error.origin) == ("invocation_stopped", "engine")
            # A connection tells at once, a lease after its length and the time between two looks.
            assert seconds <= (1 + LEASE_SECONDS * 5 / 3 if way == "silent" else 1.1)
            assert SAY not in world["b"].cluster.proxies


async def test_N5_a_lost_lease_removes_all_that_the_node_offered_everywhere(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b", "c") as world:
        async with world.open_worker("a", "one") as one:
            for number in range(5):
                await offer(one, "a", f"say::{number}")
            await world.settle()
            assert len(world["b"].cluster.proxies) == len(world["c"].cluster.proxies) == 5
            world.cut_from_store("a")
            began = trio.current_time()
            await world.until(lambda: not world["b"].cluster.proxies and not world["c"].cluster.proxies)
            assert trio.current_time() - began <= LEASE_SECONDS * 4 / 3 + 0.1
            assert not world["a"].cluster.joined
            assert await one.trigger("say::1") == "a"  # its own workers are served on
            world.reach_store("a")
            await world.settle()
            assert len(world["b"].cluster.proxies) == 5


async def test_N6_a_cancelled_call_cancels_its_handler_at_the_other_node(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world:
        async with world.open_worker("a", "one", "network") as one, world.open_worker("b", "two", "network") as two:
            seen: list[str] = []

            @one.function("wait")
            async def wait() -> None:
                seen.append("called")
                try:
                    await trio.sleep_forever()
                except trio.Cancelled as cancelled:
                    seen.append(str(cancelled.reason))
                    raise

            await one.wait_registered()
            await world.settle()
            with trio.move_on_after(1):
                await two.trigger("wait")
            await world.until(lambda: len(seen) == 2, 1)
            assert seen == ["called", "the caller was cancelled"]
            assert world["b"].cluster.links["a"].calls == 0


async def test_N7_no_call_goes_in_a_circle(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world:
        async with world.open_worker("a", "one") as one, world.open_worker("b", "two") as two:
            held = await offer(one, "a")
            await world.settle()
            # Each node comes to believe the function at the other.
            a, b = world["a"].cluster, world["b"].cluster
            world.store.publish(b.lease.node, 99, {SAY: b"{}"})  # type: ignore[arg-type]
            world.cut_from_store("b")  # it does not correct it
            await world.until(lambda: a.directory.position.number == world.store.number)
            async with world.open_worker("a", "third") as third:
                held.unregister()
                await one.wait_registered()
                with trio.fail_after(5), pytest.raises(CallError) as failed:
                    await third.trigger("say")
                assert failed.value.code == "function_not_found"
            assert two.connected


async def test_N8_a_lost_store_stops_no_call_and_a_store_without_its_data_is_filled_again(
    autojump_clock: MockClock,
) -> None:
    async with mesh_world("a", "b", "c") as world:
        async with world.open_worker("a", "one") as one, world.open_worker("b", "two") as two:
            await offer(one, "a")
            await world.settle()
            world.store.is_down = True
            for _ in range(30):
                await trio.sleep(2)
                assert await two.trigger("say") == "a"
            assert not world["b"].cluster.joined and "cannot be used" in world["b"].cluster.problem
            world.store.is_down = False
            for _ in range(20):  # nobody takes anything from the others that were away as long as it was
                await trio.sleep(0.5)
                assert await two.trigger("say") == "a"
            await world.settle()
            world.store.lose_everything()
            await trio.sleep(LEASE_SECONDS)
            await world.settle()
            assert set(world.store.nodes) == {"a", "b", "c"} and SAY in world.store.offers["a"]
            assert await two.trigger("say") == "a"


async def test_N9_missing_lines_are_repaired_by_reading_all(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b", log_length=3) as world:
        async with world.open_worker("a", "one") as one:
            world.cut_from_store("b")
            for number in range(10):
                await offer(one, "a", f"say::{number}")
                await trio.sleep(0.3)
            world.reach_store("b")
            await world.settle()
            assert len(world["b"].cluster.proxies) == 10


async def test_N20_a_node_that_drains_hands_its_calls_over(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b", "c") as world, world.open_worker("c", "caller") as caller:
        answers: list[str] = []

        async def call_on() -> None:
            while True:
                answers.append(await caller.trigger("say"))
                await trio.sleep(0.001)

        async with world.open_worker("a", "one") as one, world.open_worker("b", "two") as two:

            @one.function("slow")
            async def slow() -> str:
                await trio.sleep(3)
                return "done"

            await offer(one, "a")
            await world.settle()
            await offer(two, "b")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call_on)
                slow_answers: list[str] = []

                async def call_slow() -> None:
                    slow_answers.append(await caller.trigger("slow"))

                nursery.start_soon(call_slow)
                await trio.sleep(0.5)
                assert await world["a"].engine.drain(10)
                await trio.sleep(0.5)
                nursery.cancel_scope.cancel()
        assert set(answers) == {"a", "b"} and answers == sorted(answers)
        assert slow_answers == ["done"]


async def test_N3_one_of_two_that_stand_by_at_different_nodes_takes_over_for_all(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b", "c") as world, world.open_worker("c", "caller") as caller:
        async with world.open_worker("a", "one") as one:
            held = await offer(one, "a")
            await world.settle()
            async with world.open_worker("b", "two") as two, world.open_worker("c", "three") as three:
                await offer(two, "b")
                await world.settle()
                await offer(three, "c")
                await world.settle()
                held.unregister()
                await world.settle()
                for worker in (one, two, caller):
                    assert await worker.trigger("say") == "b"
                listed = await caller.trigger("engine::functions::list", {"prefix": "say"})
                assert [(row["node"], row["standby_workers"]) for row in listed["functions"]] == [("b", ["three"])]


async def test_N1_a_function_keeps_its_namespace(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world:
        async with (
            world.open_worker("a", "one", "network", namespace="north") as one,
            world.open_worker("b", "two", "network", namespace="north") as two,
            world.open_worker("b", "three") as three,
        ):
            await offer(one, "a")
            await world.settle()
            assert await two.trigger("say") == "a"
            assert await three.trigger("say", namespace="north") == "a"
            with pytest.raises(CallError, match=r"It is registered in namespace\(s\): north"):
                await three.trigger("say")


async def test_a_second_engine_of_one_name_is_refused_and_serves_alone(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world:
        taken = world.store.nodes["a"]
        world.store.nodes["c"] = attrs.evolve(taken, name="c", address="ws://elsewhere")
        world.store.leases["c"] = (taken.fence, trio.current_time() + 60)
        third = await world.start("c", joins=False)
        assert third.cluster.status == "node c of valkey://store:6379/mesh, not joined yet"
        async with world.open_worker("c", "alone") as alone:
            await offer(alone, "c")
            await trio.sleep(5)
            assert third.cluster.problem == ("another engine, at ws://elsewhere, is node c: name this one otherwise")
            assert await alone.trigger("say") == "c"
            await world.until(lambda: third.cluster.joined, 90)  # once the lease of the other one has run out
            assert third.cluster.status == "node c of valkey://store:6379/mesh"


@asynccontextmanager
async def slow_mesh_with_a_standby() -> AsyncIterator[tuple[MeshWorld, iii_trio.Worker]]:
    """Open a mesh of slow links, in which a offers a function and b stands by. Yields it with a worker of c."""
    async with mesh_world("a", "b", "c", conditions=Conditions(delay_seconds=0.2)) as world:
        async with (
            world.open_worker("a", "first") as first,
            world.open_worker("b", "second") as second,
            world.open_worker("c", "app") as app,
        ):
            await offer(first, "a")
            await world.settle()
            await offer(second, "b")
            await world.settle()
            yield world, app


async def ask(worker: iii_trio.Worker, answers: list[Any]) -> None:
    """Call the function, and note its answer."""
    answers.append(await worker.trigger("say"))


async def test_N3_a_call_that_a_leaving_node_has_not_read_goes_to_one_that_stands_by(autojump_clock: MockClock) -> None:
    async with slow_mesh_with_a_standby() as (world, app):
        assert await app.trigger("say") == "a"
        answers: list[Any] = []
        # Some are on their way when the node closes, and the others learn at once that it has left.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.stop, "a")
            for _ in range(60):
                nursery.start_soon(ask, app, answers)
                await trio.sleep(0.02)
        assert len(answers) == 60 and set(answers) == {"a", "b"}
        await world.until(lambda: "a" not in world["c"].cluster.links)


async def test_N3_a_call_that_an_engine_has_not_read_before_its_close_goes_to_one_that_stands_by(
    autojump_clock: MockClock,
) -> None:
    async with slow_mesh_with_a_standby() as (world, app):
        answers: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, app, answers)
            await trio.sleep(0.1)
            # The call is on its way. It arrives behind the Close, and is thrown away.
            world["a"].engine._shell.close("it restarts")
        assert answers == ["b"]


async def test_N3_calls_wait_for_a_node_that_has_joined_before_it_listens(autojump_clock: MockClock) -> None:
    async with mesh_world("a") as world:
        world.cut("a", "b")
        await world.start("b")
        async with world.open_worker("b", "shop") as shop, world.open_worker("a", "app") as app:
            await offer(shop, "b")
            await world.until(lambda: any(key == SAY for key in world["a"].cluster.directory))
            assert "refused" in world["a"].cluster.links["b"].problem
            answers: list[Any] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, app, answers)
                await trio.sleep(0.3)
                world.mend("a", "b")
            assert answers == ["b"]


async def test_a_node_that_goes_on_refusing_connections_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with mesh_world("a") as world:
        world.cut("a", "b")
        await world.start("b")
        async with world.open_worker("b", "shop") as shop, world.open_worker("a", "app") as app:
            await offer(shop, "b")
            await world.until(lambda: any(key == SAY for key in world["a"].cluster.directory))
            began = trio.current_time()
            with pytest.raises(CallError) as failed:
                await app.trigger("say")
            assert failed.value.code == "function_not_found" and trio.current_time() - began < 7
            began = trio.current_time()
            with pytest.raises(CallError):
                await app.trigger("say")
            assert trio.current_time() == began
