"""The modules of an engine. They are workers in its process that start after it and end before it.

Each one runs in a task of its own. A module that fails is closed and opened again, after a pause that grows, and the
engine and its other modules go on. `triggers/module.py` defines modules. docs/modules.md shows how to write one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final

import msgspec
import trio

from .errors import IIIError, MisuseError, ModuleFailed
from .nursery import open_service_nursery
from .report import get_logger
from .text import named_error
from .transport.link import Address
from .triggers.module import Module, ModuleEnvironment, RunningModule, read_settings

_FIRST_PAUSE_SECONDS: Final = 1.0
_MAX_PAUSE_SECONDS: Final = 60.0
"""The pause before a restart doubles up to this. A module that ran for this long begins with the first pause again."""

__all__ = ["Module", "ModuleEnvironment", "Modules", "RunningModule", "read_settings"]


@final
class Modules:
    """Runs the modules of one engine."""

    def __init__(
        self,
        table: Iterable[Module],
        settings: Mapping[str, Any],
        address: Address,
        environment: ModuleEnvironment,
        stores: Mapping[str, Any],
        on_failure: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Check the modules. `on_failure` is called with a sentence when one of them fails by a defect.

        Raises MisuseError for two of one name, and for settings or stores of a module that is not there.
        """
        self.running: dict[str, RunningModule] = {}
        """Those that run at this moment, by name."""
        self._table: dict[str, Module] = {}
        for module in table:
            # Settings of modules are easily given in the place of modules.
            if not isinstance(module, Module):
                raise MisuseError(
                    f"{module!r} is not a module; give Module objects. The settings of modules, by name, "
                    "stand in EngineConfig(modules={…})"
                )
            # Settings and stores are found by name, so a second one would take those of the first.
            if module.name in self._table:
                raise MisuseError(f"there are two modules named `{module.name}`; name one of them otherwise")
            self._table[module.name] = module
        self.check(settings)
        for name in stores:
            self._named(name)
        self._settings = {name: settings.get(name, module.default) for name, module in self._table.items()}
        self._address = address
        self._environment = environment
        self._stores = stores
        self._on_failure = on_failure
        self._restarts: dict[str, trio.CancelScope] = {}
        """Cancelled to close a module that runs, and to open it with new settings."""
        self._draining = False
        self._everything = trio.CancelScope()
        self._over = trio.Event()

    def check(self, settings: Mapping[str, Any]) -> None:
        """Check the settings. Raises MisuseError for a module that is not there, or another class than the module's."""
        for name, value in settings.items():
            module = self._named(name)
            if value is not None and not isinstance(value, module.settings_class):
                wanted = module.settings_class.__name__
                raise MisuseError(f"the settings of module `{name}` are {value!r}; give a {wanted}, or None")

    def _named(self, name: str) -> Module:
        if name in self._table:
            return self._table[name]
        import difflib  # here, because only a program that is wrong needs it

        near = difflib.get_close_matches(name, self._table, 1)
        raise MisuseError(
            f"there is no module `{name}`; "
            + (f"did you mean `{near[0]}`?" if near else f"there are {', '.join(self._table)}")
        )

    async def keep(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the modules, in the table's order, until told to `stop`. `started` when all of them are ready.

        An error while a module starts leaves as it is if it is an IIIError, and as ModuleFailed otherwise.
        If cancelled: they end.
        """
        try:
            with self._everything:
                async with open_service_nursery() as nursery:
                    for name, module in self._table.items():
                        if self._settings[name] is not None:
                            await nursery.start(self._run, module)
                    task_status.started()
                    await trio.sleep_forever()
        # `stop` waits for this, also when the modules ended by an error or a cancellation.
        finally:
            self._over.set()

    async def _run(self, module: Module, *, task_status: trio.TaskStatus[None]) -> None:
        """Run one module, and start it again when it fails."""
        logger = get_logger(f"iii_trio.{module.name}")
        pause = _FIRST_PAUSE_SECONDS
        started = False
        last = ""
        kept: dict[str, Any] = {}
        while True:
            began = trio.current_time()
            try:
                async with module.open(
                    self._address,
                    self._settings[module.name],
                    msgspec.structs.replace(self._environment, store=self._stores.get(module.name), kept=kept),
                ) as running:
                    self.running[module.name] = running or RunningModule()
                    # `started` may be called once only, and a restart is not a start of the engine.
                    if not started:
                        started = True
                        task_status.started()
                    with trio.CancelScope() as self._restarts[module.name]:
                        await trio.sleep_forever()
                continue  # new settings, which it takes by a restart only
            except BaseException as error:  # noqa: ASYNC103
                failure = _contain(error)
            finally:
                self.running.pop(module.name, None)
            # An engine must not open without one of its modules, because its callers rely on them.
            if not started:
                raise _cannot_start(module, failure) from failure
            self._note(f"module `{module.name}` failed: {named_error(failure)}", failure)
            # A restarted module would take up new work, which draining is to prevent.
            if self._draining:
                logger.error("module `%s` failed while the engine drained", module.name, exc_info=failure)
                return
            # A failure after a long run is a new one, and need not wait for the pauses of an old one.
            if trio.current_time() - began >= _MAX_PAUSE_SECONDS:
                pause, last = _FIRST_PAUSE_SECONDS, ""
            cause = named_error(failure)
            # The traceback of a failure that repeats is logged once.
            logger.error(
                "module `%s` failed: %s; it is started again in %g s",
                module.name,
                cause,
                pause,
                exc_info=failure if cause != last else None,
            )
            last = cause
            await trio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)

    def _note(self, text: str, failure: BaseException) -> None:
        """Tell of a failure that is a defect."""
        # Errors of this project explain what is wrong around the module, such as a store that cannot be reached.
        if not isinstance(failure, IIIError):
            self._on_failure(text)

    async def drain(self) -> None:
        """Start no more work and wait for the work that runs. If cancelled: they still start no more work."""
        self._draining = True
        async with trio.open_nursery() as nursery:
            for name, running in self.running.items():
                nursery.start_soon(self._drain, name, running)

    async def _drain(self, name: str, running: RunningModule) -> None:
        try:
            await running.drain()
        # One module's mistake must not end the draining of the others.
        except BaseException as error:  # noqa: ASYNC103
            failure = _contain(error)
            self._note(f"module `{name}` could not drain: {named_error(failure)}", failure)
            logger = get_logger(f"iii_trio.{name}")
            logger.error("module `%s` could not drain: %s", name, named_error(failure), exc_info=failure)

    async def stop(self) -> None:
        """End them. If cancelled: they end all the same."""
        self._everything.cancel(reason="the engine closes")
        await self._over.wait()

    def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Use these settings from now on. Whether a module runs at all changes at the engine's next start only.

        Raises MisuseError as `check` does. An error of a module is logged, and its settings stay as they were.
        """
        self.check(settings)
        for name, module in self._table.items():
            before, after = self._settings[name], settings.get(name, module.default)
            if before == after:
                continue
            logger = get_logger(f"iii_trio.{name}")
            if before is None or after is None:
                logger.warning("the %s stays %s until the engine is started again", name, "on" if before else "off")
                continue
            running = self.running.get(name)
            if running is None:  # it failed, and waits to be started again
                self._settings[name] = after
                continue
            try:
                taken = running.reconfigure(after)
            # One module's mistake must not keep the others from their new settings.
            except BaseException as error:  # noqa: ASYNC103
                failure = _contain(error)
                self._note(f"module `{name}` did not take its new settings: {named_error(failure)}", failure)
                logger.error(
                    "module `%s` did not take its new settings: %s", name, named_error(failure), exc_info=failure
                )
                continue  # noqa: ASYNC104
            self._settings[name] = after if taken is None else taken
            if taken is None:
                self._restarts[name].cancel(reason="new settings")


def _contain(error: BaseException) -> BaseException:
    """Return a failure of a module. A cancellation or a KeyboardInterrupt is raised again, because it is not a failure."""
    if isinstance(error, BaseExceptionGroup):
        passing, failure = error.split(_passes)
        if passing is not None:
            raise passing from None
        assert failure is not None
        return failure.exceptions[0] if len(failure.exceptions) == 1 else failure
    if _passes(error):
        raise error
    return error


def _passes(error: BaseException) -> bool:
    return isinstance(error, trio.Cancelled | KeyboardInterrupt | GeneratorExit)


def _cannot_start(module: Module, failure: BaseException) -> IIIError:
    if isinstance(failure, IIIError):  # it explains itself
        return failure
    return ModuleFailed(f"module `{module.name}` could not start: {named_error(failure)}")
