"""Failures at every boundary of an engine end only the work that they belong to.

One table. Each boundary raises each odd exception. A bystander's call, channel and job go on, the log has the failure once
with its traceback, and the worker that waits is answered. `tests/worker/test_worker_containment.py` has the boundaries
within a worker in more kinds, and `tests/core/test_containment.py` those of single messages.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.engine import serve_channel, serve_session
from iii_trio.engine.admit import handle_connection
from iii_trio.engine.policy import ListenerPolicy
from iii_trio.errors import CallError
from iii_trio.modules import Module, RunningModule
from iii_trio.testing.job_stores import record
from iii_trio.transport.frames import TEXT, frame
from iii_trio.triggers.http import HttpConfig, HttpServer, open_http_server
from iii_trio.triggers.queue import Change, MemoryStore, Payload, Put
from iii_trio.triggers.queue.attempt import Attempt
from iii_trio.triggers.queue.lane_key import LaneKey
from iii_trio.wire import attach_target
from tests.helpers.bystanders import ODD, Mesh, bystanders
from tests.helpers.raw_peer import RawPeer

MARK: Final = b"RAISE"
REGISTER: Final = (
    b'{"type":"invokefunction","function_id":"engine::workers::register",'
    b'"data":{"name":"victim"},"action":{"type":"void"}}'
)
INJECTIONS: Final = {
    kind: ODD[kind]
    for kind in ("odd text", "odd base", "SystemExit", "surrogates", "recursion", "a group of base exceptions")
}


@attrs.define
class Scene:
    """A mesh with bystanders, and what the boundary that fails needs."""

    mesh: Mesh
    odd: Callable[[], BaseException]
    patch: pytest.MonkeyPatch
    nursery: trio.Nursery
    raising: list[str] = attrs.field(factory=list)
    """The boundaries that raise from now on, which are set up before the engine opens."""
    module_fails: trio.Event = attrs.field(factory=trio.Event)
    raised: trio.Event = attrs.field(factory=trio.Event)
    """Set when a store was made to raise."""
    streams: list[trio.abc.Stream] = attrs.field(factory=list)

    def fails(self, *_: object, **__: object) -> Any:
        raise self.odd()

    async def connect(self, target: str = "/", headers: Sequence[tuple[str, str]] = ()) -> RawPeer:
        """Connect a raw peer to the engine over a socket."""
        near, far = socket.socketpair()
        shell = self.mesh.engine._shell
        self.nursery.start_soon(handle_connection, shell, far, ListenerPolicy())
        near.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        self.streams.append(stream)
        return await RawPeer.connect(stream, target, headers)

    def raise_at_the_mark(self, kind: type[Any]) -> None:
        """Have a socket's handler raise when it is fed the mark."""
        feed = kind.feed

        def marked(handler: Any, data: memoryview) -> Any:
            if MARK in bytes(data):
                raise self.odd()
            return feed(handler, data)

        self.patch.setattr(kind, "feed", marked)


async def code_of(call: Awaitable[Any]) -> str:
    """Wait for a call that fails, and return its code."""
    with pytest.raises(CallError) as caught, trio.fail_after(60):
        await call
    return caught.value.code


# --- the boundaries: each raises once, and asserts that the worker that waits is answered


async def a_session(scene: Scene) -> None:
    scene.raise_at_the_mark(serve_session._SessionSocket)
    victim = await scene.connect()
    await victim.send(TEXT, REGISTER)
    await victim.send(TEXT, b'{"type":"registerfunction","id":"victim::f"}')
    await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            assert await code_of(scene.mesh.other.trigger("victim::f")) == "invocation_stopped"

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await victim.stream.send_all(frame(TEXT, MARK, mask=bytes(4)))
    await victim.read_to_the_end()


async def an_end(scene: Scene, kind: type[Any], writes: bool) -> None:
    scene.raise_at_the_mark(kind)
    async with scene.mesh.other.create_channel() as channel:
        if writes:
            victim = await scene.connect(attach_target(channel.writer_ref))
            await victim.send(TEXT, b"before")
            assert await channel.reader.receive() == "before"
        else:
            await channel.writer.send(b"before")
            victim = await scene.connect(attach_target(channel.reader_ref))
        await victim.stream.send_all(frame(TEXT, MARK, mask=bytes(4)))
        await victim.read_to_the_end()
        with pytest.raises(iii_trio.ChannelBroken) as caught, trio.fail_after(60):
            await (channel.reader.receive() if writes else channel.writer.wait_room())
            await trio.sleep_forever()
        assert caught.value.outcome == ("writer_lost" if writes else "reader_lost")


async def a_writing_end(scene: Scene) -> None:
    await an_end(scene, serve_channel._WriterSocket, writes=True)


