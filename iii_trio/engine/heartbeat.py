"""Finds silent workers by one sweep over all their sockets, however many.

Theory of operation. Four times within the deadline each worker's socket is looked at. One from which bytes came since the
last look is alive. One that has been silent is sent a ping, which every WebSocket library answers by itself; after four
silent looks in a row it is given up. Looks are counted, not seconds, because a worker must not be blamed for a time in
which the engine itself stood still (a stopped process, a machine that slept, a clock that jumped).

Channel sockets are never pinged (clause C3.3).
"""

from __future__ import annotations

from typing import Final, Protocol, final

import trio

_LOOKS: Final = 4


class HeartbeatTarget(Protocol):
    """A worker's socket, as far as its heartbeat goes."""

    def take_sign_of_life(self) -> bool:
        """Whether anything came, or anything that waits was taken, since this was asked last."""

    def ping(self) -> None:
        """Ask for a sign of life, without waiting."""

    def give_up(self, reason: str) -> None:
        """End it, and say why."""


@final
class Heartbeat:
    """Looks after worker sockets; one that is silent for `deadline_seconds`, and a quarter more at most, is cut off."""

    def __init__(self, deadline_seconds: float | None) -> None:
        self.deadline_seconds = deadline_seconds
        self._silent_looks: dict[HeartbeatTarget, int] = {}
        self._wanted = trio.Event()  # there is somebody to look after, and a deadline
        self._changed = trio.Event()

    def watch(self, target: HeartbeatTarget) -> None:
        """Look after this one, until `forget`."""
        self._silent_looks[target] = 0
        self._wanted.set()

    def forget(self, target: HeartbeatTarget) -> None:
        """Watch this socket no longer. Harmless if it is not watched."""
        self._silent_looks.pop(target, None)

    async def keep(self) -> None:
        """Sweep until cancelled. Without a socket to watch, nothing wakes."""
        while True:
            if not self._silent_looks or self.deadline_seconds is None:
                self._wanted = trio.Event()
                await self._wanted.wait()
                continue
            with trio.move_on_after(self.deadline_seconds / _LOOKS) as pause:
                await self._changed.wait()
            if pause.cancelled_caught:
                self._look(self.deadline_seconds)
            else:
                self._changed = trio.Event()

    def change(self, deadline_seconds: float | None) -> None:
        """Set another deadline. The next look comes a quarter of it from now; None: never."""
        if deadline_seconds != self.deadline_seconds:
            self.deadline_seconds = deadline_seconds
            self._wanted.set()
            self._changed.set()

    def _look(self, deadline_seconds: float) -> None:
        for target, silent in list(self._silent_looks.items()):
            if target.take_sign_of_life():
                self._silent_looks[target] = 0
                continue
            self._silent_looks[target] = silent + 1
            if silent + 1 < _LOOKS:
                target.ping()
            else:
                self.forget(target)
                target.give_up(f"nothing came from it for {deadline_seconds:g} s, not even the answer to a ping")
