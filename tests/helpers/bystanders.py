"""Odd exceptions, and bystanders that must not notice them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

import iii_trio
from iii_trio.worker import ChannelReader, ChannelWriter, Worker


class OddText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class OddBase(BaseException):
    def __str__(self) -> str:
        raise SystemExit(7)


def surrogates() -> BaseException:
    return ValueError("bad\udcff")


def recursion() -> BaseException:
    def deeper() -> None:
        deeper()

    try:
        deeper()
    except RecursionError as error:
        return error.with_traceback(None)
    raise AssertionError


QUEUES = iii_trio.QueueConfig(queues={"default": iii_trio.QueueSettings()}, memory_bytes=1)
"""Payloads are read from the store when their jobs start."""

ODD: dict[str, Callable[[], BaseException]] = {
    "odd text": OddText,
    "odd base": OddBase,
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": GeneratorExit,
    "asyncio's CancelledError": asyncio.CancelledError,
    "surrogates": surrogates,
    "surrogates in a CallError": lambda: iii_trio.CallError("c\udcff", "m\udcff", stacktrace="s\udcff"),
    "a CallError that was changed": lambda: changed(iii_trio.CallError("c", "m")),
    "recursion": recursion,
    "a group of base exceptions": lambda: BaseExceptionGroup("g", [SystemExit(1), OddBase()]),
    "false": lambda: type("False_", (BaseException,), {"__bool__": lambda self: False, "__eq__": None})("x"),
}


def changed(error: iii_trio.CallError) -> iii_trio.CallError:
    error.code, error.message = 404, {"a": 1}  # type: ignore[assignment]
    return error


@attrs.define
class Mesh:
    """An engine, and the bystanders at it."""

    engine: iii_trio.Engine
    worker: Worker
    other: Worker
    writer: ChannelWriter
    reader: ChannelReader
    release: trio.Event
    call_done: trio.Event = attrs.field(factory=trio.Event)
    job_done: trio.Event = attrs.field(factory=trio.Event)
    answers: list[Any] = attrs.field(factory=list)
    jobs: list[Any] = attrs.field(factory=list)


@asynccontextmanager
async def bystanders(engine_options: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Mesh]:
    """A worker with a call, a channel and a job under way. On leaving, all three are seen to have gone on."""
    async with (
        iii_trio.open_engine(iii_trio.EngineConfig(modules={"queue": QUEUES}), **(engine_options or {})) as engine,
        engine.open_worker("other") as other,
        engine.open_worker("worker", **options) as worker,
        worker.create_channel() as channel,
        trio.open_nursery() as nursery,
    ):
        mesh = Mesh(engine, worker, other, channel.writer, other.open_reader(channel.reader.ref), trio.Event())

        @worker.function("bystander")
        async def bystander() -> str:
            await mesh.release.wait()
            return "done"

        @worker.function("job")
        async def job() -> None:
            await mesh.release.wait()
            mesh.jobs.append("done")
            mesh.job_done.set()

        async def call() -> None:
            mesh.answers.append(await other.trigger("bystander"))
            mesh.call_done.set()

        await worker.wait_registered()
        nursery.start_soon(call)
        await other.trigger("job", action=iii_trio.enqueue("default"))
        await mesh.writer.send(b"before")
        assert await mesh.reader.receive() == b"before"
        yield mesh
        await mesh.writer.send(b"after")
        assert await mesh.reader.receive() == b"after"
        await mesh.reader.aclose()
        mesh.release.set()
        await mesh.job_done.wait()
        await mesh.call_done.wait()
        assert worker.connected and mesh.answers == ["done"] and mesh.jobs == ["done"]
