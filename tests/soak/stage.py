"""The processes of a real soak: started, listened to, told, stopped, killed; and what they cost."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import attrs
import trio

from .wires import Wire

ROOT: Final = Path(__file__).parents[2]
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@attrs.define(eq=False)
class Running:
    """A process, and where its errors go."""

    process: trio.Process
    log: Path
    gone: trio.Event = attrs.field(factory=trio.Event)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def cpu_seconds(self) -> float:
        """User and system time so far; 0 once it has ended."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    def files(self) -> tuple[int, int]:
        """Open files, and how many of them are sockets."""
        names = []
        for entry in os.scandir(f"/proc/{self.pid}/fd"):
            try:
                names.append(os.readlink(entry.path))
            except OSError:
                pass  # closed meanwhile
        return len(names), sum(name.startswith("socket:") for name in names)

    def errors(self) -> str:
        """What it wrote to standard error."""
        return self.log.read_text("utf-8", "replace")


async def start(nursery: trio.Nursery, command: list[str], log: Path) -> Running:
    """Start a process, which is killed when the nursery is cancelled."""
    errors: IO[bytes] = log.open("ab")
    with errors:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                check=False,
                deliver_cancel=_kill,
                start_new_session=True,
                env=_environment(),
            )
        )
    return Running(process, log)


def _environment() -> dict[str, str]:
    """Return this process's environment, with which a child finds the packages of this repository."""
    folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


async def _kill(process: trio.Process) -> None:
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def start_engine(nursery: trio.Nursery, log: Path, command: Sequence[str] | None) -> tuple[Running, int]:
    """An engine, by default as users run it; and its port."""
    if command is None:
        script = shutil.which("iii-trio", path=str(Path(sys.executable).parent))
        command = [*([script] if script is not None else [sys.executable, "-m", "iii_trio"]), "serve", "--port", "0"]
    engine = await start(nursery, [*command], log)
    assert engine.process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        data = await engine.process.stdout.receive_some()
        if not data:
            raise RuntimeError(f"the engine did not start: {engine.errors()}")
        line += data
    found = re.search(rb"ws://127\.0\.0\.1:(\d+)", line)
    if found is None:
        raise RuntimeError(f"no address in {line!r}")
    return engine, int(found[1])


@attrs.define(eq=False)
class Player:
    """A worker process."""

    name: str
    running: Running
    wire: Wire | None
    """What it reaches the engine by, if it can be cut off."""
    ready: trio.Event = attrs.field(factory=trio.Event)
    settled: trio.Event = attrs.field(factory=trio.Event)
    stopped: bool = False
    killed: bool = False
    leaving: bool = False

    def kill(self) -> None:
        """SIGKILL: no chance to say goodbye."""
        self.killed = True
        self.running.process.send_signal(signal.SIGKILL)

    async def tell(self, **command: Any) -> None:
        """A line for its stdin, if it still reads."""
        assert self.running.process.stdin is not None
        try:
            await self.running.process.stdin.send_all(json.dumps(command).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass

    async def leave(self) -> None:
        """Have it go in an orderly way."""
        self.leaving = True
        assert self.running.process.stdin is not None
        await self.running.process.stdin.aclose()

    async def listen(self, hear: Callable[[dict[str, Any]], None]) -> int:
        """Hear all that it says, until it has ended; its exit code."""
        assert self.running.process.stdout is not None
        unfinished = b""
        async for data in self.running.process.stdout:
            *lines, unfinished = (unfinished + data).split(b"\n")
            for line in lines:
                said = json.loads(line)
                match said["event"]:
                    case "ready":
                        self.ready.set()
                    case "settled":
                        self.settled.set()
                hear(said)
        code = await self.running.process.wait()
        for event in (self.ready, self.settled, self.running.gone):  # nobody waits for it any longer
            event.set()
        return code


def cpu_of_the_ended() -> float:
    """CPU seconds of this process, and of its children that have ended."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
