"""However many came, and however they went: nothing is left of them, and the engine rests."""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
import pytest
import trio
import trio.testing

from iii_trio import ChannelBroken, Engine, Listener, Ref, open_engine
from iii_trio.transport.dial import SocketAddress
from iii_trio.transport.frames import TEXT, frame
from iii_trio.transport.link import Address, Identity, Link, ReadingEnd, WritingEnd
from iii_trio.wire import InvocationResult, InvokeFunction, WorkerRegistered, decode, encode, to_json
from tests.helpers.target import Client, wait_until

WAYS: Final = (
    "read to the end", "aborted", "cancelled", "writer vanishes", "reader vanishes", "both vanish", "owner leaves",
    "never attached", "writer only", "reader only", "sealed and unread", "nobody comes", "cut while full",
)  # fmt: skip


@attrs.define(eq=False)
class Worker:
    """A session played by hand, which makes channels."""

    link: Link
    identity: Identity
    scope: trio.CancelScope

    @classmethod
    async def connect(cls, nursery: trio.Nursery, address: Address) -> Worker:
        async def run(task_status: trio.TaskStatus[tuple[Link, trio.CancelScope]]) -> None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    link: Link = await inner.start(address.connect)
                    task_status.started((link, scope))

        link, scope = await nursery.start(run)
        hello = decode(await link.receive() or b"")
        assert isinstance(hello, WorkerRegistered) and hello.channel_secret is not None
        return cls(link, Identity(hello.worker_id, hello.channel_secret), scope)

    async def new_channel(self, **options: Any) -> tuple[Ref, Ref]:
        call = InvokeFunction("engine::channels::create", str(uuid.uuid4()), data=msgspec.Raw(to_json(options)))
        self.link.send(encode(call))
        while True:
            answer = decode(await self.link.receive() or b"")
            if isinstance(answer, InvocationResult):
                told = json.loads(bytes(answer.result))
                return Ref.from_json(told["writer"]), Ref.from_json(told["reader"])


async def use_and_end(address: Address, way: str) -> None:
    """One session makes one channel, which is used a little, and ends in this way."""
    async with trio.open_nursery() as nursery:
        worker = await Worker.connect(nursery, address)
        options = {"expires_after_ms": 1000} if way in ("sealed and unread", "nobody comes") else {}
        writer_ref, reader_ref = await worker.new_channel(**options)
        ends: list[trio.CancelScope] = []

        async def hold(attach: Any, ref: Ref, task_status: trio.TaskStatus[Any]) -> None:
            with trio.CancelScope() as scope:
                ends.append(scope)
                async with trio.open_nursery() as inner:
                    task_status.started(await inner.start(attach, ref, worker.identity))

        writer: WritingEnd | None = None
        reader: ReadingEnd | None = None
        if way not in ("never attached", "reader only"):
            writer = await nursery.start(hold, address.attach_writer, writer_ref)
        if way not in ("never attached", "writer only", "sealed and unread", "nobody comes"):
            reader = await nursery.start(hold, address.attach_reader, reader_ref)
        if writer is not None:
            await writer.put(b"x" * 1000)
            await writer.put("é")
        if reader is not None and writer is not None:
            assert await reader.take() == b"x" * 1000
        match way:
            case "read to the end":
                assert writer is not None and reader is not None
                nursery.start_soon(writer.close)
                assert await reader.take() == "é"
                with pytest.raises(trio.EndOfChannel):
                    await reader.take()
            case "aborted":
                assert writer is not None and reader is not None
                writer.abort("no good")
                with pytest.raises(ChannelBroken):
                    while True:
                        await reader.take()
            case "cancelled":
                assert reader is not None
                reader.cancel("enough")
            case "writer vanishes" | "reader vanishes":
                ends[way == "reader vanishes"].cancel()
            case "both vanish":
                for scope in ends:
                    scope.cancel()
            case "sealed and unread":
                assert writer is not None
                await writer.close()
            case "nobody comes":
                assert writer is not None
                await writer.wait_ended()
            case "cut while full":
                assert writer is not None
                with trio.move_on_after(0.001):
                    while True:
                        await writer.put(bytes(100_000))
                nursery.cancel_scope.cancel()
            case "owner leaves":
                worker.scope.cancel()
                assert reader is not None
                with pytest.raises(ChannelBroken):
                    while True:
                        await reader.take()
        worker.link.close()
        nursery.cancel_scope.cancel()


def what_there_is() -> tuple[int, int, int]:
    """Memory blocks, objects that the collector knows, open files."""
    gc.collect()
    return sys.getallocatedblocks(), len(gc.get_objects()), len(os.listdir("/proc/self/fd"))


def check_nothing_grew(before: tuple[int, int, int], after: tuple[int, int, int], n: int) -> None:
    blocks, objects, files = (b - a for a, b in zip(before, after, strict=True))
    assert blocks < n / 10, f"{blocks} blocks of memory more after {n} channels"
    assert objects < n / 10, f"{objects} objects more after {n} channels"
    assert files <= 0, f"{files} files more after {n} channels"


