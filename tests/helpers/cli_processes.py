"""Real `python -m iii_trio` processes, and an engine in the test's own process for them to talk to."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import attrs
import trio

import iii_trio

SECONDS = 30.0
"""Real time, as real processes need; nothing here takes so long unless it hangs."""


@attrs.frozen
class Ended:
    """How a process ended, and what it said."""

    code: int
    out: str
    err: str


@attrs.frozen
class Site:
    """An engine that listens, in this process."""

    engine: iii_trio.Engine
    address: str

    async def run(self, *arguments: str, stdin: bytes = b"") -> Ended:
        """Run one command against this engine to its end."""
        return await run(*arguments, "--address", self.address, stdin=stdin)


async def run(*arguments: str, stdin: bytes = b"") -> Ended:
    """Run `iii-trio` with these arguments to its end."""
    with trio.fail_after(SECONDS):
        done = await trio.run_process(
            [sys.executable, "-m", "iii_trio", *arguments],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            deliver_cancel=kill,
        )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


async def start(nursery: trio.Nursery, *arguments: str) -> trio.Process:
    """Start `iii-trio` with these arguments; it is killed when the nursery is cancelled."""
    process: trio.Process = await nursery.start(
        partial(
            trio.run_process,
            [sys.executable, "-m", "iii_trio", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            deliver_cancel=kill,
        )
    )
    return process


async def kill(process: trio.Process) -> None:
    """How a test ends a process that is not to live on."""
    process.kill()


async def read_line(stream: trio.abc.ReceiveStream | None) -> str:
    """The next line, byte by byte, so that nothing after it is taken."""
    assert stream is not None
    line = b""
    with trio.fail_after(SECONDS):
        while not line.endswith(b"\n") and (byte := await stream.receive_some(1)):
            line += byte
    return line.decode().rstrip("\n")


async def read_rest(stream: trio.abc.ReceiveStream | None) -> str:
    """Everything up to the end."""
    assert stream is not None
    rest = b""
    with trio.fail_after(SECONDS):
        async for data in stream:
            rest += data
    return rest.decode()
