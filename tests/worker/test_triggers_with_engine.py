"""Triggers between workers of a real engine."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.testing import cancel_everywhere
from iii_trio.testing.cancelling import Run, Seen
from iii_trio.worker import BoundTrigger, Worker, current_call


@attrs.frozen
class Harbour:
    harbour: str


async def take_word(worker: Worker) -> None:
    """Until what this worker offered is known, and what others said of it has come back."""
    await worker.wait_registered()
    await trio.testing.wait_all_tasks_blocked()


def provide(worker: Worker) -> dict[str, BoundTrigger]:
    """A trigger type that knows one harbour; what is bound, by the bound function's id."""
    bound: dict[str, BoundTrigger] = {}

    @worker.trigger_type("tide", config=Harbour)
    class Tides:
        """fires at high water"""

        async def register_trigger(self, binding: BoundTrigger) -> None:
            if binding.config.harbour != "brest":
                raise ValueError("unknown harbour")
            bound[binding.function_id] = binding

        async def unregister_trigger(self, binding: BoundTrigger) -> None:
            del bound[binding.function_id]

    return bound


@pytest.mark.parametrize("over", ["memory", "sockets"])
async def test_a_trigger_fires_across_workers_with_namespace_and_metadata(over: str) -> None:
    async with iii_trio.open_engine() as engine:
        at: Any = engine
        if over == "sockets":
            (at,) = await engine.listen(iii_trio.Listener(port=0))
        async with (
            iii_trio.open_worker(at, name="harbour") as harbour,
            iii_trio.open_worker(at, name="boats", namespace="fleet") as boats,
        ):

            @boats.function("boats::launch")
            async def launch(height: int) -> dict[str, Any]:
                return {"height": height, "lane": current_call().metadata}

            binding = boats.register_trigger("tide", "boats::launch", config=Harbour("brest"), metadata={"lane": 3})
            await boats.wait_registered()  # parked: nobody provides it yet
            bound = provide(harbour)
            while "boats::launch" not in bound:
                await trio.testing.wait_all_tasks_blocked(0.001)
            assert await bound["boats::launch"].fire({"height": 7}) == {"height": 7, "lane": {"lane": 3}}
            assert binding.error is None
            listed = await boats.trigger("engine::registered-triggers::list", {"trigger_type": "tide"})
            assert [row["id"] for row in listed["registered_triggers"]] == [binding.id]
            about = await boats.trigger("engine::triggers::info", {"id": "tide"})
            assert about["description"] == "fires at high water"
            assert about["configuration_schema"]["required"] == ["harbour"]
            binding.unregister()
            while bound:
                await trio.testing.wait_all_tasks_blocked(0.001)


async def test_a_refusal_reaches_who_asked() -> None:
    async with iii_trio.open_engine() as engine:
        async with engine.open_worker("harbour") as harbour, engine.open_worker("boats") as boats:
            provide(harbour)
            await take_word(harbour)
            told: list[iii_trio.CallError] = []
            wrong = boats.register_trigger("tide", "f", config={"harbour": "atlantis"}, on_error=told.append)
            shapeless = boats.register_trigger("tide", "g")
            await take_word(boats)
            assert wrong.error is not None and wrong.error.message == "unknown harbour" and told == [wrong.error]
            assert shapeless.error is not None and shapeless.error.code == "trigger_registration_failed"
            assert "config" in shapeless.error.message


async def test_a_provider_that_leaves_or_withdraws_is_replaced_by_the_next() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("boats") as boats:
        boats.register_trigger("tide", "f", config=Harbour("brest"))
        async with engine.open_worker("one") as one:
            bound = provide(one)
            await take_word(one)
            assert list(bound) == ["f"]
        assert bound == {}
        async with engine.open_worker("two") as two, engine.open_worker("three") as three:
            bound = provide(two)
            await take_word(two)
            assert list(bound) == ["f"]
            two._registrations.trigger_types["tide"].unregister()
            await take_word(two)
            assert bound == {}
            bound = provide(three)
            await take_word(three)
            assert list(bound) == ["f"]


async def test_a_task_for_each_binding_fires_until_nobody_wants_it(autojump_clock: trio.testing.MockClock) -> None:
    async with iii_trio.open_engine() as engine:
        async with engine.open_worker("clock") as clock, engine.open_worker("app") as app:
            ticks: list[float] = []

            @clock.trigger_type("tick")
            async def tick(bound: BoundTrigger, *, task_status: trio.TaskStatus[None]) -> None:
                task_status.started()
                while True:
                    await trio.sleep(bound.config)
                    await bound.fire({"at": trio.current_time()})

            @app.function("app::heard")
            async def heard(at: float) -> None:
                ticks.append(at)

            binding = app.register_trigger("tick", "app::heard", config=10)
            await trio.sleep(35)
            binding.unregister()
            await trio.sleep(100)
            assert ticks == [10, 20, 30]


async def test_the_engines_own_types_tell_of_workers_and_functions(autojump_clock: trio.testing.MockClock) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("watch", namespace="tower") as watch:
        events: list[Any] = []

        @watch.function("watch::event")
        async def event(data: dict[str, Any]) -> None:
            events.append((data["event"], current_call().metadata))

        for type_id in ("engine::workers-available", "engine::functions-available"):
            watch.register_trigger(type_id, "watch::event", metadata={"about": type_id})
        await take_word(watch)
        events.clear()
        async with engine.open_worker("other") as other:
            other.register_function("other::f", lambda: None)
            await trio.sleep(10)
        await trio.sleep(10)
        workers, functions = ({"about": f"engine::{kind}-available"} for kind in ("workers", "functions"))
        assert ("worker_connected", workers) in events and ("worker_disconnected", workers) in events
        assert events.count(("functions_changed", functions)) == 2


def test_wherever_a_provider_is_cancelled_each_bind_has_one_unbind_and_nothing_is_left() -> None:
    async def around(seen: Seen, run: Run) -> None:
        async with iii_trio.open_engine() as engine, engine.open_worker("boats") as boats:
            boats.register_trigger("tide", "boats::launch", config=Harbour("brest"))
            await boats.wait_registered()
            seen["engine"], seen["events"] = engine, []
            await run()
            await trio.sleep(60)
            seen["left"] = engine.statistics().sessions

    async def subject(seen: Seen) -> None:
        events = seen["events"]
        async with seen["engine"].open_worker("harbour") as harbour:

            async def bind(bound: BoundTrigger) -> None:
                await trio.lowlevel.checkpoint()
                events.append("bound")

            async def unbind(bound: BoundTrigger) -> None:
                events.append("unbound")
                await trio.lowlevel.checkpoint()

            harbour.register_trigger_type("tide", (bind, unbind), config=Harbour)
            await harbour.wait_registered()
            await trio.sleep(1)
            seen["whole"] = True

    def check(seen: Seen) -> None:
        assert seen["events"] in ([], ["bound", "unbound"])
        assert "whole" not in seen or seen["events"]
        assert seen["left"] == 1  # the binder's

    cancel_everywhere(subject, check, around=around, others=True)
