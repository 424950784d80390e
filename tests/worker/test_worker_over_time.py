"""A worker after many calls and channels, and after a link lost at any moment."""

from __future__ import annotations

import gc
import sys

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.worker import ChannelReader, Worker, open_worker
from tests.helpers.fake_engine import FakeEngine


def _held(worker: Worker) -> tuple[int, int]:
    """The tasks of this run, and the objects of our own classes that are alive."""
    gc.collect()
    # A class of a compiled library may have a descriptor under `__module__`, so it is made a string first.
    ours = sum(str(type(one).__module__).startswith("iii_trio") for one in gc.get_objects())
    return trio.lowlevel.current_statistics().tasks_living, ours


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["call", "failing call", "cancelled call", "channel", "channel by ref"])
async def test_ten_thousand_leave_nothing_behind(kind: str, autojump_clock: object) -> None:
    rounds = 10_000
    scopes: list[trio.CancelScope] = []
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:

        @worker.function("f")
        async def f() -> int:
            return 1

        @worker.function("fails")
        async def fails() -> None:
            raise iii_trio.CallError("no", "no")

        @worker.function("waits")
        async def waits() -> None:
            scopes.pop().cancel()
            await trio.sleep_forever()

        @worker.function("reads")
        async def reads(reader: ChannelReader) -> int:
            return len(await reader.read_all())

        async def once() -> None:
            match kind:
                case "call":
                    assert await worker.trigger("f") == 1
                case "failing call":
                    with pytest.raises(iii_trio.CallError):
                        await worker.trigger("fails")
                case "cancelled call":
                    with trio.CancelScope() as scope:
                        scopes.append(scope)
                        await worker.trigger("waits")
                    assert scope.cancelled_caught
                case "channel":
                    async with worker.create_channel() as channel:
                        await channel.writer.send(b"x")
                        await channel.writer.aclose()
                        assert await channel.reader.read_all() == b"x"
                case _:
                    async with worker.create_channel() as channel, trio.open_nursery() as nursery:
                        nursery.start_soon(worker.trigger, "reads", {"reader": channel.reader_ref})
                        async with channel.writer:
                            await channel.writer.send(b"x")

        await worker.wait_registered()
        for _ in range(1_500):  # what is remembered of ended channels is bounded, and full from here on
            await once()
        await trio.testing.wait_all_tasks_blocked()
        tasks, objects = _held(worker)
        blocks = sys.getallocatedblocks()
        for _ in range(rounds - 1_500):
            await once()
        await trio.testing.wait_all_tasks_blocked()
        tasks_after, objects_after = _held(worker)
        assert tasks_after == tasks
        assert objects_after - objects < 50
        assert sys.getallocatedblocks() - blocks < 5_000, "less than one object for each"


async def test_a_link_that_is_lost_at_any_step_of_a_call(autojump_clock: object) -> None:
    for full in (False, True):
        for step in range(20):
            engine = FakeEngine()
            async with open_worker(engine) as worker:
                outcomes: list[str] = []

                async def call(worker: Worker = worker, outcomes: list[str] = outcomes) -> None:
                    try:
                        outcomes.append(str(await worker.trigger("f")))
                    except iii_trio.CallError as error:
                        outcomes.append(error.code)

                engine.full = full
                with trio.fail_after(100):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(call)
                        for _ in range(step):
                            await trio.lowlevel.checkpoint()
                        engine.link.drop()
                        engine.full = False
                        # A call that had not been sent waits for the next link.
                        await trio.testing.wait_all_tasks_blocked()
                        if not outcomes:
                            await worker.wait_connected()
                            while not outcomes:
                                await trio.sleep(1)
                                for message in engine.link.heard:
                                    if getattr(message, "function_id", "") == "f":
                                        engine.link.answer(message, "answered")  # type: ignore[arg-type]
                assert outcomes in (["answered"], ["invocation_stopped"]), (full, step)


async def test_the_callers_own_keys_arrive_as_they_are(autojump_clock: object) -> None:
    metadata = {key: f"the caller's {key}" for key in ("job", "metadata", "invocation_id", "data", "type", "_x")}
    payload = {key: f"payload's {key}" for key in ("metadata", "job", "function_id", "type")}
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:

        @worker.function("f")
        async def f(data: dict[str, str], metadata: dict[str, str]) -> list[dict[str, str]]:
            return [data, metadata]

        await worker.wait_registered()
        assert await worker.trigger("f", payload, metadata=metadata) == [payload, metadata]
