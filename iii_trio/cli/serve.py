"""`iii-trio serve`: an engine until it is told to stop."""

from __future__ import annotations

import errno
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import attrs
import trio
from cyclopts import Parameter

import iii_trio

from ..config import EngineConfig, Listener
from ..errors import ConfigError, ConnectionFailed, StorageError
from ..triggers.table import MODULES
from . import output
from .data import is_default, with_data, without_modules
from .exits import Exit, Failure, UsageError
from .logs import Level, configure_logging
from .running import SIGNALS
from .service import allow_open_files, handed_over, notify, notify_reloading
from .version import version

if TYPE_CHECKING:
    from ..config.file import ConfigFile

RELOAD = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
logger = logging.getLogger("iii_trio.cli")


async def serve(
    *,
    config: Annotated[str | None, Parameter(name=["--config", "-c"], help="iii's YAML configuration file.")] = None,
    host: Annotated[str | None, Parameter(help="The address to listen at; 127.0.0.1 if nothing else is said.")] = None,
    port: Annotated[int | None, Parameter(help="The port; 49134 if nothing else is said. 0: a free one.")] = None,
    data: Annotated[
        str | None,
        Parameter(
            help="The directory that jobs are kept in, or `memory`. If nothing else is said: iii-trio/PORT in "
            "$XDG_STATE_HOME (~/.local/state), and memory for port 0."
        ),
    ] = None,
    grace: Annotated[float, Parameter(help="Seconds that a drain leaves to what still runs.")] = 10.0,
    log_level: Annotated[Level, Parameter(help="The least that is logged, on stderr.")] = "info",
) -> Exit:
    """Run an engine. This is also what iii-trio does without a command.

    Prints one line when it is ready. SIGINT (Ctrl-C) and SIGTERM drain it: nothing new is begun, what runs may finish.
    A second one stops at once. SIGHUP reads the configuration again, and keeps every session that it does not forbid.
    """
    # Written so that NaN is refused too.
    if not grace >= 0:
        raise UsageError(f"--grace is {grace:g}; give a number of seconds, at least 0")
    configure_logging(log_level)
    load = Loader(config, host, port, data)
    settings = await trio.to_thread.run_sync(load)
    sockets = handed_over()
    with trio.open_signal_receiver(*SIGNALS, *RELOAD) as signals:
        async with _open(settings, sockets) as engine:
            try:
                addresses = await (engine.listen_at(sockets) if sockets else engine.listen())
            # A supervisor tells a taken address from other failures by the exit code.
            except ConnectionFailed as error:
                raise _cannot_listen(error) from None
            allow_open_files(settings.limits.connections)
            where = f"{', '.join(map(str, addresses))} ({_describe_modules(engine)}Ctrl-C drains)"
            try:
                output.say(f"iii-trio {version()} ready on {output.visible(where)}")
            except output.ReaderLeft:
                output.forget_stdout()  # an engine serves whether or not its first line is read
            notify("READY=1")
            async for number in signals:
                # Only SIGHUP leaves the engine running.
                if number not in RELOAD:
                    break
                await _reload(engine, load)
            notify("STOPPING=1")
            logger.info("draining for at most %g s; once more stops at once", grace)
            return await _drain(engine, signals, grace)


@attrs.define
class Loader:
    """Loads the settings that a file (None: the built-in default) and `--host`, `--port` and `--data` say."""

    config: str | None = None
    host: str | None = None
    port: int | None = None
    data: str | None = None
    _before: ConfigFile | None = None
    """What the file said when it was last loaded."""

    def __call__(self) -> EngineConfig:
        """Load them, and log what in the file has no effect.

        Raises UsageError, and ConfigError: also for a file that was loaded before and now says nothing of listeners, as the
        listeners with their tokens would give way to the default one. Blocks.
        """
        from ..config import file  # here, so that other commands do not load a YAML reader

        if self.port is not None and not 0 <= self.port <= 65535:
            raise UsageError(f"--port is {self.port}; give a number from 0 (the system chooses) to 65535")
        if self.data is not None and not self.data.strip():
            raise UsageError("--data is empty; name a directory, or say --data memory")
        if self.config is None:
            found = file.ConfigFile(file.default_config())
        else:
            found = file.read_config(self.config, modules=MODULES)
            self._check(found)
            for warning in found.warnings:
                logger.warning("%s", warning)
        settings = with_data(_with_listener(found.config, self.config, self.host, self.port), self.data, found.data)
        self._before = found
        return settings

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
            try:
                await engine.listen()
            except ConnectionFailed as in_use:
                raise _cannot_listen(in_use) from None
    if is_default(settings):
        raise Failure(Exit.STORAGE, f"{problem}, or have them kept in memory (--data memory)")
    raise problem


async def _reload(engine: iii_trio.Engine, load: Callable[[], EngineConfig]) -> None:
    """Read the configuration again. What cannot be used is logged, and changes nothing."""
    notify_reloading()
    try:
        settings = await trio.to_thread.run_sync(load)
        addresses = await engine.reload(settings)
    except (ConfigError, ConnectionFailed, UsageError) as error:
        logger.error("the configuration stays as it was: %s", error)
    else:
        allow_open_files(settings.limits.connections)
        logger.info("the configuration was read again; listening at %s", ", ".join(addresses))
    notify("READY=1")


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


def _cannot_listen(error: ConnectionFailed) -> Failure:
    cause = error.__context__
    in_use = isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
    return Failure(Exit.ADDRESS_IN_USE if in_use else Exit.FAILED, str(error))
