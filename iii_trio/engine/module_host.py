"""The engine as its modules see it: the `Host` of `triggers/module.py`, for what the worker protocol cannot say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, final

import trio

from ..observed import Measured
from ..transport.memory_budget import MemoryShare
from ..transport.plain_requests import PlainHandler
from ..transport.routes import ChannelRoutes
from ..wire import Close, Outcome
from .shell import Shell


@final
class ModuleHost:
    """Gives modules what they need of an engine."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._hub = shell.hub
        self.mesh: Any = None
        """The mesh that the engine is a node of. Modules make it and use it."""

    def open_memory_share(self, name: str) -> MemoryShare:
        """Open the part of the memory budget in which a module keeps data of workers."""
        return self._shell.memory.open_share(f"module {name}")

    def route_channels(self, routes: ChannelRoutes | None) -> None:
        """Pass the ends of channels at other engines through, by these routes. None: there are no other engines."""
        self._shell.passages.routes = routes
        if routes is not None:
            self._hub.name_home(routes.home)

    def serve_plain_requests(self, handler: PlainHandler | None) -> None:
        """Hand this handler the plain requests of listeners that may show the page. None: there is no page."""
        self._shell.plain_handler = handler

    def watch_registrations(self, watch: Callable[[], object] | None) -> None:
        """Call back soon after each change of what `registrations` returns. The callback must not wait."""
        self._shell.watch_registrations(watch)

    def registrations(self) -> Iterator[tuple[str, str, str, bytes]]:
        """Return the kind, namespace, id and row (JSON) of all that this engine's own workers have registered."""
        return ((each.kind, each.namespace, each.id, each.row) for each in self._hub.exports())

    def show_workers(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Have `engine::workers::list` show these rows, of workers of other engines, beside the engine's own."""
        self._hub.show_workers(rows)

    def show_gauges(self, worker_id: str, gauges: Mapping[str, int | float], time_ms: int) -> None:
        """Have `engine::workers::info` show these measurements of a worker, which it took at `time_ms`."""
        self._hub.show_gauges(worker_id, gauges, time_ms, trio.current_time())

    def log_for_worker(self, level: int, text: str, fields: Mapping[str, str], worker_id: str | None = None) -> None:
        """Write a line that a worker caused. If `worker_id` is a session's, the line is about it."""
        about = dict(fields)
        if worker_id is not None and worker_id in self._hub.sessions:
            about["session"] = worker_id
        self._shell.reports.log_of_peer(level, text, about)

    def offer_metrics(self, source: Callable[[], Awaitable[Sequence[Measured]]] | None) -> None:
        """Have `GET /metrics` show what `source` returns as well. None: nothing any more."""
        self._shell.metrics_source = source

    def note_health(self, name: str, health: Mapping[str, object] | None) -> None:
        """Have `/healthz` say this under a name. None: nothing any more."""
        if health is None:
            self._shell.health.pop(name, None)
        else:
            self._shell.health[name] = health

    def enter_mesh(self, mesh: Any) -> None:
        """Make this mesh the engine's. None: it is not a node of any."""
        self.mesh = mesh

    def channel_ended_elsewhere(self, channel_id: str, outcome: Outcome, reason: str, code: str | None) -> None:
        """Tell the holders of its ends how a channel at another engine ended. Their connections end by themselves."""
        self._shell.perform(self._hub.channel_ended_elsewhere(channel_id, outcome, reason, code))

    def engine_lost(self, home: str, reason: str) -> None:
        """End all ends of channels at another engine, because it cannot be reached any more."""
        # The holders learn of the reason first. The connections only say that they are cut.
        self._shell.perform(self._hub.engine_lost(home, reason))
        for held in self._shell.passages.of_home(home):
            held.drop(reason)

    def refuse_name(self, namespace: str, name: str, holder_id: str, node: str) -> None:
        """Refuse the worker that has a name here, because a worker of another engine had it before."""
        self._shell.perform(self._hub.refuse_name(namespace, name, holder_id, node, trio.current_time()))

    def relays(self) -> list[str]:
        """Return the names of the relays that have sessions at this engine."""
        return [each.info.name or "" for each in self._hub.sessions.values() if each.relays]

    def close_relays(self, names: Collection[str], reason: str) -> None:
        """End the sessions of the relays that have these names, because they cannot be reached any more."""
        for each in [each for each in self._hub.sessions.values() if each.relays and each.info.name in names]:
            self._shell.perform(self._hub.close_session(each, Close.EVICTED, reason, trio.current_time()))