async def a_reading_end(scene: Scene) -> None:
    await an_end(scene, serve_channel._ReaderSocket, writes=False)


async def a_handler(scene: Scene) -> None:
    async def handler() -> None:
        scene.fails()

    scene.mesh.worker.register_function("victim::f", handler)
    await scene.mesh.worker.wait_registered()
    assert await code_of(scene.mesh.other.trigger("victim::f")) == "invocation_failed"


async def a_trigger_provider(scene: Scene) -> None:
    scene.mesh.worker.register_trigger_type("victim", (scene.fails, None))
    await scene.mesh.worker.wait_registered()
    refused = trio.Event()
    scene.mesh.other.register_trigger("victim", "bystander", on_error=lambda error: refused.set())
    with trio.fail_after(60):
        await refused.wait()


async def a_callback_for_telemetry(scene: Scene) -> None:
    scene.raising.append("telemetry")
    victim = await scene.connect()
    await victim.send(2, b'MTRC{"resourceMetrics":[]}')
    await victim.send(2, b'OTLP{"resourceSpans":[]}')
    await trio.testing.wait_all_tasks_blocked()
    # The session of the telemetry goes on.
    before = len(victim.received)
    await victim.send(TEXT, b'{"type":"ping"}')
    with trio.fail_after(60):
        while len(victim.received) == before:
            await victim.read_some()
    await victim.stream.aclose()


async def a_callback_for_channels(scene: Scene) -> None:
    async with scene.mesh.other.create_channel() as channel:
        await channel.writer.send(b"x")
        assert await channel.reader.receive() == b"x"
        scene.raising.append("span")
        await channel.writer.aclose()
        with pytest.raises(trio.EndOfChannel):
            await channel.reader.receive()
        assert (await channel.wait_outcome()).outcome == "completed"
        scene.raising.clear()


async def a_log_handler(scene: Scene) -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            scene.fails()

    scene.patch.setattr("iii_trio.report._complained", set())
    logger, handler = logging.getLogger("iii_trio.engine"), Raising()
    logger.addHandler(handler)
    try:
        for _ in range(3):
            scene.mesh.engine._shell.log(logging.ERROR, "a line")
        await (await scene.connect()).stream.aclose()
        assert await code_of(scene.mesh.other.trigger("nobody::has_this")) == "function_not_found"
        await trio.testing.wait_all_tasks_blocked()
    finally:
        logger.removeHandler(handler)


async def a_module(scene: Scene) -> None:
    assert await scene.mesh.other.trigger("probe::step") == 1
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            assert await code_of(scene.mesh.other.trigger("probe::wait")) == "invocation_stopped"

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        scene.module_fails.set()
    await trio.sleep(2)  # it is started again
    assert await scene.mesh.other.trigger("probe::step") == 1


async def a_stored_job(scene: Scene) -> None:
    begin = Attempt.begin

    def raises(attempt: Attempt, payload: Payload) -> None:
        if payload.data == b'"raise"':
            raise scene.odd()
        begin(attempt, payload)

    scene.patch.setattr(Attempt, "begin", raises)
    await scene.mesh.other.trigger("job", "raise", action=iii_trio.enqueue("default"))
    await trio.testing.wait_all_tasks_blocked()
    (letter,) = await scene.mesh.other.trigger("engine::queue::dlq_messages", {"queue": "default"})
    assert letter["code"] == "job_damaged"


async def a_store_that_writes(scene: Scene) -> None:
    scene.raising.append("write")
    call = scene.mesh.other.trigger("job", "raise", action=iii_trio.enqueue("default"))
    assert await code_of(call) == "enqueue_error"


async def a_store_that_reads(scene: Scene) -> None:
    scene.raising.append("fetch")
    done = trio.Event()

    @scene.mesh.worker.function("victim::job")
    async def job() -> None:
        done.set()

    with trio.fail_after(60):
        await scene.raised.wait()
        letters = await scene.mesh.other.trigger("engine::queue::dlq_messages", {"queue": "default"})
        assert not letters, "it is tried again"
        await done.wait()


