"""An engine with a planted defect, its recording, and the six steps that are left of it."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import trio

import iii_trio
from iii_trio import EngineConfig
from iii_trio.config import RecorderSettings
from iii_trio.core.call import CallEvent
from iii_trio.core.session import WorkerSession
from iii_trio.core.state import State
from iii_trio.testing import BrokenPromise, World, from_recording, simulate

CONFIG = EngineConfig(recorder=RecorderSettings(enabled=True))


def forget(state: State, session: WorkerSession, reason: str, *, left: bool = False) -> None:
    """End the calls of a worker that is gone. The defect: their callers are not told."""
    for call in list(state.calls.given_to(session).values()):
        state.calls.leave(call, CallEvent.CALLEE_LEFT)


async def run_for_a_while(world: World) -> bytes:
    """Let workers call each other, and crash one of them. Returns the engine's recording."""

    async def serve(worker: iii_trio.Worker) -> None:
        @worker.function("slow::work")
        async def work() -> None:
            await trio.sleep(5)

        @worker.function("slow::greet")
        async def greet(name: str) -> str:
            return f"hello {name}"

        await trio.sleep_forever()

    async def call(worker: iii_trio.Worker) -> None:
        for number in range(20):
            await worker.trigger("slow::greet", {"name": f"number {number}"})
        await worker.trigger("slow::work", {})

    await world.start_worker("slow", serve)
    for name in ("app", "shop"):
        await world.start_worker(name, call)
    await trio.sleep(1)
    world.crash_worker("slow")
    await trio.sleep(1)
    return await world.engine.recording(last_seconds=60)


def test_the_defect_is_found_in_a_recording(tmp_path: Path) -> None:
    with mock.patch("iii_trio.core.calls.callee_left", forget):
        history = from_recording(simulate(run_for_a_while, config=CONFIG).value)
        with pytest.raises(BrokenPromise, match="its caller was told nothing"):
            history.check()

        small = history.shrink()
        assert len(small) == 6
        small.save(tmp_path / "callee-left.recording")
    from_recording(tmp_path / "callee-left.recording").check()


def test_a_caller_is_told_that_its_callee_is_gone() -> None:
    from_recording(Path(__file__).parent / "callee-left.recording").check()
