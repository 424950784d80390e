"""A round: the processes, what is done to them, and what is found at the end."""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import sys
from contextlib import closing, suppress
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
_WAL_HEADER: Final = 32
_REFUSALS: Final = {"disk": ("storage_failed", "queue_full"), "settings": ("queue_not_found",)}


@attrs.frozen
class Played:
    """What came of a round."""

    plan: Plan
    tally: Tally

    @property
    def summary(self) -> str:
        """In a line."""
        deeds = ", ".join(deed for _, deed in self.plan.deeds)
        deeds += "" if self.plan.mishap == "none" else f"; {self.plan.mishap}"
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
        self.excused: set[str] = set()
        """The jobs whose rows were damaged."""
        self.rng = Random(f"mishap {plan.seed}")
        self.variants = ["0", "1", "2"] if plan.mishap == "settings" else ["0"]
        self.clients.expected = _REFUSALS.get(plan.mishap, ())
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
            if self.plan.mishap == "poison":
                self.nursery.start_soon(self.revive)
            for index, stream in enumerate(STREAMS):
                self.nursery.start_soon(self.clients.want, stream, Random(f"{self.plan.seed} {index}"))
            if self.plan.mishap == "poison":
                await self.clients.want_poison()
            for pause, deed in self.plan.deeds:
                await trio.sleep(pause)
                problems += await self.do(deed)
            if self.plan.mishap == "settings":  # all queues are there again, as the counting at the end asks for them
                self.variants = ["0"]
                problems += await self.do("close engine")
            await trio.sleep(self.plan.after_seconds)
            self.clients.stop()
            problems += await self.settle()
            dead = await self.dead_letters()
            problems += await self.end_engine("close engine")
            self.nursery.cancel_scope.cancel()
        lines = [Line.parse(line) for name in WORKERS for line in self.log(name).read_text().splitlines()]
        # A damaged log may hold the end or the beginning of any job.
        excused = self.clients.promised if self.plan.mishap == "log" else self.excused
        tally = judge(self.clients.wanted, self.clients.promised, dead, lines, excused)
        if self.plan.mishap == "log":
            tally.problems = [problem for problem in tally.problems if "nobody wanted it" in problem]
        tally.problems += problems + [f"refused: {one}" for one in self.clients.refused] + self.left_over()
        return Played(self.plan, tally)

    def log(self, name: str) -> Path:
        return self.home / f"{name}.log"

    # --- deeds

    async def do(self, deed: Deed) -> list[str]:
        if deed in ENDS_OF_THE_ENGINE:
            problems = await self.end_engine(deed)
            if self.plan.mishap == "rows":
                self.damage_row()
            if self.plan.mishap == "log":
                self.damage_log()
            await self.start_engine()
            return problems
        if deed == "fill disk":
            await self.fill_disk()
            return []
        name = deed.rpartition(" ")[2]
        if deed.startswith("leave"):
            await _leave(self.workers[name])
        else:
            await _kill(self.workers[name])
        await self.start_worker(name, wait=False)
        return []

    async def fill_disk(self) -> None:
        """Let no file of the engine grow for a while, as on a full disk."""
        pid = self.engine.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (self.rng.choice((1, 100_000)), hard))
        await trio.sleep(self.rng.uniform(0.05, 0.6))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    def damage_row(self) -> None:
        """Damage a job on disk, whichever, and excuse it."""
        with closing(sqlite3.connect(self.home / "jobs" / "queue.db")) as connection:
            rows = connection.execute(
                "SELECT key, lane, data FROM jobs WHERE died_at_ms IS NULL ORDER BY key"
            ).fetchall()
            if not rows:
                return
            key, lane, text = self.rng.choice(rows)
            column, value = self.rng.choice((("attempts", "x"), ("data", b"{"), ("lane", "x"), ("created_at_ms", None)))
            with suppress(sqlite3.IntegrityError):  # a column that cannot be null stays as it is
                connection.execute(f"UPDATE jobs SET {column} = ? WHERE key = ?", (value, key))
                connection.commit()
            data, parts = json.loads(text), json.loads(lane)
            kind = data["kind"] if parts[0] == "queue" else f"topic-{parts[3][0]}"
            self.excused.add(f"{kind}/{data['group']}/{data['n']}")

    def damage_log(self) -> None:
        """Change a byte of the write-ahead log, whichever."""
        log = self.home / "jobs" / "queue.db-wal"
        size = log.stat().st_size if log.exists() else 0
        if size > _WAL_HEADER:
            at = self.rng.randrange(_WAL_HEADER, size)
            with log.open("r+b") as file:
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 0x5A]))

    async def revive(self) -> None:
        """Start workers again that a job has killed."""
        while True:
            for name, worker in list(self.workers.items()):
                if worker.process.returncode is not None:
                    await self.start_worker(name, wait=False)
            await trio.sleep(0.02)

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
        clock = self.rng.uniform(-86_400, 86_400) if self.plan.mishap == "clock" else 0.0
        arguments = [str(self.home / "jobs"), self.socket, str(self.plan.lost_allowed)]
        arguments += [self.rng.choice(self.variants), str(clock)]
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
            rows = await call("engine::queue::dlq_messages", {"topic": name, "limit": 100_000})
            for row in rows:
                data = row["payload"]
                kind = f"topic-{row['function_id'][0]}" if name == "news" else data["kind"]
                dead.append(f"{kind}/{data['group']}/{data['n']}")
            if rows:  # a queue that was taken away has no name any more
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
        if self.plan.mishap == "log":
            subscribers = len(WORKERS)  # a subscription has no receipt, and may have been in the log
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


async def _leave(running: Running) -> None:
    """Have a worker of ours leave as it should, whatever runs."""
    assert running.process.stdin is not None
    with suppress(trio.BrokenResourceError):
        await running.process.stdin.aclose()
    with trio.move_on_after(_START_SECONDS):
        await running.process.wait()


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
