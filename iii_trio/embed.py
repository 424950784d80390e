"""An engine inside a Trio program, and its workers in the same process."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Any, Final, final

import msgspec
import trio

from .config import EngineConfig, Listener
from .config.settings import no_listener
from .core.channels import ChannelResult
from .engine.admit import serve_stream
from .engine.in_process import InProcess
from .engine.listeners import Listeners
from .engine.module_host import ModuleHost
from .engine.policy import ListenerPolicy
from .engine.shell import Shell
from .engine.spans import ChannelSpan
from .engine.statistics import ChannelView, EngineStatistics
from .environment import Environment
from .errors import MisuseError
from .modules import Modules
from .nursery import keep_shielded, open_service_nursery, require_trio
from .transport.dial import SocketAddress
from .transport.link import Address
from .triggers.module import Module, ModuleEnvironment, RunningModule
from .triggers.table import MODULES
from .wire.telemetry import Telemetry
from .worker import Worker
from .worker import open_worker as _open_worker
from .worker.call_context import RunSync

_GOODBYE_SECONDS: Final = 2.0


@asynccontextmanager
async def open_engine(
    config: EngineConfig | None = None,
    *,
    on_channel_span: Callable[[ChannelSpan], object] | None = None,
    on_telemetry: Callable[[Telemetry, bytes], object] | None = None,
    modules: Iterable[Module] = (),
    stores: Mapping[str, Any] | None = None,
    environment: Environment | None = None,
) -> AsyncIterator[Engine]:
    """Open an engine for the length of the block. It is in this process only until told to `listen`.

    Leaving the block ends channels as `engine_closed` and drops connections. To let running work finish first,
    `await engine.drain(grace_seconds)` before leaving. Any number of engines may be open at once.

    `environment` is for simulations that must repeat. `on_channel_span` is called, and must not wait, with a span for
    each channel that has ended (clause C7.3). Its `to_otlp()` gives OTLP's form. `on_telemetry` is called
    likewise with the telemetry of workers. Its arguments are the kind (`resourceSpans`, `resourceMetrics`,
    `resourceLogs`), and the body of an OTLP/HTTP export request in JSON, to be passed on to a collector.

    The built-in modules run beside it, and further `modules` of the program's own; `config.modules` has their
    settings (docs/modules.md). `stores` has, by a module's name, an object that keeps the module's data. It stays the
    caller's to close.

    A module that fails later is started again, after a pause that grows. The log says why.

    Raises StorageError for jobs that cannot be kept where they are to be, ModuleFailed for a module that cannot start, and
    MisuseError for arguments that are not a configuration or not modules, and for settings of a module that does not exist.
    If cancelled: as leaving the block.
    """
    require_trio()
    _check_config(config)
    environment = environment or Environment()
    shell = Shell(config or EngineConfig(), environment.new_id, environment.wall_clock)
    shell.reports.on_channel_span = on_channel_span
    shell.reports.on_telemetry = on_telemetry
    surroundings = ModuleEnvironment(
        **msgspec.structs.asdict(environment), tracing=shell.tracing, host=ModuleHost(shell)
    )
    running = Modules(
        (*MODULES, *modules),
        shell.config.modules,
        InProcess(shell, internal=True),
        surroundings,
        stores or {},
        shell.recorder.note_error,
    )
    async with open_service_nursery() as nursery:
        leaving = trio.Event()
        try:
            connections = await nursery.start(keep_shielded, leaving, _GOODBYE_SECONDS)
            async with open_service_nursery() as tasks:
                try:
                    tasks.start_soon(shell.keep_time)
                    tasks.start_soon(shell.heartbeat.keep)
                    tasks.start_soon(shell.recorder.keep, InProcess(shell, internal=True), environment.run_blocking)
                    await tasks.start(running.keep)
                    yield Engine(shell, connections, running)
                    await running.stop()
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            shell.close("the engine was closed")
            leaving.set()


async def serve_engine(
    config: EngineConfig | None = None, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run an engine that listens at `config.listeners`, until cancelled.

    For `addresses = await nursery.start(serve_engine, config)`: it returns when every listener is bound, with the bound
    addresses (`ws://host:port`). Raises ListenFailed if one cannot be bound.
    If cancelled: the engine ends at once; see `Engine.drain` for a gentler way.
    """
    async with open_engine(config) as engine:
        task_status.started(await engine.listen())
        await trio.sleep_forever()


