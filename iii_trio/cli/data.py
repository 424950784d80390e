"""Where `iii-trio serve` keeps its jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs

from ..config import EngineConfig, Listener
from ..config_queue import MEMORY, directory_of
from .exits import UsageError

STATE: Final = "XDG_STATE_HOME"


def with_data(settings: EngineConfig, said: str | None) -> EngineConfig:
    """The settings with a place for jobs: what was `said` (a directory, or `memory`), else that of the first listener.

    Raises UsageError where there is none.
    """
    if settings.queue is None:
        return settings
    directory = default_directory(settings.listeners[0]) if said is None else directory_of(said)
    return attrs.evolve(settings, queue=attrs.evolve(settings.queue, directory=directory))


def default_directory(listener: Listener) -> str | None:
    """A directory of this listener's own; None, which is memory, for a port that the system chooses.

    So no two engines that may run side by side meet in one directory. Raises UsageError where there is no home.
    """
    if listener.unix is not None:
        name = "unix-" + os.path.abspath(listener.unix).strip("/").replace("/", "-")
    elif listener.port:
        name = str(listener.port)
    else:
        return None
    return str(_state_home() / "iii-trio" / name)


def is_default(settings: EngineConfig) -> bool:
    """Whether jobs are where nobody has asked for them to be."""
    return settings.queue is not None and settings.queue.directory == default_directory(settings.listeners[0])


def _state_home() -> Path:
    given = os.environ.get(STATE, "")
    if os.path.isabs(given):  # the specification: others are to be ignored
        return Path(given)
    try:
        return Path.home() / ".local" / "state"
    except RuntimeError:
        raise UsageError(
            f"there is no home directory to keep jobs in; name a directory with --data, or say --data {MEMORY}"
        ) from None


def in_words(settings: EngineConfig) -> str:
    """Where jobs are kept, for the ready line."""
    if settings.queue is None:
        return "no queue"
    return f"jobs in {settings.queue.directory or MEMORY}"
