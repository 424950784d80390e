"""Trio's scheduling choices from a seed. Without it a simulation has another schedule each time.

This is the one use of Trio's private API, because Trio has no public way to seed its scheduler. If a future Trio lacks
the attribute, `seeded_schedule` warns once, and the simulation goes on unseeded.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final

import trio

_FLAG: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
_RANDOM: Final = "_r"


def _scheduler() -> Any:
    try:
        from trio._core import _run
    except ImportError:
        return None
    known = isinstance(getattr(_run, _FLAG, None), bool) and isinstance(getattr(_run, _RANDOM, None), Random)
    return _run if known else None


def seed_scheduler(seed: int) -> bool:
    """From here on the choices of Trio's scheduler follow from `seed`, if `seeded_schedule` is around. Whether they do."""
    scheduler = _scheduler()
    if scheduler is None:
        return False
    getattr(scheduler, _RANDOM).seed(seed)
    return True


@contextmanager
def seeded_schedule(seed: int) -> Iterator[bool]:
    """Let the schedule follow from `seed` for the block around `trio.run`. Yield whether it does."""
    scheduler = _scheduler()
    if scheduler is None:
        warnings.warn(
            f"trio {trio.__version__} has no scheduler that can be seeded: runs will not repeat", stacklevel=3
        )
        yield False
        return
    choices: Random = getattr(scheduler, _RANDOM)
    before, flag_before = choices.getstate(), getattr(scheduler, _FLAG)
    setattr(scheduler, _FLAG, True)
    choices.seed(seed)
    try:
        yield True
    finally:
        setattr(scheduler, _FLAG, flag_before)
        choices.setstate(before)
