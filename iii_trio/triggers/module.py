"""What a module is: work that an engine does beside its own, as a worker in its process.

A module is one folder: its settings (an attrs class), the reading of its entry in the configuration file, its functions,
its state, and one function that opens it. A `Module` says where these are. The built-in ones are listed in `table.py`.
A program adds its own with `open_engine(modules=[...])`. docs/modules.md shows one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import msgspec

from .. import ids
from ..environment import Environment
from ..observed import Measured
from ..tracing import Tracing
from ..transport.link import Address
from ..transport.memory_budget import MemoryShare
from ..transport.plain_requests import PlainHandler
from ..transport.routes import ChannelRoutes
from ..wire import Outcome
from .mesh import Mesh

if TYPE_CHECKING:
    from ..config.section import Entry, ModuleEntry

T = TypeVar("T")
MetricsSource: TypeAlias = Callable[[], Awaitable[Sequence[Measured]]]


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


class Host(Protocol):
    """The few things of an engine that a module cannot do by the worker protocol."""

    def open_memory_share(self, name: str) -> MemoryShare:
        """Open the part of the engine's memory budget in which a module keeps data of workers."""

    def route_channels(self, routes: ChannelRoutes | None) -> None:
        """Pass the ends of channels at other engines through, by these routes. None: there are no other engines."""

    def serve_plain_requests(self, handler: PlainHandler | None) -> None:
        """Hand this handler the plain requests of listeners that may show the page. None: there is no page."""

    def watch_registrations(self, watch: Callable[[], object] | None) -> None:
        """Call back soon after each change of what `registrations` returns. The callback must not wait."""

    def registrations(self) -> Iterator[tuple[str, str, str, bytes]]:
        """Return the kind, namespace, id and row (JSON) of all that this engine's own workers have registered.

        Kinds are `function`, `trigger_type`, `binding`, `worker` and `name`. Modules and relays are left out.
        """

    def show_workers(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Have `engine::workers::list` show these rows, of workers of other engines, beside the engine's own."""

    def show_gauges(self, worker_id: str, gauges: Mapping[str, int | float], time_ms: int) -> None:
        """Have `engine::workers::info` show these measurements of a worker, which it took at `time_ms`."""

    def log_for_worker(self, level: int, text: str, fields: Mapping[str, str], worker_id: str | None = None) -> None:
        """Write a line that a worker caused. If `worker_id` is a session's, the line is about it."""

    def offer_metrics(self, source: MetricsSource | None) -> None:
        """Have `GET /metrics` show what `source` returns as well. None: nothing any more."""

    def note_health(self, name: str, health: Mapping[str, object] | None) -> None:
        """Have `/healthz` say this under a name. None: nothing any more."""

    @property
    def mesh(self) -> Mesh | None:
        """The mesh that the engine is a node of."""

    def enter_mesh(self, mesh: Mesh | None) -> None:
        """Make this mesh the engine's. None: it is not a node of any."""

    def channel_ended_elsewhere(self, channel_id: str, outcome: Outcome, reason: str, code: str | None) -> None:
        """Tell the holders of its ends how a channel at another engine ended."""

    def engine_lost(self, home: str, reason: str) -> None:
        """End all ends of channels at another engine, because it cannot be reached any more."""

    def relays(self) -> list[str]:
        """Return the names of the relays that have sessions at this engine."""

    def close_relays(self, names: Collection[str], reason: str) -> None:
        """End the sessions of the relays that have these names, because they cannot be reached any more."""

    def refuse_name(self, namespace: str, name: str, holder_id: str, node: str) -> None:
        """Refuse the worker that has a name here for good, because a worker of another engine had it before."""


class ModuleEnvironment(Environment, frozen=True):
    """What a module takes from its surroundings."""

    store: Any = None
    """Where the module keeps its data, made by the program that embeds the engine. None: the settings say where."""
    kept: dict[str, Any] = msgspec.field(default_factory=dict)
    """The objects that the module keeps in this process when it fails and is started again. It is free to fill it."""
    tracing: Tracing = msgspec.field(default_factory=lambda: Tracing(ids.new_id, time.monotonic, time.time))
    """Begins spans for the module's own work. The engine's: a span is recorded if the engine records traces."""
    host: Host | None = None
    """The engine beside which it runs. None: it is elsewhere."""


def read_settings(settings: type[Any]) -> Callable[[Entry], ModuleEntry]:
    """Return a reader for a module whose settings stand under `iii-trio:` in its entry, one key for each field."""
    from ..config.section import ModuleEntry  # here, so that an engine without a configuration file loads no reader

    def read(entry: Entry) -> ModuleEntry:
        entry.only(("name", "image", "config", "iii-trio"), f"in the entry {entry.name}")
        return ModuleEntry(entry.section("iii-trio").structure(settings, f"in `iii-trio` of {entry.name}"))

    return read


class Command(msgspec.Struct, frozen=True):
    """A command of `iii-trio` that goes with a module."""

    name: str
    place: str
    """The module and function that run it, as `package.module:function`. They are loaded when the command is run."""
    help: str
    """What it does, as the function's docstring begins."""


class Module(msgspec.Struct, frozen=True):
    """The description of a module."""

    name: str
    """Its name in `EngineConfig.modules`, in `Engine.modules`, and in its logger (`iii_trio.NAME`)."""
    settings: type[Any] | str
    """Its settings: an attrs class with a default for each field, or the place of one, as `package.module:Class`.

    A place is loaded when the configuration names the module. See `settings_class`.
    """
    open: Callable[[Address, Any, ModuleEnvironment], AbstractAsyncContextManager[RunningModule | None]]
    """Runs it for the length of a block, given the engine's address and the settings. Entered once it is ready."""
    worker: str = ""
    """The name of its worker. Listings hide the functions of this worker unless they are asked for."""
    entries: Collection[str] = ()
    """The names of its entry in the configuration file. Empty: it has none."""
    read: Callable[[Entry], ModuleEntry] | str | None = None
    """Reads that entry, or the place of the function that does. Default: `read_settings(settings)`. Raises ConfigError."""
    runs_by_default: bool = True
    """Whether it runs where nothing says that it is to run."""
    runs_when_served: bool = False
    """Whether `iii-trio serve` runs it where the file says nothing of it."""
    in_directory: Callable[[Any, str | None], Any] | None = None
    """Returns the settings with another directory for the module's data (None: memory). None: it keeps no data."""
    with_sockets: Callable[[Any, tuple[int, ...]], Any] | None = None
    """Returns the settings with listening sockets (file descriptors) in place of an address. None: it does not listen."""
    commands: tuple[Command, ...] = ()

    @property
    def settings_class(self) -> type[Any]:
        """The class of its settings, loaded if need be."""
        found: type[Any] = _loaded(self.settings)
        return found

    @property
    def default(self) -> Any:
        """The settings where nothing is said; None where it does not run then."""
        return self.settings_class() if self.runs_by_default else None

    def read_entry(self, entry: Entry) -> ModuleEntry:
        """Read its entry in a configuration file. Raises ConfigError."""
        read: Callable[[Entry], ModuleEntry] = _loaded(self.read) or read_settings(self.settings_class)
        return read(entry)


def _loaded(part: Any) -> Any:
    """Return a part of a module. A text is the place of one, as `package.module:name`, and is loaded."""
    if not isinstance(part, str):
        return part
    place, _, name = part.partition(":")
    return getattr(import_module(place), name)
