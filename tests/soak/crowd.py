"""The workers of a real soak: they come, something is done to them, they go."""

from __future__ import annotations

import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, Final

import trio

from .ledger import Ledger
from .played import Soak
from .stage import Player, start
from .wires import Wire

_SETTLE_SECONDS: Final = 75.0
"""What workers have to bring to an end what they began: more than they give a single deed."""
_CUT_SECONDS: Final = 15.0
"""How long a cut may be felt: until the worker has dialled again."""
_START_SECONDS: Final = 60.0
_PAUSES: Final = (0.2, 60.0)
"""Seconds between two deeds of a worker."""
_MISCHIEF: Final = {"killed": 3, "sent away": 2, "stopped": 2, "cut": 3}


class Crowd:
    """All workers of one engine. What they tell, and what is done to them, goes into the ledger."""

    def __init__(self, soak: Soak, folder: Path, nursery: trio.Nursery, port: int, ledger: Ledger) -> None:
        self._soak = soak
        self._folder = folder
        self._nursery = nursery
        self._port = port
        self._ledger = ledger
        self._random = Random(soak.seed)
        self._players: dict[str, Player] = {}
        self._wires: list[Wire] = []  # that nobody uses
        self._numbers = 0
        self._pause = 0.5 * soak.workers / (soak.load / 0.33)
        kinds = ["idle", *(["sdk"] if find_spec("iii") is not None else []), *["a"] * soak.workers]
        self._kinds: Final = tuple(kinds)

    def __len__(self) -> int:
        return len(self._players)

    def cpu_seconds(self) -> float:
        """What those that are there have used so far."""
        return sum(each.running.cpu_seconds() for each in self._players.values())

    async def come(self) -> None:
        """One after the other, until all are there."""
        for kind in self._kinds:
            await self._enter(kind)

    async def pace(self, load: float) -> None:
        """Everybody together uses so many cores: have them do more, or less."""
        ratio = min(max(load / self._soak.load, 0.8), 1.25)
        self._pause = min(max(self._pause * ratio, _PAUSES[0]), _PAUSES[1])
        for player in list(self._players.values()):
            if player.ready.is_set() and not player.stopped:
                with trio.move_on_after(1):
                    await player.tell(pause=self._pause)

    # --- what is done to them

    async def suffer(self) -> None:
        """One thing after the other is done to one of them, until cancelled."""
        async with trio.open_nursery() as stops:
            while True:
                await trio.sleep(self._random.expovariate(1 / self._soak.mischief_seconds))
                there = [
                    each
                    for each in self._players.values()
                    if each.ready.is_set() and not (each.leaving or each.stopped or each.killed)
                ]
                if there:
                    (what,) = self._random.choices(list(_MISCHIEF), list(_MISCHIEF.values()))
                    await self._do(what, self._random.choice(there), stops)

    async def _do(self, what: str, player: Player, stops: trio.Nursery) -> None:
        if what == "cut" and (player.wire is None or not player.wire.connections):
            return
        self._ledger.counts[f"worker {what}"] += 1
        kind = player.name.rstrip("0123456789")
        match what:
            case "killed":
                self._ledger.disturb(player.name, time.monotonic())
                player.kill()
                await player.running.gone.wait()
                await self._enter(kind, player.name if self._random.random() < 0.5 else None)
            case "sent away":
                self._ledger.disturb(player.name, time.monotonic())
                await player.leave()
                await self._enter(kind)
            case "stopped":
                stops.start_soon(self._stop, player, self._random.uniform(0.2, 4))
            case "cut" if player.wire is not None:
                self._ledger.disturb(player.name, time.monotonic(), _CUT_SECONDS)
                player.wire.cut(self._random)

    async def _stop(self, player: Player, seconds: float) -> None:
        """Stop a process for a while, as a busy machine may; that excuses nothing."""
        player.stopped = True
        player.running.process.send_signal(signal.SIGSTOP)
        try:
            with trio.move_on_after(seconds, shield=True):
                await trio.sleep_forever()
        finally:
            player.running.process.send_signal(signal.SIGCONT)
            player.stopped = False

    # --- how they go

    async def settle(self) -> None:
        """Have all bring to an end what they began, and judge it."""
        staying = [each for each in self._players.values() if not (each.leaving or each.killed)]
        with trio.move_on_after(_SETTLE_SECONDS) as patience:
            for player in staying:
                await player.tell(settle=True)
            for player in staying:
                await player.settled.wait()
        if patience.cancelled_caught:
            late = ", ".join(each.name for each in staying if not each.settled.is_set())
            self._ledger.wrong.append(f"{late} did not bring to an end what they began within {_SETTLE_SECONDS:g} s")
        self._ledger.settle(time.monotonic())

    async def go(self) -> None:
        """Have all go, some of them by SIGKILL, and wait until none is left."""
        for player in list(self._players.values()):
            if player.leaving or self._random.random() < 0.3:
                player.kill()
            else:
                await player.leave()
        with trio.move_on_after(_SETTLE_SECONDS) as patience:
            for player in list(self._players.values()):
                await player.running.gone.wait()
        if patience.cancelled_caught:
            self._ledger.wrong.append(f"these workers did not go: {', '.join(self._players)}")

    # --- how they come

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
        command = [sys.executable, "-m", module, url, name, *([] if kind == "sdk" else map(str, numbers))]
        player = Player(name, await start(self._nursery, command, self._folder / f"{name}.log"), wire)
        self._players[name] = player
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

    def _hear(self, event: dict[str, Any]) -> None:
        self._ledger.hear(event, time.monotonic())
