"""Promise F11: an engine that sees one of its own promises broken says so once, and saves a recording.

Each defect is planted in a running engine.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio.config import EngineConfig
from iii_trio.core.channel import Channel
from iii_trio.core.channels import Channels
from iii_trio.core.pending_calls import PendingCalls
from iii_trio.core.registry import Registry
from iii_trio.environment import Environment
from iii_trio.errors import MisuseError
from iii_trio.modules import Module
from iii_trio.recorder.file_format import decode_recording
from iii_trio.transport.pipe import Pipe
from iii_trio.triggers.module import RunningModule
from tests.recorder.test_recordings import _at_once, engine_config, open_recorded

__all__ = ["engine_config"]

_end, _done = Channels._end, Pipe.done


def stay_open(self: Channels, channel: Channel, *rest: Any) -> None:
    _end(self, channel, *rest)
    self._open[channel.id] = channel


def end_twice(self: Channels, channel: Channel, *rest: Any) -> None:
    stay_open(self, channel, *rest)
    _end(self, channel, *rest)


def count_wrongly(change: int) -> Callable[..., None]:
    def done(self: Pipe, chunk: Any) -> None:
        _done(self, chunk)
        self.items_waiting += change

    return done


def stay_with_the_caller(self: PendingCalls, call: Any, event: Any) -> None:
    call.state.advance(event)
    del self.given[call.callee][call.id]


def forget_nothing(self: Registry, owner: Any) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("place", "name", "defect", "problem"),
    [
        (Channels, "_end", stay_open, r"\(C4.7\): channel \S+ ended as completed, and is still open"),
        (Channels, "_end", end_twice, r"\(C4.8\): channel \S+ ended as completed, and as completed before"),
        (Pipe, "done", count_wrongly(1), r"\(C4.2\): channel \S+ completed with 1 items and 0 bytes in its pipe"),
        (Pipe, "done", count_wrongly(-1), r"\(C1.4\): channel \S+ counts -1 items and 0 bytes in its pipe"),
        (Registry, "remove_all_of", forget_nothing, r"\(C4.5\): worker 'callee-0' \S+ has ended, and still has 1 functions"),
        (PendingCalls, "leave", stay_with_the_caller, r"\(the ledger of calls\): the call \S+ of callee-0 is in one table"),
    ],
)  # fmt: skip
async def test_F11_a_broken_promise_is_told_once_and_saves_a_recording(
    place: type,
    name: str,
    defect: Any,
    problem: str,
    engine_config: EngineConfig,
    tmp_path: Path,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_recorded(engine_config) as (engine, worker):
        with mock.patch.object(place, name, defect):
            for number in range(2):
                await use(engine, worker, f"callee-{number}")
                await trio.sleep(100)
        # What the defect left would break a further promise, or fail, when the worker ends.
        engine._shell.hub.channels._open.clear()
        engine._shell.hub.calls.made[engine._shell.hub.sessions[worker.worker_id]].clear()
    (saved,) = (tmp_path / "recordings").iterdir()
    lines = [line.getMessage() for line in caplog.records if line.levelno == logging.ERROR]
    assert sum(bool(re.search(problem, line)) for line in lines) == 1, lines
    assert decode_recording(saved.read_bytes()).cause in lines


async def use(engine: iii_trio.Engine, worker: iii_trio.Worker, name: str) -> None:
    """Let a worker be called and leave, and use a channel."""
    async with engine.open_worker(name) as callee:
        callee.register_function(name, _nothing)
        await callee.wait_registered()
        await worker.trigger(name, {})
    async with worker.create_channel() as channel, trio.open_nursery() as nursery:
        nursery.start_soon(_write, channel.writer)
        assert [item async for item in channel.reader] == [b"item"]


async def _write(writer: iii_trio.ChannelWriter) -> None:
    async with writer:
        await writer.send(b"item")


async def _nothing() -> None:
    return None


async def test_F9_a_module_that_fails_by_a_defect_saves_a_recording(
    engine_config: EngineConfig, tmp_path: Path, autojump_clock: MockClock
) -> None:
    for error, saved in ((iii_trio.ConnectionFailed("its store is away"), 0), (ZeroDivisionError("a defect"), 1)):

        @asynccontextmanager
        async def failing(*_: Any, error: Exception = error) -> AsyncIterator[None]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_fail_later, error)
                yield

        module = Module(name="failing", settings=dict, open=failing)
        environment = Environment(run_blocking=_at_once)
        async with iii_trio.open_engine(engine_config, environment=environment, modules=[module]):
            await trio.sleep(2)
        recordings = tmp_path / "recordings"
        found = list(recordings.iterdir()) if recordings.exists() else []
        causes = [decode_recording(each.read_bytes()).cause for each in found]
        assert causes == ["module `failing` failed: ZeroDivisionError: a defect"] * saved


async def _fail_later(error: Exception) -> None:
    await trio.sleep(1)
    raise error


@pytest.mark.parametrize("boundary", ["drain", "reconfigure"])
@pytest.mark.parametrize(("error", "saved"), [(MisuseError("not so"), 0), (ZeroDivisionError("a defect"), 1)])
async def test_F9_a_module_that_cannot_drain_or_take_settings_by_a_defect_saves_a_recording(
    boundary: str, error: Exception, saved: int, engine_config: EngineConfig, tmp_path: Path, autojump_clock: MockClock
) -> None:
    class Defective(RunningModule):
        async def drain(self) -> None:
            if boundary == "drain":
                raise error

        def reconfigure(self, settings: Any) -> Any:
            raise error

    @asynccontextmanager
    async def opened(*_: Any) -> AsyncIterator[RunningModule]:
        yield Defective()

    module = Module(name="defective", settings=dict, open=opened)
    environment = Environment(run_blocking=_at_once)
    async with iii_trio.open_engine(engine_config, environment=environment, modules=[module]) as engine:
        if boundary == "drain":
            await engine.drain(1)
        else:
            await engine.reload(attrs.evolve(engine_config, listeners=(), modules={"defective": {"new": True}}))
        await trio.sleep(2)
    recordings = tmp_path / "recordings"
    causes = [decode_recording(each.read_bytes()).cause for each in recordings.glob("*.recording")]
    what = "could not drain" if boundary == "drain" else "did not take its new settings"
    assert causes == [f"module `defective` {what}: ZeroDivisionError: a defect"] * saved
