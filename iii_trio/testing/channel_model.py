"""A model of channels, as simple as possible. It is two lists and a set of possible outcomes.

A script is a list of steps, taken one after the other, each until all tasks wait. For each step the model tells the
possible observations. Where it allows more than one thing, the comment says why.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import attrs

from ..records import define, frozen

Do: TypeAlias = Literal["create", "send", "close", "abort", "receive", "cancel", "crash", "wait"]

EXPIRES_AFTER_SECONDS: Final = 300.0
WAITS: Final = "waits"
CLEAN: Final = "clean end"
CLOSED: Final = "already closed"
DONE: Final = "done"


@frozen
class Step:
    """One action on a channel or a worker, or a pause of some seconds."""

    do: Do
    channel: int = -1
    worker: int = -1
    """Of `create`: the owner; of `crash`: who."""
    writer: int = -1
    reader: int = -1
    item: int = -1
    seconds: float = 0.0

    def __str__(self) -> str:
        about = attrs.asdict(self, filter=lambda field, value: field.name != "do" and value != field.default)
        return " ".join([self.do, *(f"{name}={value}" for name, value in about.items())])


def broken(outcome: str) -> str:
    """Return the observation of a channel that did not end cleanly."""
    return f"broken: {outcome}"


@define
class ModelChannel:
    """One channel with its items and the actions of its ends."""

    owner: int
    writer: int
    reader: int
    waiting: list[str] = attrs.field(factory=list)
    """Items sent and not received."""
    writer_used: bool = False
    reader_used: bool = False
    writer_closed: bool = False
    """By its own doing, in whatever way."""
    reader_closed: bool = False
    sealed: bool = False
    """The writer closed cleanly: what waits, and the clean end behind it, is still to be had."""
    outcomes: set[str] = attrs.field(factory=set)
    """How it has ended: one of these. Empty: it is open."""
    idle_since: float = 0.0

    @property
    def may_be(self) -> set[str]:
        """Return the outcomes that the engine may report, or `open`."""
        if self.outcomes:
            return self.outcomes
        # Over a socket the reader has answered the clean end perhaps before the program asks for it.
        return {"open", "completed"} if self.sealed and self.reader_used else {"open"}

    # --- each gives what may be seen

    def send(self, item: int, now: float) -> set[str]:
        # An end that this program closed is a misuse, told before anything of the peer (clause C4.8).
        if self.writer_closed:
            return {CLOSED}
        self.writer_used = True
        if self.outcomes:
            return set(map(broken, self.outcomes))
        self.waiting.append(f"item {item}")
        self.idle_since = now
        return {DONE}

    def close(self, now: float) -> set[str]:
        # Ending twice is harmless (clause C4.8).
        if self.writer_closed:
            return {DONE}
        self.writer_used = self.writer_closed = True
        if self.outcomes:
            return set(map(broken, self.outcomes))
        self.sealed = True
        self.idle_since = now
        return {DONE}

    def abort(self) -> set[str]:
        # Ending twice is harmless, and an abort after a clean close takes nothing back (clause C4.8).
        if not self.writer_closed:
            self.writer_used = self.writer_closed = True
            self.end("aborted")
        return {DONE}

    def receive(self, now: float) -> set[str]:
        if self.reader_closed:
            return {CLOSED}
        # The first receive attaches the reader, from which the time without activity counts anew.
        if not self.reader_used:
            self.reader_used = True
            self.idle_since = now
        if self.outcomes and self.outcomes != {"completed"}:
            # What was already on its way to the reader may still come; what was in the pipe is dropped (clause C4.3).
            return set(map(broken, self.outcomes)) | set(self.waiting[:1])
        if self.waiting:
            return {self.waiting[0]}
        # The clean end stands behind the items, so it is seen only when none waits (clause C4.1).
        if self.sealed:
            self.outcomes = {"completed"}
            return {CLEAN}
        return {WAITS}

    def cancel(self) -> set[str]:
        # Ending twice is harmless (clause C4.8).
        if not self.reader_closed:
            self.reader_closed = True
            self.reader_used = True
            # Over a socket the clean end may have been there, unread by the program; an empty stream has only that.
            self.end(*({"reader_cancelled", "completed"} if self.sealed else {"reader_cancelled"}))
        return {DONE}

    def lose(self, worker: int, says_goodbye: bool) -> None:
        """Lose a worker with everything it held and owned (C4.5). In the engine's own process it can only leave in order."""
        possible = set()
        if worker == self.writer and self.writer_used and not self.writer_closed:
            possible |= {"writer_lost", "aborted"} if says_goodbye else {"writer_lost"}
        if worker == self.reader and self.reader_used and not self.reader_closed:
            possible |= {"reader_lost", "reader_cancelled"} if says_goodbye else {"reader_lost"}
            possible |= {"completed"} if self.sealed else set()
        # A finished stream outlives its owner (clause C4.5).
        if worker == self.owner and not self.sealed:
            possible.add("owner_lost")
        if possible:
            # One process's ends and its session go at the same moment: whichever is noticed first.
            self.end(*possible)

    def pass_time(self, now: float) -> None:
        """Only half-attached channels expire (clause C2.3)."""
        if self.writer_used != self.reader_used and now - self.idle_since >= EXPIRES_AFTER_SECONDS:
            self.end("expired")

    # --- what happens, and what was seen

    def end(self, *possible: str) -> None:
        # A channel has one outcome, and the first one stays (clause C4.7).
        if not self.outcomes:
            self.outcomes = set(possible)

    def saw(self, what: str) -> None:
        """Update the model by an observation where several were possible."""
        if self.waiting and what == self.waiting[0]:
            self.waiting.pop(0)
        # From here on every later observation must agree with the outcome that was told.
        elif what.startswith("broken: "):
            self.outcomes = {what.removeprefix("broken: ")}
            self.waiting.clear()


@define
class Model:
    """All channels of a script."""

    in_process: frozenset[int] = frozenset()
    """The workers in the engine's process."""
    channels: list[ModelChannel] = attrs.field(factory=list)
    now: float = 0.0

    def judge(self, step: Step, seen: str) -> None:
        """Take a step and check its observation. Raises AssertionError."""
        allowed = self._take(step)
        if seen not in allowed:
            raise AssertionError(f"{step} showed `{seen}`, where there could be: {', '.join(sorted(allowed))}")
        if step.channel >= 0:
            self.channels[step.channel].saw(seen)

    def _take(self, step: Step) -> set[str]:
        match step.do:
            case "create":
                self.channels.append(ModelChannel(step.worker, step.writer, step.reader, idle_since=self.now))
            case "crash":
                for channel in self.channels:
                    channel.lose(step.worker, step.worker in self.in_process)
            case "wait":
                self.now += step.seconds
                for channel in self.channels:
                    channel.pass_time(self.now)
            case "send":
                return self.channels[step.channel].send(step.item, self.now)
            case "close":
                return self.channels[step.channel].close(self.now)
            case "abort":
                return self.channels[step.channel].abort()
            case "receive":
                return self.channels[step.channel].receive(self.now)
            case "cancel":
                return self.channels[step.channel].cancel()
        return {DONE}
