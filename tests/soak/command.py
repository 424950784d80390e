"""The command `python -m tests.soak --real`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from .played import Played, Soak, write_down
from .run import play_soak


def run_real_soak(soak: Soak, folder: Path) -> int:
    """Play it, write down in `folder` what came of it, also after each round.

    The exit code: 0, 1 if a promise was broken, 130 if it was stopped (SIGINT, SIGTERM) before its end.
    """
    played = trio.run(_play, soak, folder, lambda played: write_down(played, folder))
    if played is None:
        print(f"stopped; what was known after the last whole round is in {folder}", file=sys.stderr)
        return 130
    print(played.summary)
    print(f"samples: {folder / 'soak.json'}, plot: {folder / 'soak.svg'}")
    for problem in played.problems:
        print(f"a promise was broken: {problem}", file=sys.stderr)
    return 1 if played.problems else 0


async def _play(soak: Soak, folder: Path, keep: Callable[[Played], None]) -> Played | None:
    played = None
    async with trio.open_nursery() as nursery:

        async def heed(task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                await anext(signals)
                nursery.cancel_scope.cancel()

        await nursery.start(heed)
        played = await play_soak(soak, folder, partial(print, flush=True), on_round=keep)
        keep(played)
        nursery.cancel_scope.cancel()
    return played
