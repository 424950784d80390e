"""Twelve sessions attack an engine with a small budget of memory: it stays within, and a bystander notices nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.lowlevel

import iii_trio
from iii_trio.transport.frames import BINARY, frame, frame_head
from iii_trio.wire import Ref
from tests.helpers.bare import Bare
from tests.helpers.target import Client, upgrade

MIB = 1024 * 1024
BUDGET = 64 * MIB
ATTACK_SECONDS = 15
MASK = bytes(4)
ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in RAM now."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
async def test_twelve_hostile_sessions_stay_within_the_budget_and_a_bystander_notices_nothing() -> None:
    command = [sys.executable, "-m", "tests.helpers.hostile_engine", str(BUDGET)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        url = (await process.stdout.receive_some(200)).decode().strip()
        port = int(url.rpartition(":")[2])
        async with iii_trio.open_worker(url, name="bystander") as bystander, trio.open_nursery() as nursery:

            @bystander.function("by::stander")
            async def answer(n: int) -> int:
                return n + 1

            assert await bystander.trigger("by::stander", {"n": 1}) == 2
            base = resident_bytes(process.pid)
            peaks = [base]
            attacks = (
                part_of_a_message, lists_never_read, pings_never_read, full_pipes, deferred_registrations, jobs_for_nobody,
            )  # fmt: skip
            for n in range(12):
                nursery.start_soon(attack_again_and_again, attacks[n % len(attacks)], port)
            calls = 0
            with trio.move_on_after(ATTACK_SECONDS):
                while True:
                    with trio.fail_after(5):
                        assert await bystander.trigger("by::stander", {"n": calls}) == calls + 1
                    calls += 1
                    peaks.append(resident_bytes(process.pid))
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        assert process.returncode is None
        assert calls > 20
        assert max(peaks) <= base + BUDGET * 3 // 2, (
            f"{(max(peaks) - base) / MIB:.0f} MiB above the base, {calls} calls"
        )
        assert max(peaks) > base + BUDGET // 2, "the attack was none"
    finally:
        await process.stdin.aclose()
        with trio.move_on_after(5):
            await process.wait()
        if process.returncode is None:
            process.kill()


async def attack_again_and_again(attack: object, port: int) -> None:
    """Attack, and come back whenever the engine has ended the connection."""
    while True:
        try:
            await attack(port)  # type: ignore[operator]
        except* (OSError, AssertionError, KeyError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await trio.sleep(0.05)


@asynccontextmanager
async def open_client(port: int, target: str | Ref) -> AsyncIterator[Client]:
    client = await Client.connect(port)
    try:
        await client.send(upgrade(target))
        head = await client.read_head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield client
    finally:
        client.drop()


async def part_of_a_message(port: int) -> None:
    async with open_client(port, "/") as client:
        head = bytearray(frame_head(1, 62 * MIB))
        head[1] |= 0x80
        going = await client.send(bytes(head) + MASK)
        for _ in range(60):
            going = going and await client.send(b" " * MIB)
        while going:  # all but the last bytes are there
            await trio.sleep(0.5)
            going = await client.send(b" ")


async def say_for_ever(port: int, message: bytes) -> None:
    async with open_client(port, "/") as client:
        while await client.send(message):
            await trio.lowlevel.checkpoint()


async def lists_never_read(port: int) -> None:
    call = '{"type":"invokefunction","function_id":"engine::functions::list","invocation_id":"%s","data":{}}'
    await say_for_ever(port, b"".join(frame(1, (call % uuid.uuid4()).encode(), mask=MASK) for _ in range(20)))


async def pings_never_read(port: int) -> None:
    await say_for_ever(port, frame(1, b'{"type":"ping"}', mask=MASK) * 500)


async def deferred_registrations(port: int) -> None:
    said = [b'{"type":"registerfunction","id":"f::%d","metadata":"%s"}' % (n, b"x" * 20_000) for n in range(50)]
    await say_for_ever(port, b"".join(frame(1, message, mask=MASK) for message in said))


async def jobs_for_nobody(port: int) -> None:
    job = (
        '{"type":"invokefunction","function_id":"nobody::has_this","invocation_id":"%s","data":"%s",'
        '"action":{"type":"enqueue","queue":"default"}}'
    )
    async with open_client(port, "/") as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.read_to_the_end)
        while await client.send(frame(1, (job % (uuid.uuid4(), "x" * 200_000)).encode(), mask=MASK)):
            await trio.lowlevel.checkpoint()


async def full_pipes(port: int) -> None:
    """Make twenty channels, and fill them without a reader."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
        bare = Bare(stream)
        assert await bare.ask() == 101
        await bare.message()
        for _ in range(20):
            call = {"function_id": "engine::channels::create", "data": {"max_bytes": 8 * MIB, "buffer_size": 1024}}
            await bare.tell(type="invokefunction", invocation_id=str(uuid.uuid4()), **call)
            answer = await bare.message()
            nursery.start_soon(fill, port, Ref.from_json(answer["result"]["writer"]))


async def fill(port: int, writer: Ref) -> None:
    with suppress(OSError, AssertionError):  # the channel may have ended already
        async with open_client(port, writer) as client:
            while await client.send(frame(BINARY, bytes(65_536), mask=MASK)):
                pass
