"""Whole histories of the queue, from seeds: workers crash, the engine is restarted or killed, handlers fail.

What a caller was told is kept is done at least once, and groups keep their order, whatever happens.
"""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

import iii_trio
from iii_trio import CallError, ConnectionFailed, EngineConfig, QueueConfig, QueueSettings, enqueue
from iii_trio.testing import simulate
from iii_trio.testing.world import World

QUEUES = {
    "plain": QueueSettings(max_attempts=50, max_lost_deliveries=50, backoff_seconds=0.5, max_backoff_seconds=5),
    "fifo": QueueSettings(
        fifo=True, group_by="g", max_attempts=50, max_lost_deliveries=50, backoff_seconds=0.5, max_backoff_seconds=5
    ),
}
CONFIG = EngineConfig(modules={"queue": QueueConfig(queues=QUEUES, memory_bytes=200)})
WORKERS = ("first", "second")


@attrs.define
class Ledger:
    """What was promised, and what was seen to be done, in order."""

    promised: list[str] = attrs.field(factory=list)
    begun: list[str] = attrs.field(factory=list)
    done: list[str] = attrs.field(factory=list)


async def history(world: World, seen: Ledger) -> None:
    random = world.random

    def program(name: str) -> Any:
        async def work(worker: iii_trio.Worker) -> None:
            @worker.function(f"{name}::do")
            async def do(g: str, n: int) -> None:
                seen.begun.append(f"{g}{n}")
                await trio.sleep(random.choice([0, 0, 0.2, 2]))
                if random.random() < 0.2:
                    raise ValueError("not this time")
                seen.done.append(f"{g}{n}")

            @worker.subscribe("news", f"{name}::hear", max_attempts=50)
            async def hear(n: int) -> None:
                seen.done.append(f"{name} news{n}")

            await trio.sleep_forever()

        return work

    async def produce(worker: iii_trio.Worker) -> None:
        for n in range(12):
            queue, name = random.choice(["plain", "fifo"]), random.choice(WORKERS)
            group = f"{queue}-{name}-"
            try:
                if n % 4 == 3:
                    await worker.trigger("iii::durable::publish", {"topic": "news", "data": {"n": n}})
                    seen.promised += [f"{name} news{n}" for name in WORKERS]
                else:
                    await worker.trigger(f"{name}::do", {"g": group, "n": n}, action=enqueue(queue))
                    seen.promised.append(f"{group}{n}")
            except (CallError, ConnectionFailed):
                pass  # nothing was promised
            await trio.sleep(random.choice([0, 0.1, 1]))

    for name in WORKERS:
        await world.start_worker(name, program(name), random.choice(["network", "memory"]))
    await trio.sleep(1)  # both have subscribed
    producing = await world.start_worker("producer", produce)
    assert producing.name == "producer"
    for _ in range(random.randrange(6)):
        await trio.sleep(random.choice([0.1, 0.5, 3]))
        match random.randrange(3):
            case 0:
                name = random.choice(WORKERS)
                world.crash_worker(name)
                await trio.sleep(random.choice([0, 1, 5]))
                await world.restart_worker(name)
            case 1:
                await world.restart_engine(crash=random.random() < 0.5)
                await trio.sleep(40)  # whoever was connected has dialled again
            case 2:
                await trio.sleep(5)
    await trio.sleep(600)
    assert not [record for record in world.jobs.load().jobs if record.progress.died_at_ms is None], (
        "somebody waits for ever"
    )


@pytest.mark.parametrize("seed", range(25))
def test_Q2_what_was_promised_is_done_and_groups_keep_their_order(seed: int) -> None:
    seen = Ledger()
    simulate(lambda world: history(world, seen), seed, config=CONFIG, max_seconds=100_000, dissolve=False)
    assert set(seen.promised) <= set(seen.done)
    for name in WORKERS:
        group = f"fifo-{name}-"
        ended = [int(each.removeprefix(group)) for each in seen.begun if each.startswith(group)]
        assert ended == sorted(ended), "one began after a later one of its group"


def test_Q2_the_same_seed_is_the_same_history() -> None:
    first, again = (
        simulate(lambda world: history(world, Ledger()), 7, config=CONFIG, max_seconds=100_000, dissolve=False)
        for _ in range(2)
    )
    assert first.transcript == again.transcript and len(first.transcript) > 50
