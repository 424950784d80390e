"""How the engine opens its queue."""

from __future__ import annotations

import pytest
from trio.testing import MockClock as Clock

import iii_trio
from iii_trio import CallError, EngineConfig, Limits, QueueConfig, enqueue


async def test_Q22_the_engines_own_queue_counts_in_the_engines_memory(autojump_clock: Clock) -> None:
    config = EngineConfig(limits=Limits(memory_bytes=2_000_000), modules={"queue": QueueConfig()})
    async with iii_trio.open_engine(config) as engine, engine.open_worker("w") as worker:
        await worker.trigger("nobody::has_this", "x" * 600_000, action=enqueue("default"))
        with pytest.raises(CallError, match=r"half of limits\.memory_bytes"):
            await worker.trigger("nobody::has_this", "x" * 600_000, action=enqueue("default"))