@final
class Engine:
    """A running engine. Made by `open_engine`."""

    def __init__(self, shell: Shell, nursery: trio.Nursery, modules: Modules) -> None:
        self._shell = shell
        self._modules = modules
        self._listeners = Listeners(shell, nursery)

    @property
    def config(self) -> EngineConfig:
        """Return the configuration in force."""
        return self._shell.config

    @property
    def modules(self) -> Mapping[str, RunningModule]:
        """The modules that run beside it at this moment, by name."""
        return MappingProxyType(self._modules.running)

    @property
    def address(self) -> Address:
        """How workers in this process reach it."""
        return InProcess(self._shell)

    async def listen(self, *listeners: Listener) -> list[str]:
        """Listen at these places, or at `config.listeners`. Returns the bound addresses, as workers dial them.

        Raises ListenFailed with the obstacle, ConfigError for files (certificates, tokens) that cannot
        be used, and MisuseError for values of another class; nothing is bound then.
        If cancelled: nothing is bound.
        """
        _check_listeners(listeners)
        return await self._listeners.open(listeners or self._shell.config.listeners)

    async def listen_at(self, descriptors: Sequence[int], *listeners: Listener) -> list[str]:
        """Listen at sockets that already listen (systemd's socket activation). The engine then owns them.

        `listeners`, or `config.listeners`, say which rules hold there (TLS, tokens), one for all sockets or one
        for each.
        Raises ListenFailed, ConfigError and MisuseError.
        """
        _check_listeners(listeners)
        return await self._listeners.adopt(listeners or self._shell.config.listeners, descriptors)

    async def reload(self, config: EngineConfig) -> list[str]:
        """Take a new configuration, and keep every session that it does not forbid. Returns the addresses in use.

        Listeners of the same place keep their sockets, with new certificates and tokens; others are opened and closed.
        A worker with a withdrawn token is disconnected. Limits, defaults and timeouts hold for what comes from now on.
        Raises ListenFailed, ConfigError and MisuseError; nothing is changed then.
        If cancelled: either nothing is changed, or everything.
        """
        _check_config(config)
        self._modules.check(config.modules)
        addresses = await self._listeners.change(config.listeners)
        self._shell.reconfigure(config)
        self._modules.reconfigure(config.modules)
        return addresses

    async def serve_stream(
        self, stream: trio.abc.Stream, *, peer: str | None = None, origins: Iterable[str] = ()
    ) -> None:
        """Serve one connection that came by a way of your own (memory, TLS, a unix socket), until it is over.

        `origins` admits web pages, as `Listener.origins` does. If cancelled: the connection is dropped.
        """
        await serve_stream(self._shell, stream, peer, ListenerPolicy(origins=Listener(origins=tuple(origins)).origins))

    def open_worker(
        self,
        name: str | None = None,
        *,
        namespace: str | None = None,
        description: str | None = None,
        run_sync: RunSync | None = None,
        environment: Environment | None = None,
    ) -> AbstractAsyncContextManager[Worker]:
        """Open a worker in this process, over memory, without sockets and frames, as `iii_trio.open_worker` does."""
        return open_worker(
            self, name=name, namespace=namespace, description=description, run_sync=run_sync, environment=environment
        )

    def channels(self) -> list[ChannelView]:
        """Return a view of every open channel (clause C7.1)."""
        return self._shell.channel_views()

    def ended_channels(self) -> list[ChannelResult]:
        """Return the last channels that ended, oldest first, with their outcomes and reasons."""
        return self._shell.hub.channels.ended()

    def statistics(self) -> EngineStatistics:
        """How much the engine holds at this moment for others than its own modules."""
        return self._shell.statistics()

    async def recording(self, last_seconds: float | None = None) -> bytes:
        """Return the engine's last inputs as a recording, for `iii-trio replay` (docs/recorder.md).

        It holds at least the inputs of `last_seconds`, as far as the recorder has kept them. Raises MisuseError if the
        recorder is off or has nothing. If cancelled: nothing has changed.
        """
        return await self._shell.recorder.make(last_seconds)

    async def drain(self, grace_seconds: float) -> bool:
        """Refuse new sessions (503) and calls. End the rest once running work is done, or the grace is over.

        Returns whether everything was done. Sockets of existing channels are still admitted meanwhile. Channels that are
        left end as `engine_closed`, and workers are told to try again elsewhere (1012).
        If cancelled: the engine stays draining.
        """
        shell = self._shell
        shell.drain()
        # Work that never ends must not keep the process from its shutdown.
        with trio.move_on_after(grace_seconds):
            await self._modules.drain()
            await shell.wait_idle()
        done = shell.idle
        await self._modules.stop()  # jobs that still run are given back, not lost with their workers
        shell.close(
            "the engine was shut down" if done else f"the engine was shut down, after a grace of {grace_seconds:g} s"
        )
        return done


