"""`iii-trio serve`: an engine until it is told to stop."""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
import trio

import iii_trio

from ..config import EngineConfig, Listener
from ..config.data import directory_of
from ..config.default import default_config
from ..errors import ConfigError, ListenFailed, StorageError
from ..nursery import open_service_nursery
from ..triggers.table import MODULES
from . import output
from .cluster import ClusterOptions, warn_of_advertised, with_cluster
from .data import is_default, is_of_module, with_data, with_served_modules, with_sockets, without_modules
from .ending import exit_code_of
from .exits import Exit, Failure, UsageError
from .loading import collector_paused
from .logs import Level, configure_logging
from .running import SIGNALS, until_signalled
from .service import allow_open_files, handed_over, notify, notify_reloading
from .version import version

if TYPE_CHECKING:
    from ..config.file import ConfigFile

RELOAD = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
DEFAULT_GRACE_SECONDS: Final = 10.0
DEFAULT_LEVEL: Final = "info"
logger = logging.getLogger("iii_trio.cli")


def run_serve(options: Mapping[str, Any], on_ready: Callable[[], object]) -> int:
    """Run the command with these arguments of `serve`, and return its exit code. `on_ready` is called once it is ready."""
    output.prepare()
    return exit_code_of(lambda: trio.run(until_signalled, partial(serve, on_ready=on_ready, **options)))


async def serve(
    *,
    config: str | None = None,
    host: str | None = None,
    port: int | None = None,
    data: str | None = None,
    cluster: str | None = None,
    advertise: str | None = None,
    node: str | None = None,
    grace: float = DEFAULT_GRACE_SECONDS,
    log_level: Level = DEFAULT_LEVEL,
    on_ready: Callable[[], object] = lambda: None,
) -> Exit:
    """Run an engine until it is told to stop. The arguments are the options of the command (serve_command.py).

    `on_ready` is called once the engine is ready.
    """
    # Written so that NaN is refused too.
    if not grace >= 0:
        raise UsageError(f"--grace is {grace:g}; give a number of seconds, at least 0")
    configure_logging(log_level)
    load = Loader(config, host, port, data, ClusterOptions(cluster, advertise, node))
    with collector_paused() as resume_collector:
        given = handed_over()
        load.sockets = [socket for socket in given if is_of_module(socket[1])]
        sockets = [descriptor for descriptor, name in given if not is_of_module(name)]
        settings = await _read(load)
        with trio.open_signal_receiver(*SIGNALS, *RELOAD) as received:
            signals, code = Signals(), Exit.DONE
            async with open_service_nursery() as nursery:
                nursery.start_soon(signals.pass_on, received, nursery.cancel_scope)
                async with _open(settings, sockets) as engine:
                    addresses = await (engine.listen_at(sockets) if sockets else engine.listen())
                    allow_open_files(settings.limits.connections)
                    warn_of_advertised(settings, addresses)
                    where = f"{', '.join(map(str, addresses))} ({_describe_modules(engine)}Ctrl-C drains)"
                    try:
                        output.say(f"iii-trio {version()} ready on {output.visible(where)}")
                    except output.ReaderLeft:
                        output.forget_stdout()  # an engine serves whether or not its first line is read
                    notify("READY=1")
                    signals.ready = True
                    resume_collector()
                    on_ready()
                    async for number in signals.queue:
                        # Only SIGHUP leaves the engine running.
                        if number not in RELOAD:
                            break
                        if not signals.is_stopping:
                            await _reload(engine, load, signals)
                    notify("STOPPING=1")
                    logger.info("draining for at most %g s; once more stops at once", grace)
                    code = await _drain(engine, signals.queue, grace)
                nursery.cancel_scope.cancel()
            return code if signals.ready else Exit(128 + signals.stopped_by)


class Signals:
    """The signals of an engine's process. One that comes while the engine starts stops it at once."""

    def __init__(self) -> None:
        self.ready = False
        """Whether the engine has started. From then on signals are queued."""
        self.stopped_by = 0
        self.is_stopping = False
        """Whether one that stops the engine has come."""
        self.reload: trio.CancelScope | None = None
        """The scope of a reload that is under way."""
        self._sender, self.queue = trio.open_memory_channel[int](math.inf)

    async def pass_on(self, received: AsyncIterator[int], start: trio.CancelScope) -> None:
        """Put signals into the queue, and cancel `start` for one that is to stop an engine that has not started."""
        async for number in received:
            # A drain would wait until a million jobs are loaded, and there is nothing to drain yet.
            if not self.ready and number not in RELOAD:
                self.stopped_by = number
                start.cancel()
                return
            # What is being read, now or by a reload that waits, may be on a disk that does not answer.
            if number not in RELOAD:
                self.is_stopping = True
                if self.reload is not None:
                    self.reload.cancel()
            self._sender.send_nowait(number)


