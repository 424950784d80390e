"""`python -m iii_trio.testing.soak --real`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import trio

from .played import Played, Soak, write_down
from .run import play_soak


def run_real_soak(soak: Soak, folder: Path) -> int:
    """Play it, write down in `folder` what came of it, also after each round. The exit code: 1 if a promise was broken."""

    def keep(played: Played) -> None:
        write_down(played, folder)

    played = trio.run(partial(play_soak, soak, folder, partial(print, flush=True), on_round=keep))
    keep(played)
    print(played.summary)
    print(f"samples: {folder / 'soak.json'}, plot: {folder / 'soak.svg'}")
    for problem in played.problems:
        print(f"a promise was broken: {problem}", file=sys.stderr)
    return 1 if played.problems else 0
