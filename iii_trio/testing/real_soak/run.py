"""A real soak, played: workers come and go in rounds, and between the rounds there is none."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import trio

import iii_trio

from .ledger import Ledger
from .logs import unexpected_lines
from .samples import SHORTEST, Sample, Verdict, differences, judge
from .stage import Player, Running, cpu_of_the_ended, start, start_engine
from .wires import Wire

_SETTLE_SECONDS: Final = 75.0
"""What workers have to bring to an end what they began: more than they give a single deed."""
_EMPTY_SECONDS: Final = 20.0
"""What the engine has to forget workers that have gone."""
_CUT_SECONDS: Final = 15.0
"""How long a cut may be felt: until the worker has dialled again."""
_START_SECONDS: Final = 60.0
_PAUSES: Final = (0.2, 60.0)
"""Seconds between two deeds of a worker."""


@attrs.frozen
class Soak:
    """How long, how much. Times are in seconds, sizes in bytes."""

    seconds: float = 3600.0
    round_seconds: float = 180.0
    sample_seconds: float = 5.0
    seed: int = 0
    workers: int = 6
    """How many are there at a time, beside an idle one and one on iii's Python SDK."""
    load: float = 0.33
    """Cores that all processes together may use in the mean."""
    mischief_seconds: float = 5.0
    """The mean time between two things that are done to the workers."""
    most_per_hour: float = 1 << 20
    """How much the line of memory may rise in an hour."""
    most_blocks_per_hour: float = 5_000.0

    @property
    def longest_stream(self) -> float:
        """What the slowest streams take."""
        return min(10.0, self.round_seconds / 6)

    @property
    def warm_up(self) -> float:
        """What is not judged: a sixth."""
        return self.seconds / 6


