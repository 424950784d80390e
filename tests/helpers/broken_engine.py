"""Run an engine as `iii-trio serve` does, with one defect: `python -m tests.helpers.broken_engine DEFECT`."""

# mypy: disable-error-code="method-assign, assignment"

from __future__ import annotations

import itertools
import os
import sys
from typing import Any

import trio

from iii_trio.cli import main
from iii_trio.core.channel import ChannelEvent
from iii_trio.core.session import WorkerSession
from iii_trio.engine.shell import Shell
from iii_trio.transport.frames import FrameBatch
from iii_trio.transport.pipe import Pipe


def an_abort_looks_complete() -> None:
    real = Shell.channel_event

    def channel_event(shell: Shell, channel_id: str, event: ChannelEvent, *about: Any) -> None:
        real(shell, channel_id, ChannelEvent.WRITER_CLOSED if event is ChannelEvent.WRITER_ABORTED else event, *about)

    Shell.channel_event = channel_event


def runs_are_lost() -> None:
    real, numbers = Pipe.push, itertools.count()

    def push(pipe: Pipe, batch: FrameBatch) -> FrameBatch | None:
        return None if next(numbers) % 5 == 4 else real(pipe, batch)

    Pipe.push = push


def tasks_stay() -> None:
    real = Shell.disconnected

    def disconnected(shell: Shell, session: WorkerSession, reason: str, **how: Any) -> None:
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        real(shell, session, reason, **how)

    Shell.disconnected = disconnected


def memory_stays() -> None:
    """Found by the slope, so not within the minutes that a test may take."""
    real, kept = Shell.disconnected, []

    def disconnected(shell: Shell, session: WorkerSession, reason: str, **how: Any) -> None:
        kept.append(bytes(50_000))
        real(shell, session, reason, **how)

    Shell.disconnected = disconnected


def it_complains() -> None:
    real = Shell.disconnected

    def disconnected(shell: Shell, session: WorkerSession, reason: str, **how: Any) -> None:
        shell.log(30, "that should not have been")
        real(shell, session, reason, **how)

    Shell.disconnected = disconnected


def it_dies() -> None:
    Shell.disconnected = lambda *_, **__: os._exit(3)


globals()[sys.argv[1]]()
sys.exit(main(["serve", "--port", "0"]))
