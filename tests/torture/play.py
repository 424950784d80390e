"""A round: the processes, what is done to them, and what is found at the end."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

import attrs
import trio

from tests.soak.stage import Running, start

from .clients import Clients
from .plan import ENDS_OF_THE_ENGINE, STREAMS, WORKERS, Deed, Plan
from .tally import Line, Tally, judge

_START_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 60.0


@attrs.frozen
class Played:
    """What came of a round."""

    plan: Plan
    tally: Tally

    @property
    def summary(self) -> str:
        """In a line."""
        deeds = ", ".join(deed for _, deed in self.plan.deeds)
        deeds += f"; {self.plan.of_the_sdk} is of iii's SDK" if self.plan.of_the_sdk is not None else ""
        tally = self.tally
        found = f"{tally.promised} promised, {tally.done} over, {tally.dead} dead, {tally.redeliveries} redelivered"
        return f"seed {self.plan.seed}: {found} ({deeds})" + "".join(f"\n  {one}" for one in tally.problems)


async def play_round(plan: Plan, home: Path) -> Played:
    """Play it in `home`, an empty directory, which keeps the logs and what the engine kept."""
    return await _Round(plan, home).play()


class _Round:
    def __init__(self, plan: Plan, home: Path) -> None:
        self.plan = plan
        self.home = home
        self.socket = str(home / "engine")
        self.port: int | None = None
        """Where the engine listens for SDKs: anew each time, at the same place."""
        self.clients = Clients(f"unix:{self.socket}")
        self.workers: dict[str, Running] = {}
        self.engine: Running
        self.link = trio.CancelScope()
        self.nursery: trio.Nursery

    async def play(self) -> Played:
        problems: list[str] = []
        dead: set[str] = set()
        if self.plan.of_the_sdk is not None:
            self.port = await _free_port()
        async with trio.open_nursery() as self.nursery:
            await self.start_engine()
            for name in WORKERS:
                await self.start_worker(name)
            await self.clients.want_one("first")
            for index, stream in enumerate(STREAMS):
                self.nursery.start_soon(self.clients.want, stream, Random(f"{self.plan.seed} {index}"))
            for pause, deed in self.plan.deeds:
                await trio.sleep(pause)
                problems += await self.do(deed)
            await trio.sleep(self.plan.after_seconds)
            self.clients.stop()
            problems += await self.settle()
            dead = await self.dead_letters()
            problems += await self.end_engine("close engine")
            self.nursery.cancel_scope.cancel()
        lines = [Line.parse(line) for name in WORKERS for line in self.log(name).read_text().splitlines()]
        tally = judge(self.clients.wanted, self.clients.promised, dead, lines)
        tally.problems += problems + [f"refused: {one}" for one in self.clients.refused] + self.left_over()
        return Played(self.plan, tally)

    def log(self, name: str) -> Path:
        return self.home / f"{name}.log"

    # --- deeds

    async def do(self, deed: Deed) -> list[str]:
        if deed in ENDS_OF_THE_ENGINE:
            problems = await self.end_engine(deed)
            await self.start_engine()
            return problems
        name = deed.rpartition(" ")[2]
        await _kill(self.workers[name])
        await self.start_worker(name, wait=False)
        return []

    async def end_engine(self, deed: Deed) -> list[str]:
        engine = self.engine
        assert engine.process.stdin is not None
        if deed == "kill engine":
            await _kill(engine)
        else:
            with suppress(trio.BrokenResourceError):
                if deed == "drain engine":
                    await engine.process.stdin.send_all(b"drain\n")
                else:
                    await engine.process.stdin.aclose()
        with trio.move_on_after(_START_SECONDS):
            await engine.process.wait()
        self.link.cancel()
        code = engine.process.returncode
        expected = -signal.SIGKILL if deed == "kill engine" else 0
        return [] if code == expected else [f"the engine ended with {code}: {engine.errors()[-2000:]}"]

    async def start_engine(self) -> None:
        arguments = [str(self.home / "jobs"), self.socket, str(self.plan.lost_allowed)]
        arguments += [] if self.port is None else [str(self.port)]
        self.engine = await self.start("engine", *arguments, log=self.home / "engine.err")
        await _ready(self.engine)
        self.link = await self.nursery.start(self.stay_linked)

    async def stay_linked(self, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.clients.stay_linked)
            task_status.started(nursery.cancel_scope)

    async def start_worker(self, name: str, *, wait: bool = True) -> None:
        if name == self.plan.of_the_sdk:
            module, address = "sdk_actor", f"ws://127.0.0.1:{self.port}"
        else:
            module, address = "actor", f"unix:{self.socket}"
        arguments = [address, name, str(self.log(name)), str(self.plan.lost_allowed)]
        worker = await self.start(module, *arguments, log=self.home / f"{name}.err")
        self.workers[name] = worker
        if wait:
            await _ready(worker)

    async def start(self, module: str, *arguments: str, log: Path) -> Running:
        return await start(self.nursery, [sys.executable, "-m", f"{__package__}.{module}", *arguments], log)

    # --- the end

    async def settle(self) -> list[str]:
        """Wait until the engine has nothing left to do."""
        listed: object = None
        with trio.move_on_after(_SETTLE_SECONDS):
            while True:
                listed = await self.clients.link.trigger("engine::queue::list")
                assert isinstance(listed, dict)
                if not any(row["depth"] or row["running"] for row in listed["queues"]):
                    return []
                await trio.sleep(0.02)
        return [f"after {_SETTLE_SECONDS:g} s there is work left: {json.dumps(listed)}"]

    async def dead_letters(self) -> set[str]:
        """All of them; then they are thrown away."""
        dead = []
        call = self.clients.link.trigger
        for name in ("plain", "fifo", "news"):
            for row in await call("engine::queue::dlq_messages", {"topic": name, "limit": 100_000}):
                data = row["payload"]
                kind = f"topic-{row['function_id'][0]}" if name == "news" else data["kind"]
                dead.append(f"{kind}/{data['group']}/{data['n']}")
            await call("engine::queue::discard", {"topic": name})
        assert len(dead) == len(set(dead)), "a dead letter is there twice"
        return set(dead)

    def left_over(self) -> list[str]:
        """What is on disk, and should not be."""
        connection = sqlite3.connect(self.home / "jobs" / "queue.db")
        jobs = connection.execute("SELECT count(*) FROM jobs").fetchone()[0]
        subscribers = connection.execute("SELECT count(*) FROM subscribers").fetchone()[0]
        damage = connection.execute("PRAGMA integrity_check").fetchone()[0]
        connection.close()
        problems = [f"{jobs} jobs are left on disk"] if jobs else []
        problems += [f"there are {subscribers} subscribers on disk"] if subscribers != len(WORKERS) else []
        problems += [f"the file is damaged: {damage}"] if damage != "ok" else []
        errors = self.home / "engine.err"
        return problems + (["the engine's log has a traceback"] if "Traceback" in errors.read_text() else [])


async def _free_port() -> int:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port: int = listener.socket.getsockname()[1]
    return port


async def _kill(running: Running) -> None:
    running.process.send_signal(signal.SIGKILL)
    await running.process.wait()


async def _ready(running: Running) -> None:
    assert running.process.stdout is not None
    said = b""
    with trio.fail_after(_START_SECONDS):
        while b"ready" not in said:  # SDKs say other things, too
            if not (more := await running.process.stdout.receive_some()):
                raise RuntimeError(f"a process did not start: {running.errors()}")
            said += more
