"""Where `iii-trio serve` keeps the data of its modules."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

from ..config import EngineConfig, Listener
from ..config.data import MEMORY, directory_of
from ..triggers.table import MODULES
from .exits import UsageError

STATE: Final = "XDG_STATE_HOME"


def with_data(settings: EngineConfig, place: str | None, in_file: Mapping[str, str]) -> EngineConfig:
    """Return the settings with a place for each module that keeps data.

    That is `place` (a directory, or `memory`), else what the file says (`in_file`, by the module's name), else the
    directory of the first listener. Raises UsageError where there is none.
    """
    modules = dict(settings.modules)
    for module in MODULES:
        given = settings.modules.get(module.name, module.default)
        if module.in_directory is None or given is None:
            continue
        named = place or in_file.get(module.name)
        directory = default_directory(settings.listeners[0]) if named is None else directory_of(named)
        modules[module.name] = module.in_directory(given, directory)
    return attrs.evolve(settings, modules=modules)


def with_served_modules(settings: EngineConfig) -> EngineConfig:
    """Return the settings with the modules that an engine of its own has where the file says nothing of them."""
    added = {module.name: module.settings_class() for module in MODULES if module.runs_when_served}
    return attrs.evolve(settings, modules={**added, **settings.modules})


def with_sockets(settings: EngineConfig, sockets: Iterable[tuple[int, str]]) -> EngineConfig:
    """Return the settings with the sockets that were handed over for modules, by the names of their entries.

    Raises UsageError for a socket of a module that does not run.
    """
    modules = dict(settings.modules)
    for module in MODULES:
        found = tuple(descriptor for descriptor, name in sockets if name in module.entries)
        if module.with_sockets is None or not found:
            continue
        given = modules.get(module.name, module.default)
        # Its clients would be taken by nobody, and wait.
        if given is None:
            raise UsageError(f"a socket was handed over for `{module.name}`, which the configuration does not name")
        modules[module.name] = module.with_sockets(given, found)
    return attrs.evolve(settings, modules=modules)


def is_of_module(name: str) -> bool:
    """Return whether a socket of this name is for a module."""
    return any(module.with_sockets is not None and name in module.entries for module in MODULES)


def default_directory(listener: Listener) -> str | None:
    """Return a directory of this listener's own, or None, which is memory, for a port that the system chooses.

    So two engines that may run side by side never meet in one directory. Raises UsageError where there is no home.
    """
    if listener.unix is not None:
        name = "unix-" + os.path.abspath(listener.unix).strip("/").replace("/", "-")
    elif listener.port:
        name = str(listener.port)
    else:
        return None
    return str(_state_home() / "iii-trio" / name)


def is_default(settings: EngineConfig) -> bool:
    """Return whether some module's data is where nothing has asked for it to be."""
    directory = default_directory(settings.listeners[0])
    return directory is not None and any(
        module.in_directory is not None
        and (given := settings.modules.get(module.name)) is not None
        and given == module.in_directory(given, directory)
        and given != module.in_directory(given, None)  # its data is elsewhere, whatever the directory
        for module in MODULES
    )


def without_modules(settings: EngineConfig) -> EngineConfig:
    """Return the settings with every built-in module turned off."""
    return attrs.evolve(settings, modules={module.name: None for module in MODULES})


def _state_home() -> Path:
    given = os.environ.get(STATE, "")
    if os.path.isabs(given):  # the specification: others are to be ignored
        return Path(given)
    try:
        return Path.home() / ".local" / "state"
    except RuntimeError:
        raise UsageError(
            f"there is no home directory to keep data in; name a directory with --data, or say --data {MEMORY}"
        ) from None
