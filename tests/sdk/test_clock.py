"""A clock that jumps, for an engine and its workers in processes: nothing ends by it, and nothing is late.

The time of day jumps by hours, forwards and backwards, as it does when a machine is set right after it has run wrong; what
is measured by the monotonic clock goes on. libfaketime does it, for these processes only.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio

import iii_trio

from .conftest import KINDS, STEP_SECONDS
from .content import sha256_of_first
from .processes import Peer, open_peer

try:
    import libfaketime
except ImportError:
    pytest.skip("there is no libfaketime for this machine", allow_module_level=True)

pytestmark = [pytest.mark.sdk, pytest.mark.slow]

HOUR: Final = 3600
SILENT_SECONDS: Final = 5.0
CHUNK: Final = 10_000
CHUNKS: Final = 120
ENGINE = Path(__file__).parent.parent / "helpers" / "engine_process.py"


@attrs.define(eq=False)
class Clock:
    """The time of day of processes that are started with its `environment`."""

    file: Path

    def __attrs_post_init__(self) -> None:
        self.jump_to(0)

    def jump_to(self, seconds: int) -> None:
        """From now on, they are so many seconds ahead of us."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self.file)

    @property
    def environment(self) -> dict[str, str]:
        _, preloaded = libfaketime.get_reload_information()
        return {**preloaded, "FAKETIME_TIMESTAMP_FILE": str(self.file)}


@asynccontextmanager
async def engine_process(clock: Clock, log: Path) -> AsyncIterator[str]:
    """An engine by this clock; its address."""
    with log.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            [sys.executable, str(ENGINE), str(SILENT_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **clock.environment},
        )
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        try:
            line = b""
            with trio.fail_after(STEP_SECONDS):
                while not line.endswith(b"\n"):
                    line += await process.stdout.receive_some() or pytest.fail("the engine did not start")
            yield line.decode().strip()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def test_a_clock_that_jumps_by_hours_ends_nothing_and_delays_nothing(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    async with (
        engine_process(clock, tmp_path / "engine.log") as url,
        iii_trio.open_worker(url, name="app") as app,
        workers_by(clock, url, tmp_path) as peers,
        app.create_channel() as half_open,
    ):
        ids = await worker_ids(app)
        await half_open.writer.send(b"waits for its reader, for five minutes")
        async with trio.open_nursery() as streaming:
            for kind in KINDS:
                streaming.start_soon(stream_for_seconds, app, kind)
            for ahead in (6 * HOUR, -6 * HOUR, 0):
                await trio.sleep(1)
                clock.jump_to(ahead)
                await calls_are_answered(app)
                await the_engine_is_ahead(url, ahead)

        assert await worker_ids(app) == ids  # nobody was cut off, nobody had to come back
        ended = (await app.trigger("engine::channels::ended", {}))["channels"]
        assert [one["outcome"] for one in ended] == ["completed"] * len(KINDS)
        await half_open.reader.receive()

        clock.jump_to(-24 * HOUR)  # whoever counts by the time of day now waits until tomorrow
        await is_found_silent(app, peers["python"])


@asynccontextmanager
async def workers_by(clock: Clock, url: str, home: Path) -> AsyncIterator[dict[str, Peer]]:
    """A worker of each kind by this clock."""
    peers: dict[str, Peer] = {}
    async with AsyncExitStack() as stack:
        for kind in KINDS:
            peer = open_peer(kind, url, home, name=kind, more=clock.environment)
            peers[kind] = await stack.enter_async_context(peer)
            assert "libfaketime" in await trio.Path(f"/proc/{peers[kind].process.pid}/maps").read_text()
        yield peers


async def stream_for_seconds(app: iii_trio.Worker, kind: str) -> None:
    """A stream that is under way while the clock jumps, by a call that is."""
    wrote: dict[str, Any] = {}
    async with app.create_channel() as channel, trio.open_nursery() as nursery:

        async def write() -> None:
            how = {"total": CHUNKS * CHUNK, "chunk": CHUNK, "pause_seconds": 0.05}
            wrote.update(await app.trigger(f"{kind}::write", {**how, "writer": channel.writer_ref}))

        nursery.start_soon(write)
        read = b"".join([bytes(item) async for item in channel.reader.chunks()])
    assert "error" not in wrote, kind
    assert hashlib.sha256(read).hexdigest() == wrote["sha256"] == sha256_of_first(CHUNKS * CHUNK), kind


async def worker_ids(app: iii_trio.Worker) -> dict[str, str]:
    workers = (await app.trigger("engine::workers::list", {}))["workers"]
    return {worker["name"]: worker["id"] for worker in workers if worker["name"] in KINDS}


async def calls_are_answered(app: iii_trio.Worker) -> None:
    with trio.fail_after(STEP_SECONDS):
        for kind in KINDS:
            assert await app.trigger(f"{kind}::echo", [kind]) == [kind]


async def the_engine_is_ahead(url: str, seconds: int) -> None:
    """The jump has taken place: a worker that comes now is said to have come by that clock."""
    async with iii_trio.open_worker(url, name="new") as new:
        row = (await new.trigger("engine::workers::info", {"name": "new"}))["worker"]
    assert row["connected_at_ms"] / 1000 - time.time() == pytest.approx(seconds, abs=10)


async def is_found_silent(app: iii_trio.Worker, peer: Peer) -> None:
    peer.process.send_signal(signal.SIGSTOP)
    stat = trio.Path(f"/proc/{peer.process.pid}/stat")
    with trio.fail_after(STEP_SECONDS):
        # The kernel lets it run for another moment, in which it could answer.
        while (await stat.read_text()).rpartition(")")[2].split()[0] != "T":  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.001)
    with trio.fail_after(STEP_SECONDS), pytest.raises(iii_trio.CallError, match="invocation_stopped"):
        await app.trigger(f"{peer.name}::echo", 1)
