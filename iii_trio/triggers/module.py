"""What a module is: work that an engine does beside its own, as a worker in its process.

A module is one folder: its settings (an attrs class), the reading of its entry in the configuration file, its functions,
its state, and one function that opens it. A `Module` says where these are. The built-in ones are listed in `table.py`.
A program adds its own with `open_engine(modules=[...])`. docs/modules.md shows one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import attrs

from ..config.section import Entry, ModuleEntry
from ..environment import Environment
from ..transport.link import Address

T = TypeVar("T")


class RunningModule:
    """A module while it runs, as the engine sees it. A module overrides what it has an answer to."""

    @property
    def status(self) -> str:
        """A few words for the ready line of `iii-trio serve`, such as `jobs in memory`. Empty: none."""
        return ""

    async def drain(self) -> None:
        """Start no more work, and wait until the work that runs is done. If cancelled: no more is started."""

    def reconfigure(self, settings: Any) -> Any:
        """Take new settings, and return the settings that a restart of the module is to use.

        None asks the engine to close the module and to open it with the new settings.
        """
        return None


@attrs.frozen
class ModuleEnvironment(Environment):
    """What a module takes from its surroundings."""

    store: Any = None
    """Where the module keeps its data, made by the program that embeds the engine. None: the settings say where."""


def read_settings(settings: type[Any]) -> Callable[[Entry], ModuleEntry]:
    """Return a reader for a module whose settings stand under `iii-trio:` in its entry, one key for each field."""

    def read(entry: Entry) -> ModuleEntry:
        entry.only(("name", "image", "config", "iii-trio"), f"in the entry {entry.name}")
        return ModuleEntry(entry.section("iii-trio").structure(settings, f"in `iii-trio` of {entry.name}"))

    return read


@attrs.frozen
class Command:
    """A command of `iii-trio` that goes with a module."""

    name: str
    place: str
    """The module and function that run it, as `package.module:function`. They are loaded when the command is run."""
    help: str
    """What it does, as the function's docstring begins."""


@attrs.frozen
class Module:
    """The description of a module."""

    name: str
    """Its name in `EngineConfig.modules`, in `Engine.modules`, and in its logger (`iii_trio.NAME`)."""
    settings: type[Any]
    """Its settings: an attrs class with a default for each field."""
    open: Callable[[Address, Any, ModuleEnvironment], AbstractAsyncContextManager[RunningModule | None]]
    """Runs it for the length of a block, given the engine's address and the settings. Entered once it is ready."""
    worker: str = ""
    """The name of its worker. Listings hide the functions of this worker unless they are asked for."""
    entries: Collection[str] = ()
    """The names of its entry in the configuration file. Empty: it has none."""
    read: Callable[[Entry], ModuleEntry] | None = None
    """Reads that entry; default: `read_settings(settings)`. Raises ConfigError."""
    runs_by_default: bool = True
    """Whether it runs where nothing says that it is to run."""
    in_directory: Callable[[Any, str | None], Any] | None = None
    """Returns the settings with another directory for the module's data (None: memory). None: it keeps no data."""
    commands: tuple[Command, ...] = ()

    @property
    def default(self) -> Any:
        """The settings where nothing is said; None where it does not run then."""
        return self.settings() if self.runs_by_default else None

    def read_entry(self, entry: Entry) -> ModuleEntry:
        """Read its entry in a configuration file. Raises ConfigError."""
        return (self.read or read_settings(self.settings))(entry)
