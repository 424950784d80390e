"""A real soak, played: workers come and go in rounds, and between the rounds there is none."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

import iii_trio

from .crowd import Crowd
from .ledger import Ledger
from .logs import unexpected_lines
from .played import Played, Soak
from .samples import Sample, differences, judge
from .stage import Running, cpu_of_the_ended, start_engine

_HELD = frozenset(field.name for field in attrs.fields(Sample))


async def play_soak(
    soak: Soak,
    folder: Path,
    tell: Callable[[str], None] = print,
    *,
    on_round: Callable[[Played], None] = lambda played: None,
    engine: Sequence[str] | None = None,
) -> Played:
    """Play it, with the logs of all processes below `folder`; `tell` hears of the rounds and of broken promises at once.

    `on_round` is given what came of it so far, after each round: what is known if it is stopped before its end.
    `engine` is the command that runs one, and says its address in its first line (default: `iii-trio serve`).
    If cancelled: all processes are killed.
    """
    await trio.to_thread.run_sync(_make_room, folder)
    async with trio.open_nursery() as nursery:
        running, port = await start_engine(nursery, folder / "engine.log", engine)
        url, ledger = f"ws://127.0.0.1:{port}", Ledger()
        async with iii_trio.open_worker(url, name="soak-control") as control:
            play = _Play(soak, tell, ledger, running, control, Crowd(soak, folder, nursery, port, ledger))
            await play.run(on_round)
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
        tell: Callable[[str], None],
        ledger: Ledger,
        engine: Running,
        control: iii_trio.Worker,
        crowd: Crowd,
    ) -> None:
        self._soak = soak
        self._tell = tell
        self._ledger = ledger
        self._engine = engine
        self._control = control
        self._crowd = crowd
        self._told = 0
        self._log_lines: Counter[str] = Counter()
        self._samples: list[Sample] = []
        self._baseline: Sample | None = None
        self._began = time.monotonic()
        self._cpu = (self._began, engine.cpu_seconds(), self._cpu_of_everybody())
        self._use = (0.0, 0.0)
        self._cpu_before: Final = self._cpu[2]

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    # --- the play

    async def run(self, on_round: Callable[[Played], None]) -> None:
        """Round after round, and a look at what is left after each."""
        await trio.sleep(1)
        self._baseline = await self._look(quiet=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._attend_engine, nursery.cancel_scope)
            rounds = max(1, round(self._soak.seconds / self._soak.round_seconds))
            for number in range(rounds):
                await self._round(
                    self._soak.seconds * (number + 1) / rounds - self._soak.longest_stream, self._baseline
                )
                on_round(self.played())
            nursery.cancel_scope.cancel()

    async def _round(self, until: float, baseline: Sample) -> None:
        await self._crowd.come()
        with trio.move_on_after(max(self._soak.longest_stream, until - self._now)):
            await self._crowd.suffer()
        await self._crowd.settle()
        await self._crowd.go()
        await self._look_until_empty(baseline)
        self._look_at_log()
        done = self._ledger.counts
        self._tell(
            f"{self._now:6.0f} s: {done['stream']} streams, {done['call']} calls, {done['worker started']} workers"
        )

    async def _attend_engine(self, whole: trio.CancelScope) -> None:
        code = await self._engine.process.wait()
        self._ledger.wrong.append(f"the engine ended by itself, with {code}")
        whole.cancel()

    async def end(self) -> None:
        """Stop the engine as a user does; it has nothing to wait for."""
        if self._engine.process.returncode is None:
            self._engine.process.send_signal(signal.SIGTERM)
            with trio.move_on_after(self._soak.empty_seconds):
                await self._engine.process.wait()
            if self._engine.process.returncode != 0:
                self._ledger.wrong.append(f"the engine, told to stop, ended with {self._engine.process.returncode}")
        self._look_at_log()

    # --- what there is

    async def _watch(self) -> None:
        """Sample, and keep everybody's use of the machine near what is allowed."""
        while True:
            await trio.sleep(self._soak.sample_seconds)
            sample = await self._look(quiet=False)
            self._samples.append(sample)
            await self._crowd.pace(sample.load)

    async def _look(self, *, quiet: bool) -> Sample:
        held = await self._ask_engine()
        files, sockets = self._engine.files()
        now, engine = time.monotonic(), self._engine.cpu_seconds()
        everybody = self._cpu_of_everybody()
        if not quiet:
            took = max(now - self._cpu[0], 1e-3)
            self._use = ((engine - self._cpu[1]) / took, max(0.0, everybody - self._cpu[2]) / took)
            self._cpu = (now, engine, everybody)
        cpu, load = self._use
        return Sample(
            at=round(now - self._began, 2), quiet=quiet, memory=self._engine.memory(), files=files, sockets=sockets,
            cpu=round(cpu, 4), load=round(load, 4), workers=len(self._crowd), **held,
        )  # fmt: skip

    async def _ask_engine(self) -> dict[str, int]:
        try:
            told: dict[str, int] = await self._control.trigger("engine::statistics", {})
        except (iii_trio.CallError, iii_trio.ConnectionFailed) as error:
            problem = error
        else:
            # The engine tells more than a sample keeps, such as its CPU time, which is measured from outside.
            return {name: value for name, value in told.items() if name in _HELD}
        await trio.sleep(self._soak.empty_seconds)  # if it is the engine's end, that is told meanwhile
        raise problem

    def _cpu_of_everybody(self) -> float:
        return cpu_of_the_ended() + self._engine.cpu_seconds() + self._crowd.cpu_seconds()

    async def _look_until_empty(self, baseline: Sample) -> None:
        """All workers have gone: the engine is to be as it was in the beginning, soon."""
        give_up = trio.current_time() + self._soak.empty_seconds
        while True:
            sample = await self._look(quiet=True)
            if trio.current_time() > give_up or not any(differences(sample, baseline)):
                break
            await trio.sleep(0.25)
        self._samples.append(sample)
        for left in differences(sample, baseline):
            self._tell(f"BROKEN: all workers have gone, and the engine holds {left}")

    def _look_at_log(self) -> None:
        self._log_lines.clear()
        unexpected = [
            f"an unexpected line: {line}" for line in unexpected_lines(self._engine.errors(), self._log_lines)
        ]
        self._ledger.wrong += [line for line in unexpected if line not in self._ledger.wrong]
        for problem in self._ledger.wrong[self._told :]:
            self._tell(f"BROKEN: {problem}")
        self._told = len(self._ledger.wrong)

    # --- the end

    def played(self) -> Played:
        """What came of it."""
        assert self._baseline is not None
        soak = self._soak
        verdict = judge(
            self._samples, self._baseline, warm_up=soak.warm_up, max_per_hour=soak.max_per_hour,
            max_blocks_per_hour=soak.max_blocks_per_hour,
        )  # fmt: skip
        return Played(
            soak=soak, seconds=self._now, baseline=self._baseline, samples=tuple(self._samples), verdict=verdict,
            counts=self._ledger.counts, stream_bytes=self._ledger.bytes,
            cores=(self._cpu_of_everybody() - self._cpu_before) / self._now, log_lines=self._log_lines,
            problems=(*self._ledger.wrong, *verdict.problems),
        )  # fmt: skip