def open_worker(
    engine: str | Engine | Address,
    *,
    name: str | None = None,
    namespace: str | None = None,
    description: str | None = None,
    run_sync: RunSync | None = None,
    environment: Environment | None = None,
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    channel_ping_seconds: float | None = None,
) -> AbstractAsyncContextManager[Worker]:
    """Open a worker of an engine, for the length of the block. The body begins once the engine has accepted it.

    `engine` is an address (`ws://host:port`, `wss://…`, `unix:/path`), or an `Engine` in this process. With an address,
    `headers` are sent with every upgrade, and `ssl_context` is used for `wss` (default: the system's trusted authorities).
    Without an `Authorization` among them, the environment's `III_TOKEN` is sent as a bearer token. With
    `channel_ping_seconds`, its sockets send a ping that often while idle, for proxies that cut idle connections.

    `name` (default: host and process) is leased per namespace, so that one worker of a name is connected at a time. A lost
    link is healed. `run_sync(handler, arguments)` runs handlers that are plain functions (default: in a Trio worker thread).
    `environment` is for simulations.

    Raises MisuseError for an address that is none, ConnectionFailed if there is no engine at first, and Rejected (also out
    of the block) if it refuses this worker. Leaving the block cancels the handlers that still run, waits for them within
    bounds, ends the ends that are held, and says goodbye. If cancelled: as leaving the block.
    """
    if isinstance(engine, str):
        address: Address = SocketAddress(
            engine,
            headers=_with_token(headers or {}),
            ssl_context=ssl_context,
            channel_ping_seconds=channel_ping_seconds,
        )
    # In this process there is no socket, so these would be ignored without a word.
    elif headers is not None or ssl_context is not None or channel_ping_seconds is not None:
        raise MisuseError(
            "headers, ssl_context and channel_ping_seconds go with the address of an engine elsewhere (ws://host:port)"
        )
    elif isinstance(engine, Engine):
        address = engine.address
    # A simulation brings an address of its own, which is known by its methods alone.
    elif hasattr(engine, "attach_reader"):
        address = engine
    else:
        raise MisuseError(f"{engine!r} is neither an address (ws://host:port) nor an engine")
    return _open_worker(
        address, name=name, namespace=namespace, description=description, run_sync=run_sync, environment=environment
    )


def _check_config(config: object) -> None:
    """Raise MisuseError for a configuration that is none."""
    if config is not None and not isinstance(config, EngineConfig):
        raise MisuseError(
            f"the configuration is of type {type(config).__name__}; "
            "give EngineConfig(listeners=[Listener(port=49134)]), with the settings that you want, or leave it out"
        )


def _check_listeners(listeners: Iterable[object]) -> None:
    """Raise MisuseError for a listener that is none."""
    for each in listeners:
        if not isinstance(each, Listener):
            raise MisuseError(f"a listener is {no_listener(each)}")


def _with_token(headers: Mapping[str, str]) -> Mapping[str, str]:
    token = os.environ.get("III_TOKEN", "").strip()
    # A program that sends its own authorization must not be overruled by the environment.
    if not token or any(name.lower() == "authorization" for name in headers):
        return headers
    return {**headers, "Authorization": f"Bearer {token}"}


__all__ = ["Engine", "EngineStatistics", "open_engine", "open_worker", "serve_engine"]