@attrs.frozen
class Played:
    """What came of it."""

    soak: Soak
    seconds: float
    baseline: Sample
    samples: tuple[Sample, ...]
    verdict: Verdict
    counts: Counter[str]
    """Of streams, calls, outcomes, and of what was done to the workers."""
    stream_bytes: int
    cores: float
    """Used by all processes, in the mean."""
    log_lines: Counter[str]
    problems: tuple[str, ...]
    """Broken promises, in sentences."""

    @property
    def summary(self) -> str:
        """What was done and found, in a line."""
        counts, verdict = self.counts, self.verdict
        memory = f"memory {verdict.memory_first / 2**20:.1f} to {verdict.memory_last / 2**20:.1f} MiB"
        if verdict.judged_seconds < SHORTEST:
            memory += ", too short a time to judge it by"
        else:
            memory += (
                f", slope {verdict.memory_per_hour / 2**20:+.2f} MiB and {verdict.blocks_per_hour:+.0f} blocks an hour "
                f"over {verdict.judged_seconds / 60:.0f} min"
            )
        done = ", ".join(
            f"{counts[f'worker {what}']} {what}" for what in ("started", "killed", "sent away", "stopped", "cut")
        )
        return (
            f"{self.seconds / 60:.1f} min: {counts['stream']} streams ({self.stream_bytes / 2**20:.0f} MiB, "
            f"{counts['stream that was disturbed']} of them disturbed), {counts['call']} calls; workers: {done}; "
            f"{verdict.quiet} times empty; {memory}; "
            f"{self.cores:.2f} cores in the mean; "
            + (f"{len(self.problems)} promises broken" if self.problems else "no promise broken")
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, for later."""
        columns = [field.name for field in attrs.fields(Sample)]
        return {
            "soak": attrs.asdict(self.soak),
            "seconds": self.seconds,
            "summary": self.summary,
            "problems": list(self.problems),
            "verdict": attrs.asdict(self.verdict),
            "counts": dict(sorted(self.counts.items())),
            "stream_bytes": self.stream_bytes,
            "cores": self.cores,
            "log_lines": dict(self.log_lines.most_common()),
            "baseline": attrs.asdict(self.baseline),
            "columns": columns,
            "samples": [list(attrs.astuple(each)) for each in self.samples],
        }


async def play_soak(soak: Soak, folder: Path, tell: Callable[[str], None] = print) -> Played:
    """Play it, with the logs of all processes below `folder`; `tell` hears of the rounds and of broken promises at once.

    If cancelled: all processes are killed.
    """
    await trio.to_thread.run_sync(_make_room, folder)
    async with trio.open_nursery() as nursery:
        engine, port = await start_engine(nursery, folder / "engine.log")
        async with iii_trio.open_worker(f"ws://127.0.0.1:{port}", name="soak-control") as control:
            play = _Play(soak, folder, tell, nursery, engine, port, control)
            await play.run()
        await play.end()
        nursery.cancel_scope.cancel()
    return play.played()


def _make_room(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.log"):
        old.unlink()


class _Play:
    def __init__(
        self,
        soak: Soak,
        folder: Path,
        tell: Callable[[str], None],
        nursery: trio.Nursery,
        engine: Running,
        port: int,
        control: iii_trio.Worker,
    ) -> None:
        self._soak = soak
        self._folder = folder
        self._tell = tell
        self._nursery = nursery
        self._engine = engine
        self._port = port
        self._control = control
        self._random = Random(soak.seed)
        self._ledger = Ledger()
        self._players: dict[str, Player] = {}
        self._wires: list[Wire] = []  # that nobody uses
        self._numbers = 0
        self._told = 0
        self._problems: list[str] = []
        self._log_lines: Counter[str] = Counter()
        self._began = time.monotonic()
        self._samples: list[Sample] = []
        self._baseline: Sample | None = None
        self._pause = 3.0 * (soak.workers / 6) / (soak.load / 0.33)
        self._cpu = (self._began, engine.cpu_seconds(), cpu_of_the_ended() + engine.cpu_seconds())
        self._use = (0.0, 0.0)
        self._cpu_before = self._cpu[2]
        self._has_sdk = find_spec("iii") is not None

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    # --- the play

    async def run(self) -> None:
        """Round after round, and a look at what is left after each."""
        await trio.sleep(1)
        self._baseline = await self._look(quiet=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            rounds = max(1, round(self._soak.seconds / self._soak.round_seconds))
            for number in range(rounds):
                await self._round(self._soak.seconds * (number + 1) / rounds)
            nursery.cancel_scope.cancel()

    async def _round(self, until: float) -> None:
        async with trio.open_nursery() as tasks:
            with trio.move_on_after(max(0.0, until - self._now - self._soak.longest_stream)):
                for kind in ("idle", *(["sdk"] if self._has_sdk else []), *["a"] * self._soak.workers):
                    await self._enter(kind)
                while True:
                    await trio.sleep(self._random.expovariate(1 / self._soak.mischief_seconds))
                    await self._do_mischief(tasks)
        await self._empty()

    async def _do_mischief(self, tasks: trio.Nursery) -> None:
        there = [
            each for each in self._players.values() if each.ready.is_set() and not each.leaving and not each.stopped
        ]
        if not there:
            return
        player = self._random.choice(there)
        (what,) = self._random.choices(["killed", "sent away", "stopped", "cut"], [3, 2, 2, 3])
        if what == "cut" and (player.wire is None or not player.wire.connections):
            return
        self._ledger.counts[f"worker {what}"] += 1
        match what:
            case "killed":
                self._ledger.disturb(player.name, time.monotonic())
                player.kill()
                await player.running.gone.wait()
                again = player.name if self._random.random() < 0.5 else None
                await self._enter(player.name.rstrip("0123456789"), again)
            case "sent away":
                self._ledger.disturb(player.name, time.monotonic())
                await player.leave()
                await self._enter(player.name.rstrip("0123456789"))
            case "stopped":
                tasks.start_soon(self._stop, player, self._random.uniform(0.2, 4))
            case "cut":
                self._ledger.disturb(player.name, time.monotonic(), _CUT_SECONDS)
                assert player.wire is not None
                player.wire.cut(self._random)

    async def _stop(self, player: Player, seconds: float) -> None:
        """Stop a process for a while, as a busy machine may; that excuses nothing."""
        player.stopped = True
        player.running.process.send_signal(signal.SIGSTOP)
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
        player.running.process.send_signal(signal.SIGCONT)
        player.stopped = False

    async def _empty(self) -> None:
        """Let all end what they began, judge it, have them go, and look at what is left of them."""
        players = [each for each in self._players.values() if not each.leaving and not each.killed]
        with trio.move_on_after(_SETTLE_SECONDS) as patience:
            for player in players:
                await player.tell(settle=True)
            for player in players:
                await player.settled.wait()
        if patience.cancelled_caught:
            late = ", ".join(each.name for each in players if not each.settled.is_set())
            self._ledger.wrong.append(f"{late} did not bring to an end what they began within {_SETTLE_SECONDS:g} s")
        self._ledger.settle(time.monotonic())
        for player in players:
            if self._random.random() < 0.3:
                player.kill()
            else:
                await player.leave()
        with trio.move_on_after(_SETTLE_SECONDS) as patience:
            for player in list(self._players.values()):
                await player.running.gone.wait()
        if patience.cancelled_caught:
            self._ledger.wrong.append(f"these workers did not go: {', '.join(self._players)}")
        await self._look_until_empty()
        self._look_at_log()
        self._tell_problems()
        done = self._ledger.counts
        self._tell(
            f"{self._now:6.0f} s: {done['stream']} streams, {done['call']} calls, {done['worker started']} workers"
        )

    # --- workers

    async def _enter(self, kind: str, name: str | None = None) -> None:
        if name is None:
            self._numbers += 1
            name = f"{kind}{self._numbers}"
        wire = None
        if self._random.random() < 0.5:
            wire = self._wires.pop() if self._wires else await self._lay_wire()
        url = f"ws://127.0.0.1:{self._port if wire is None else wire.port}"
        module = f"{__package__}.{'sdk_actor' if kind == 'sdk' else 'actor'}"
        numbers = (self._random.randrange(2**32), 0 if kind == "idle" else self._pause, self._soak.longest_stream)
        arguments = [] if kind == "sdk" else map(str, numbers)
        running = await start(
            self._nursery, [sys.executable, "-m", module, url, name, *arguments], self._folder / f"{name}.log"
        )
        player = self._players[name] = Player(name, running, wire)
        self._ledger.counts["worker started"] += 1
        self._nursery.start_soon(self._attend, player)
        with trio.move_on_after(_START_SECONDS) as patience:
            await player.ready.wait()  # or its end, which is told as it is
        if patience.cancelled_caught:
            self._ledger.wrong.append(f"worker {name} was not ready within {_START_SECONDS:g} s")
        self._ledger.recovered(name, time.monotonic())

    async def _lay_wire(self) -> Wire:
        wire = Wire(self._port)
        await self._nursery.start(wire.serve)
        return wire

    async def _attend(self, player: Player) -> None:
        code = await player.listen(self._hear)
        if player.wire is not None:
            self._wires.append(player.wire)
        if self._players.get(player.name) is player:
            del self._players[player.name]
        if code and not player.killed:
            words = player.running.errors().strip().splitlines()[-20:]
            self._ledger.wrong.append("\n".join([f"worker {player.name} ended with {code}; it said:", *words]))
        elif not player.leaving and not player.killed:
            self._ledger.wrong.append(f"worker {player.name} left of its own accord")

    def _hear(self, player: Player, event: dict[str, Any]) -> None:
        self._ledger.hear(event, time.monotonic())

    # --- what there is

    async def _watch(self) -> None:
        """Sample, and keep everybody's use of the machine near what is allowed."""
        while True:
            await trio.sleep(self._soak.sample_seconds)
            sample = await self._look(quiet=False)
            self._samples.append(sample)
            ratio = sample.load / self._soak.load
            self._pause = min(max(self._pause * min(max(ratio, 0.8), 1.25), _PAUSES[0]), _PAUSES[1])
            for player in list(self._players.values()):
                if player.ready.is_set() and not player.stopped:
                    with trio.move_on_after(1):
                        await player.tell(pause=self._pause)

    async def _look(self, *, quiet: bool) -> Sample:
        held = await self._control.trigger("engine::statistics", {})
        files, sockets = self._engine.files()
        now, engine = time.monotonic(), self._engine.cpu_seconds()
        everybody = cpu_of_the_ended() + engine + sum(each.running.cpu_seconds() for each in self._players.values())
        if not quiet:
            took = max(now - self._cpu[0], 1e-3)
            self._use = ((engine - self._cpu[1]) / took, max(0.0, everybody - self._cpu[2]) / took)
            self._cpu = (now, engine, everybody)
        cpu, load = self._use
        return Sample(
            at=round(now - self._began, 2), quiet=quiet, memory=self._engine.memory(), files=files, sockets=sockets,
            cpu=round(cpu, 4), load=round(load, 4), workers=len(self._players), **held,
        )  # fmt: skip

    async def _look_until_empty(self) -> None:
        """All workers have gone: the engine is to be as it was in the beginning, soon."""
        assert self._baseline is not None
        give_up = trio.current_time() + _EMPTY_SECONDS
        while True:
            sample = await self._look(quiet=True)
            if trio.current_time() > give_up or not any(differences(sample, self._baseline)):
                break
            await trio.sleep(0.25)
        self._samples.append(sample)
        for left in differences(sample, self._baseline):
            self._tell(f"BROKEN: all workers have gone, and the engine holds {left}")

    def _look_at_log(self) -> None:
        self._log_lines.clear()
        unexpected = [
            f"an unexpected line: {line}" for line in unexpected_lines(self._engine.errors(), self._log_lines)
        ]
        self._ledger.wrong += [line for line in unexpected if line not in self._ledger.wrong + self._problems]

    def _tell_problems(self) -> None:
        for problem in self._ledger.wrong[self._told :]:
            self._tell(f"BROKEN: {problem}")
        self._told = len(self._ledger.wrong)

    # --- the end

    async def end(self) -> None:
        """Stop the engine as a user does; it has nothing to wait for."""
        self._engine.process.send_signal(signal.SIGTERM)
        with trio.move_on_after(_EMPTY_SECONDS):
            await self._engine.process.wait()
        if self._engine.process.returncode != 0:
            self._ledger.wrong.append(f"the engine, told to stop, ended with {self._engine.process.returncode}")
        self._look_at_log()
        self._tell_problems()

    def played(self) -> Played:
        """What came of it."""
        assert self._baseline is not None
        soak = self._soak
        verdict = judge(
            self._samples, self._baseline, warm_up=soak.warm_up, most_per_hour=soak.most_per_hour,
            most_blocks_per_hour=soak.most_blocks_per_hour,
        )  # fmt: skip
        return Played(
            soak=soak, seconds=self._now, baseline=self._baseline, samples=tuple(self._samples), verdict=verdict,
            counts=self._ledger.counts, stream_bytes=self._ledger.bytes,
            cores=(cpu_of_the_ended() - self._cpu_before) / self._now, log_lines=self._log_lines,
            problems=(*self._ledger.wrong, *verdict.problems),
        )  # fmt: skip


def write_down(played: Played, folder: Path) -> None:
    """The samples, counts and findings as `soak.json`, the plot as `soak.svg`."""
    from .plot import draw

    (folder / "soak.json").write_text(json.dumps(played.to_json()) + "\n")
    (folder / "soak.svg").write_text(draw(played.samples, played.soak.warm_up))
