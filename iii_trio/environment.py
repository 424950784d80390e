"""The sources of chance, time and threads that a simulation replaces."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec

from . import ids

T = TypeVar("T")


class RunBlocking(Protocol):
    """Runs a function that blocks, and waits for its result."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


class Environment(msgspec.Struct, frozen=True):
    """What an engine or a worker takes from outside of Trio. The defaults are right for every real program."""

    new_id: Callable[[], str] = ids.new_id
    """Makes ids and secrets (UUID v4 texts) that cannot be guessed."""
    rng: random.Random = msgspec.field(default_factory=random.Random)
    """Draws the jitter of pauses."""
    wall_clock: Callable[[], float] = time.time
    """Tells the date, in seconds since 1970. Only an engine uses it."""
    run_blocking: RunBlocking | None = None
    """Runs functions that block. `None`: a module of the engine starts a thread of its own."""