def is_empty(engine: Engine) -> bool:
    return not any(attrs.astuple(engine.statistics()))


@pytest.mark.slow
async def test_ten_thousand_channels_in_process_leave_nothing(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "iii_trio.engine")  # pytest keeps every line: in virtual time these are many
    async with open_engine() as engine:

        async def use(n: int) -> None:
            for batch in range(n // len(WAYS)):
                async with trio.open_nursery() as nursery:
                    for way in WAYS:
                        nursery.start_soon(use_and_end, engine.address, way)
                if batch % 100 == 0:
                    assert is_empty(engine), engine.statistics()

        await use(1_500)  # also fills the list of those that ended last
        tasks = trio.lowlevel.current_statistics().tasks_living
        before = what_there_is()
        await use(10_000)
        assert is_empty(engine)
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        check_nothing_grew(before, what_there_is(), 10_000)


async def test_channels_that_would_wait_for_years_leave_nothing_when_they_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What was to be done in years about a channel is forgotten with it."""
    async with open_engine() as engine, trio.open_nursery() as nursery:
        worker = await Worker.connect(nursery, engine.address)

        async def use(n: int) -> None:
            for _ in range(n):
                writer_ref, _ = await worker.new_channel(expires_after_ms=10**12)
                writer: WritingEnd = await nursery.start(engine.address.attach_writer, writer_ref, None)
                writer.abort("enough")
                await trio.lowlevel.checkpoint()

        await use(1_200)
        before = what_there_is()
        await use(2_000)
        check_nothing_grew(before, what_there_is(), 2_000)
        worker.link.close()


@pytest.mark.slow
async def test_hundreds_of_channels_over_sockets_leave_nothing() -> None:
    async with open_engine() as engine:
        (url,) = await engine.listen(Listener(port=0))
        address = SocketAddress(url)

        async def use(n: int) -> None:
            for _ in range(n // (4 * len(WAYS))):
                async with trio.open_nursery() as nursery:
                    for way in WAYS * 4:
                        nursery.start_soon(use_and_end, address, way)
            await wait_until(lambda: is_empty(engine), engine.statistics)

        await use(104)
        tasks = trio.lowlevel.current_statistics().tasks_living
        before = what_there_is()
        await use(400)
        await wait_until(lambda: trio.lowlevel.current_statistics().tasks_living == tasks)
        blocks, objects, files = (b - a for a, b in zip(before, what_there_is(), strict=True))
        ended = 400  # each has its line in the list of the last ones: clause C2.1
        assert blocks < ended * 25 and objects < ended * 8 and files <= 0, (blocks, objects, files)


# --- all at once


@contextmanager
def many_files(n: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < n:
        pytest.skip(f"this machine lets a process open {hard} files; {n} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, n), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
async def test_five_hundred_clients_that_vanish_at_once_leave_no_work_and_few_lines(tmp_path: Path) -> None:
    clients, mask = 500, bytes(4)
    log = tmp_path / "log"
    with many_files(4096), log.open("wb") as stderr:
        engine = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-m", "tests.helpers.engine_process"],
            cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
        with engine, trio.fail_after(60):
            assert engine.stdin is not None and engine.stdout is not None
            url = (await trio.to_thread.run_sync(engine.stdout.readline)).decode().strip()
            port = int(url.rpartition(":")[2])
            files_before = len(os.listdir(f"/proc/{engine.pid}/fd"))
            sockets: list[Client] = []

            async def open_one(n: int) -> None:
                session = await Client.upgraded(port, "/")
                sockets.append(session)
                create = {"type": "invokefunction", "function_id": "engine::channels::create", "data": {},
                          "invocation_id": str(uuid.uuid4())}  # fmt: skip
                await session.send(frame(TEXT, json.dumps(create).encode(), mask=mask))
                said = b""
                while b"access_key" not in said or not said.endswith(b"}"):
                    said += await session.sock.recv(65536)
                ref = Ref.from_json(json.loads(said[said.rindex(b'{"type"') :])["result"]["writer"])
                writer = await Client.upgraded(port, ref)
                await writer.send(frame(2, bytes(100_000), mask=mask) * (n % 3))
                sockets.append(writer)

            for batch in range(0, clients, 50):
                async with trio.open_nursery() as nursery:
                    for n in range(batch, batch + 50):
                        nursery.start_soon(open_one, n)
            for client in sockets:
                client.reset()

            await wait_until(lambda: len(os.listdir(f"/proc/{engine.pid}/fd")) <= files_before)
            last = await Client.connect(port)
            await last.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"ready" in await last.read_to_the_end()
            last.drop()
            await trio.sleep(0.05)
            before = cpu_seconds(engine.pid)
            await trio.sleep(0.5)
            assert cpu_seconds(engine.pid) - before <= 0.02, "an engine with nothing to do does nothing"
            engine.stdin.close()
    lines = log.read_text().splitlines()
    assert 0 < len(lines) <= 400, len(lines)
    assert not any("Traceback" in line or "error of ours" in line for line in lines), lines[-20:]