async def an_http_connection(scene: Scene) -> None:
    async with open_http_server(scene.mesh.engine.address, HttpConfig()) as server:
        scene.patch.setattr(HttpServer, "_serve_request", scene.fails)
        near, far = socket.socketpair()
        scene.nursery.start_soon(server.accept, far)
        near.setblocking(False)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(near)) as client:
            await client.send_all(b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n")
            with trio.fail_after(60):
                assert await client.receive_some() == b""
        assert server.connections == 0


BOUNDARIES: Final[dict[str, Callable[[Scene], Awaitable[None]]]] = {
    "a session": a_session,
    "a writing end": a_writing_end,
    "a reading end": a_reading_end,
    "a handler": a_handler,
    "a trigger provider": a_trigger_provider,
    "a callback for telemetry": a_callback_for_telemetry,
    "a callback for channels": a_callback_for_channels,
    "a log handler": a_log_handler,
    "a module": a_module,
    "a stored job": a_stored_job,
    "a store that writes": a_store_that_writes,
    "a store that reads": a_store_that_reads,
    "an HTTP connection": an_http_connection,
}


class Store(MemoryStore):
    """A store that raises where it is told to."""

    def __init__(self, scene: list[Scene]) -> None:
        super().__init__()
        self._scene = scene
        super().write([Put(record(1, lane=LaneKey("queue", "default").text, function_id="victim::job", data=b"{}"))])

    def write(self, changes: Sequence[Change]) -> None:
        if any(isinstance(each, Put) and each.record.data == b'"raise"' for each in changes):
            for scene in self._scene:
                if "write" in scene.raising:
                    scene.fails()
        super().write(changes)

    def fetch(self, keys: Sequence[int]) -> dict[int, Payload]:
        for scene in self._scene:
            if "fetch" in scene.raising and 1 in keys:
                scene.raising.remove("fetch")
                scene.raised.set()
                scene.fails()
        return super().fetch(keys)


@attrs.frozen
class ProbeSettings:
    """The settings of the module that fails."""


class Probe(RunningModule):
    pass


@asynccontextmanager
async def open_scene(odd: Callable[[], BaseException], patch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """Open an engine whose every boundary can be made to raise."""
    scenes: list[Scene] = []
    fails = [trio.Event()]

    def embedder(name: str) -> Callable[..., None]:
        def callback(*_: object) -> None:
            if scenes and name in scenes[0].raising:
                scenes[0].raising.remove(name)
                scenes[0].fails()

        return callback

    @asynccontextmanager
    async def open_probe(address: Any, settings: ProbeSettings, environment: Any) -> AsyncIterator[Probe]:
        async with iii_trio.worker.open_worker(address, name="probe") as worker, trio.open_nursery() as nursery:

            @worker.function("probe::step")
            async def step() -> int:
                return 1

            @worker.function("probe::wait")
            async def wait() -> None:
                await trio.sleep_forever()

            async def fail() -> None:
                await fails[0].wait()
                fails[0] = trio.Event()
                scenes[0].fails()

            await worker.wait_registered()
            nursery.start_soon(fail)
            yield Probe()
            nursery.cancel_scope.cancel()

    options = {
        "on_telemetry": embedder("telemetry"),
        "on_channel_span": embedder("span"),
        "modules": [Module(name="probe", settings=ProbeSettings, open=open_probe)],
        "stores": {"queue": Store(scenes)},
    }
    async with bystanders(options) as mesh, trio.open_nursery() as nursery:
        scenes.append(Scene(mesh, odd, patch, nursery, module_fails=fails[0]))
        yield scenes[0]
        for stream in scenes[0].streams:
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """The lines of the log that have a traceback."""
    found: list[logging.LogRecord] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            record.getMessage()
            if record.exc_info:
                found.append(record)

    logger, handler = logging.getLogger("iii_trio"), Keeps()
    logger.addHandler(handler)
    logger.propagate = False
    yield found
    logger.removeHandler(handler)
    logger.propagate = True


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
async def test_a_failure_ends_only_what_it_concerns(
    boundary: str,
    injection: str,
    monkeypatch: pytest.MonkeyPatch,
    records: list[logging.LogRecord],
    capsys: pytest.CaptureFixture[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_scene(INJECTIONS[injection], monkeypatch) as scene:
        with trio.fail_after(600):
            await BOUNDARIES[boundary](scene)
            await trio.testing.wait_all_tasks_blocked()
    # `bystanders` has seen by now that the call, the channel and the job went on.
    if boundary == "a log handler":  # which cannot be told of in the log
        told = capsys.readouterr().err
        assert (
            told.count("a logging handler of 'iii_trio.engine' raised:\n") == 1 and "Traceback" in told and not records
        )
        return
    assert len(records) == 1, [record.getMessage() for record in records]
    assert records[0].levelno >= logging.WARNING and records[0].exc_info is not None
    assert _holds(records[0].exc_info[1], type(INJECTIONS[injection]()))


def _holds(error: BaseException | None, kind: type[BaseException]) -> bool:
    if isinstance(error, kind):
        return True
    return isinstance(error, BaseExceptionGroup) and any(_holds(each, kind) for each in error.exceptions)


async def test_a_KeyboardInterrupt_at_a_boundary_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with iii_trio.open_engine(on_channel_span=interrupt) as engine, engine.open_worker("w") as worker:
            async with worker.create_channel() as channel:
                await channel.writer.send(b"x")
                channel.writer.abort("enough")
                await trio.sleep_forever()
