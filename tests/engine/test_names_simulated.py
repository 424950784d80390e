"""Names and functions that change hands, in whole histories with faults (docs/names.md), from seeds.

Workers crash, are reset, and vanish behind a network that still looks alive. The network delays, cuts and joins the data.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any, Final

import attrs
import pytest
import trio

import iii_trio
from iii_trio import CallError, EngineConfig, Rejected
from iii_trio.environment import Environment
from iii_trio.testing import Conditions, simulate
from iii_trio.testing.world import World
from iii_trio.worker import open_worker

ROUGH: Final = Conditions(
    delay_seconds=0.02,
    jitter_seconds=0.05,
    segment_bytes=700,
    split=0.3,
    merge=0.5,
    short_writes=0.2,
    lost_by_reset=0.5,
)
CONFIG: Final = EngineConfig()
CHALLENGE: Final = CONFIG.timeouts.name_challenge_seconds
SETTLED: Final = 5.0
"""Seconds after which a worker that nothing happened to has registered, in virtual time."""


# --- functions


@attrs.define
class Offering:
    """A worker that offers the function, as the scenario knows it."""

    name: str
    worker: iii_trio.Worker
    quiet_since: float
    """When something last happened to it."""
    unregister: Callable[[], None]
    is_apart: bool = False


async def deploy(world: World) -> list[str]:
    """Have workers that offer one function come, go and fail, while a caller calls it. Return who answered."""
    random, offering, answers = world.random, dict[str, Offering](), list[str]()

    async def start(name: str) -> None:
        async def offer(worker: iii_trio.Worker) -> None:
            async def answer() -> str:
                return name

            registered = worker.register_function("svc::x", answer)
            offering[name] = Offering(name, worker, world.now, registered.unregister)
            await trio.sleep_forever()

        await world.start_worker(name, offer)
        await world.settle()

    def must_be_served() -> bool:
        """Whether some worker has offered the function for a while, with nothing that the engine could not know."""
        return any(
            not each.is_apart and each.worker.connected and world.now - each.quiet_since > SETTLED
            for each in offering.values()
        )

    async def call(caller: iii_trio.Worker) -> None:
        while True:
            served = must_be_served()
            try:
                with trio.move_on_after(1):
                    answers.append(await caller.trigger("svc::x"))
            except CallError as error:
                # A call that a worker took with it is stopped. It is not told that nobody has the function.
                assert error.code in ("invocation_stopped", "function_not_found"), error
                # A worker that unregisters answers the calls that were on their way to it, with a text of its own.
                by_engine = "not found in namespace" in error.message
                assert not (served and by_engine), f"at {world.now}"
            await trio.sleep(random.choice([0.01, 0.1, 0.3]))

    async with world.open_worker("caller", "memory") as caller, trio.open_nursery() as nursery:
        for name in ("one", "two"):
            await start(name)
        nursery.start_soon(call, caller)
        for step in range(12):
            await trio.sleep(random.choice([0.0, 0.05, 1.0, 8.0]))
            name = random.choice(sorted(offering)) if offering else ""
            fault = random.choice(["come", "crash", "reset", "apart", "heal", "unregister"])
            if fault == "come" or not name:
                await start(f"later{step}")
                continue
            each = offering[name]
            each.quiet_since = world.now
            world.note(name, fault)
            if fault == "crash":
                world.crash_worker(name)
                del offering[name]
            elif fault == "reset":
                world.network.reset(name)
            elif fault == "apart":
                world.network.partition(name)
                each.is_apart = True
            elif fault == "heal":
                world.network.heal(name)
                each.is_apart = False
            elif fault == "unregister" and each.worker.connected and not each.is_apart:
                each.unregister()
                del offering[name]
        for name in offering:
            world.network.heal(name)
            offering[name].is_apart = False
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
        await trio.sleep(400)  # those that vanished were found, and have dialled again
        rows = (await caller.trigger("engine::functions::list", {"prefix": "svc::"}))["functions"]
        # Each worker that offers it has it, or stands by.
        if offering:
            [row] = rows
            assert {row["worker_name"], *row.get("standby_workers", [])} == set(offering)
            assert await caller.trigger("svc::x") == row["worker_name"]
        else:
            assert not rows
    return answers


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 60))])
def test_R2_a_function_that_some_worker_offers_is_never_said_to_be_missing(seed: int) -> None:
    simulate(deploy, seed, conditions=ROUGH, config=CONFIG)


def test_R2_the_histories_hand_the_function_over() -> None:
    """Guard against scenarios in which nothing happens."""
    changes = 0
    for seed in range(3):
        answers = simulate(deploy, seed, conditions=ROUGH, config=CONFIG).value
        changes += sum(a != b for a, b in pairwise(answers))
    assert changes >= 3


# --- names


async def answer() -> str:
    return "here"


def seeded(world: World) -> Environment:
    return Environment(world.new_id, Random(world.random.getrandbits(64)))


async def claim(world: World, fate: str) -> dict[str, Any]:
    """Have one worker hold a name, something happen to it, and another one claim the name. Return what came of it."""
    random, told = world.random, dict[str, Any]()
    holding, ending, left = trio.Event(), trio.Event(), trio.Event()

    async def hold() -> None:
        with told.setdefault("scope", trio.CancelScope()):
            try:
                async with open_worker(world.address("holder"), name="shared", environment=seeded(world)) as worker:
                    told["holder"] = worker
                    worker.register_function("svc::x", answer)
                    await worker.wait_registered()
                    holding.set()
                    await ending.wait()
            except Rejected as error:
                told["holder rejected"] = error.code
        left.set()

    async def keep_calling() -> None:
        async with world.open_worker("caller", "memory") as caller:
            while not ending.is_set():
                with trio.move_on_after(1):
                    try:
                        await caller.trigger("svc::x")
                    except CallError as error:
                        assert error.code in ("invocation_stopped", "function_not_found"), error
                await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await holding.wait()
        nursery.start_soon(keep_calling)
        await trio.sleep(random.choice([0.0, 1.0, 50.0]))
        world.note("the holder is", fate)
        if fate == "apart":
            world.network.partition("holder")
        elif fate == "crashed":
            for near, _ in world.network.connections("holder"):
                near.close()
            told["scope"].cancel()
        elif fate == "leaving":
            ending.set()
            await left.wait()  # its Close is on its way
        await trio.sleep(random.choice([0.0, 0.02, 0.3]))
        began = world.now
        try:
            async with open_worker(world.address("newcomer"), name="shared", environment=seeded(world)) as newcomer:
                newcomer.register_function("svc::x", answer)
                told["refused"] = await newcomer.wait_registered()
                told["took"] = world.now - began
                world.network.heal("holder")
                await trio.sleep(300)
                told["connected"] = newcomer.connected
                async with world.open_worker("asker", "memory") as asker:
                    [row] = (await asker.trigger("engine::functions::list", {"prefix": "svc::"}))["functions"]
                    told["row"] = row
        except Rejected as error:
            told["newcomer rejected"], told["took"] = error.code, world.now - began
            told["holder connected"] = told["holder"].connected
        ending.set()
    return told


@pytest.mark.parametrize("fate", ["alive", "apart", "crashed", "leaving"])
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 25))])
def test_R7_a_name_is_given_to_a_newcomer_exactly_when_its_holder_is_gone(seed: int, fate: str) -> None:
    told = simulate(lambda world: claim(world, fate), seed, conditions=ROUGH, config=CONFIG).value
    if fate == "alive":  # R6
        assert told["newcomer rejected"] == "WORKER_NAMESPACE_CONFLICT"
        assert told["holder connected"] and "holder rejected" not in told
        assert told["took"] < CHALLENGE
        return
    assert "newcomer rejected" not in told and told["connected"], told
    assert not told["refused"]
    assert (told["row"]["worker_name"], "standby_workers" in told["row"]) == ("shared", False)
    if fate == "apart":  # R7
        assert CHALLENGE <= told["took"] < CHALLENGE + 2
        assert told["holder rejected"] == "WORKER_NAMESPACE_CONFLICT", "it comes back, and the name is another's"
    else:  # R8
        assert told["took"] < 2