class Loader(msgspec.Struct, eq=False):
    """Loads the settings that a file (None: the built-in default) and the options say."""

    config: str | None = None
    host: str | None = None
    port: int | None = None
    data: str | None = None
    cluster: ClusterOptions = msgspec.field(default_factory=ClusterOptions)
    sockets: Sequence[tuple[int, str]] = ()
    """The sockets that were handed over for modules, with their names."""
    _before: ConfigFile | None = None
    """What the file said when it was last loaded."""

    def __call__(self) -> EngineConfig:
        """Load them, and log what in the file has no effect.

        Raises UsageError, and ConfigError: also for a file that was loaded before and now says nothing of listeners, as the
        listeners with their tokens would give way to the default one. Blocks.
        """
        # As of a shell's variable that is not set.
        if self.config is not None and not self.config.strip():
            raise UsageError("--config is empty; name a file, or leave it out")
        if self.host is not None and not self.host.strip():
            raise UsageError("--host is empty; give an address such as 127.0.0.1, or leave it out")
        if self.port is not None and not 0 <= self.port <= 65535:
            raise UsageError(f"--port is {self.port}; give a number from 0 (the system chooses) to 65535")
        if self.data is not None and not self.data.strip():
            raise UsageError("--data is empty; name a directory, or say --data memory")
        if self.data is not None and os.path.isfile(directory_of(self.data) or ""):
            raise UsageError(f"--data is {self.data}, which is a file; name a directory")
        found = None if self.config is None else self._read(self.config)
        given = default_config() if found is None else found.config
        settings = _with_listener(with_served_modules(given), self.config, self.host, self.port)
        settings = with_data(settings, self.data, {} if found is None else found.data)
        settings = with_cluster(settings, self.cluster)
        settings = with_sockets(settings, self.sockets)
        self._before = found
        return settings

    def _read(self, config: str) -> ConfigFile:
        from ..config import file  # here, so that an engine without a file loads no reader

        found = file.read_config(config, modules=MODULES)
        self._check(found)
        for warning in found.warnings:
            logger.warning("%s", warning)
        return found

    def _check(self, found: ConfigFile) -> None:
        if self._before is None:
            if found.empty:
                logger.warning(
                    "%s: holds nothing; the engine has its default settings, and a listener without tokens", self.config
                )
        elif found.empty and not self._before.empty:
            raise ConfigError(f"{self.config}: holds nothing any more; write the configuration, then reload again")
        elif self._before.names_listeners and not found.names_listeners:
            raise ConfigError(
                f"{self.config}: names no listener any more; give one, or start the engine anew without any"
            )


def _describe_modules(engine: iii_trio.Engine) -> str:
    """Say what there is to say of the modules in the ready line."""
    off = [f"no {module.name}" for module in MODULES if module.runs_by_default and module.name not in engine.modules]
    return "".join(f"{words}; " for words in [*(each.status for each in engine.modules.values()), *off] if words)


def _with_listener(settings: EngineConfig, config: str | None, host: str | None, port: int | None) -> EngineConfig:
    if host is None and port is None:
        return settings
    if len(settings.listeners) > 1:
        raise UsageError(
            f"{config} lists {len(settings.listeners)} listeners, so --host and --port cannot say which "
            "one they mean; change the file, or leave them out"
        )
    listener: Listener = settings.listeners[0]
    listener = attrs.evolve(listener, host=host or listener.host, port=listener.port if port is None else port)
    return attrs.evolve(settings, listeners=(listener,))


@asynccontextmanager
async def _open(settings: EngineConfig, sockets: list[int]) -> AsyncIterator[iii_trio.Engine]:
    """Open the engine. If another engine at the same place has its jobs, the error names the place."""
    try:
        async with iii_trio.open_engine(settings) as engine:
            yield engine
        return
    except StorageError as error:
        problem = error
    if not sockets:
        async with iii_trio.open_engine(without_modules(settings)) as engine:
            await engine.listen()
    if is_default(settings):
        raise Failure(Exit.STORAGE, f"{problem}, or have them kept in memory (--data memory)")
    raise problem


async def _read(load: Callable[[], EngineConfig]) -> EngineConfig:
    """Read the configuration. Raises as `Loader`. If cancelled: its thread is left alone, as a read may block."""
    return await trio.to_thread.run_sync(load, abandon_on_cancel=True)


async def _reload(engine: iii_trio.Engine, load: Callable[[], EngineConfig], signals: Signals) -> None:
    """Read the configuration again. One that cannot be used is logged, and changes nothing.

    A signal that stops the engine ends the reload.
    """
    notify_reloading()
    with trio.CancelScope() as signals.reload:
        await _take_configuration(engine, load)
    signals.reload = None
    notify("READY=1")


async def _take_configuration(engine: iii_trio.Engine, load: Callable[[], EngineConfig]) -> None:
    try:
        settings = await _read(load)
        addresses = await engine.reload(settings)
    except (ConfigError, ListenFailed, UsageError) as error:
        logger.error("the configuration stays as it was: %s", error)
    # A fault of ours in reading a file must not end what runs.
    except Exception:
        logger.exception("the configuration could not be taken, by an error of ours")
    else:
        allow_open_files(settings.limits.connections)
        logger.info("the configuration was read again; listening at %s", ", ".join(addresses))
        warn_of_advertised(settings, addresses)


async def _drain(engine: iii_trio.Engine, signals: AsyncIterator[int], grace: float) -> Exit:
    """Drain; a further signal stops at once."""
    code = Exit.DONE
    async with trio.open_nursery() as nursery:

        async def stop_when_signalled() -> None:
            nonlocal code
            while (number := await anext(signals)) in RELOAD:
                pass
            code = Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED
            logger.info("stopping at once")
            nursery.cancel_scope.cancel()

        nursery.start_soon(stop_when_signalled)
        await engine.drain(grace)
        nursery.cancel_scope.cancel()
    return code
