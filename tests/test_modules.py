"""Modules of an engine: the table, settings, failures and restarts; and docs/modules.md, whose code runs."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio.config.file import parse_config
from iii_trio.errors import ConfigError, MisuseError, ModuleFailed, StorageError
from iii_trio.modules import Module, ModuleEnvironment, RunningModule
from iii_trio.transport.link import Address
from iii_trio.triggers.table import MODULES

PAGE = Path(__file__).parent.parent / "docs" / "modules.md"
WITHOUT_QUEUE: dict[str, Any] = {"queue": None}


@attrs.frozen
class Settings:
    step: int = attrs.field(default=1, validator=attrs.validators.ge(1))


class Probe(RunningModule):
    """A module that can be made to fail, and counts how often it was opened."""

    def __init__(self) -> None:
        self.opened: list[tuple[float, int]] = []
        self.fail = trio.Event()
        self.error: BaseException = ValueError("broken")
        self.at_start: BaseException | None = None
        self.answer: Callable[[Any], Any] = lambda settings: settings

    @asynccontextmanager
    async def open(
        self, address: Address, settings: Settings, environment: ModuleEnvironment
    ) -> AsyncIterator[RunningModule]:
        self.opened.append((trio.current_time(), settings.step))
        if self.at_start is not None:
            raise self.at_start
        async with trio.open_nursery() as nursery, iii_trio.open_worker(address, name="probe") as worker:

            @worker.function("probe::step")
            async def step() -> int:
                return settings.step

            await worker.wait_registered()
            nursery.start_soon(self._fail_when_told)
            yield self
            nursery.cancel_scope.cancel()

    async def _fail_when_told(self) -> None:
        await self.fail.wait()
        raise self.error

    def reconfigure(self, settings: Any) -> Any:
        return self.answer(settings)

    def module(self, **options: Any) -> Module:
        return Module(name="probe", settings=Settings, open=self.open, **options)

    @property
    def times(self) -> list[float]:
        return [round(time - self.opened[0][0], 1) for time, _ in self.opened]


def test_the_page_about_modules_shows_one_in_40_lines_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text()
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert sum(1 for line in code.splitlines() if line.strip()) <= 40
    exec(compile(code, str(PAGE), "exec"), {"__name__": "modules_page"})
    [printed] = re.findall(r"^It prints `(.*)`\.$", page, re.MULTILINE)
    assert capsys.readouterr().out == printed + "\n"


ODD = {
    "an error": ValueError("broken"),
    "an error without text": KeyError(),
    "a SystemExit": SystemExit(3),
    "a group": ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    "a recursion": RecursionError("too deep"),
}


@pytest.mark.parametrize("error", ODD.values(), ids=ODD)
async def test_a_module_that_fails_is_started_again_and_others_do_not_notice(
    error: BaseException, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "iii_trio.probe")
    probe = Probe()
    probe.error = error
    async with (
        iii_trio.open_engine(modules=[probe.module()]) as engine,
        engine.open_worker("bystander") as bystander,
    ):
        calls = trio.Event()

        @bystander.function("bystander::job")
        async def job() -> None:
            calls.set()

        async with bystander.create_channel() as channel:
            assert await bystander.trigger("probe::step", {}) == 1
            probe.fail.set()
            await trio.testing.wait_all_tasks_blocked()
            probe.fail = trio.Event()
            assert "probe" not in engine.modules and "queue" in engine.modules
            with pytest.raises(iii_trio.CallError, match="function_not_found"):
                await bystander.trigger("probe::step", {})
            await bystander.trigger("bystander::job", {}, action=iii_trio.enqueue())
            await calls.wait()
            await channel.writer.send(b"still here")
            assert await channel.reader.receive() == b"still here"
            await channel.writer.aclose()
        await trio.sleep(1.5)
        assert await bystander.trigger("probe::step", {}) == 1
        assert probe.times == [0.0, 1.0]
    [record] = caplog.records
    assert record.levelno == logging.ERROR and record.exc_info is not None
    assert record.getMessage().startswith(f"module `probe` failed: {type(error).__name__}")
    assert record.getMessage().endswith("; it is started again in 1 s")


async def test_the_pause_doubles_up_to_a_minute_and_a_failure_that_repeats_has_one_traceback(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "iii_trio.probe")
    probe = Probe()
    async with iii_trio.open_engine(modules=[probe.module()]):
        probe.fail.set()  # and stays so: it fails as soon as it runs
        await trio.sleep(200)
        assert probe.times == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 123.0, 183.0]
        assert [record.exc_info is not None for record in caplog.records] == [True] + [False] * 8
        probe.fail = trio.Event()
        await trio.sleep(200)  # runs for longer than a minute
        before = len(probe.opened)
        probe.fail.set()
        await trio.sleep(1.5)
        assert len(probe.opened) == before + 1
        assert caplog.records[-2].exc_info is not None


@pytest.mark.parametrize(
    ("error", "raised", "text"),
    [
        (ValueError("no\nluck"), ModuleFailed, "module `probe` could not start: ValueError: no luck"),
        (SystemExit(3), ModuleFailed, "module `probe` could not start: SystemExit: 3"),
        (StorageError("the disk is gone"), StorageError, "the disk is gone"),
        (ExceptionGroup("x", [StorageError("the disk is gone")]), StorageError, "the disk is gone"),
    ],
)
async def test_a_module_that_cannot_start_ends_the_engine_with_one_sentence(
    error: BaseException, raised: type[Exception], text: str
) -> None:
    probe = Probe()
    probe.at_start = error
    with pytest.raises(raised) as caught:
        async with iii_trio.open_engine(modules=[probe.module()]):
            raise AssertionError("the engine opened")
    assert str(caught.value) == text


async def test_a_module_that_fails_as_the_engine_leaves_does_not_fail_the_engine(autojump_clock: MockClock) -> None:
    probe = Probe()
    async with iii_trio.open_engine(modules=[probe.module()]):
        probe.fail.set()
    with trio.move_on_after(1) as scope:
        async with iii_trio.open_engine(modules=[probe.module()]):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_drain_goes_on_when_a_module_cannot_drain(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(Probe):
        async def drain(self) -> None:
            raise ValueError("not now")

    async with iii_trio.open_engine(modules=[Stubborn().module()]) as engine:
        assert await engine.drain(1) is True
    assert caplog.messages == ["module `probe` could not drain: ValueError: not now"]


# --- settings


async def test_settings_come_by_name_and_a_module_may_be_off_or_off_by_default() -> None:
    probe = Probe()
    on = iii_trio.EngineConfig(modules={"probe": Settings(step=7)})
    off = iii_trio.EngineConfig(modules={"probe": None, **WITHOUT_QUEUE})
    async with iii_trio.open_engine(on, modules=[probe.module(runs_by_default=False)]) as engine:
        assert set(engine.modules) == {"queue", "page", "probe"}
    assert probe.opened[0][1] == 7
    for module, config in ((probe.module(), off), (probe.module(runs_by_default=False), None)):
        async with iii_trio.open_engine(config, modules=[module]) as engine:
            assert "probe" not in engine.modules
    assert len(probe.opened) == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"quue": None}, "there is no module `quue`; did you mean `queue`?"),
        (
            {"zebra": None},
            "there is no module `zebra`; there are queue, http, external, cluster, observability, page, probe",
        ),
        ({"probe": 3}, "the settings of module `probe` are 3; give a Settings, or None"),
    ],
)
async def test_settings_of_no_module_are_misuse_also_at_a_reload(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MisuseError) as caught:
        async with iii_trio.open_engine(iii_trio.EngineConfig(modules=settings), modules=[Probe().module()]):
            pass
    assert str(caught.value) == sentence
    async with iii_trio.open_engine(modules=[Probe().module()]) as engine:
        with pytest.raises(MisuseError) as caught:
            await engine.reload(iii_trio.EngineConfig(listeners=(), modules=settings))
    assert str(caught.value) == sentence


async def test_the_settings_of_a_module_may_be_given_by_their_place() -> None:
    probe = Probe()
    module = msgspec.structs.replace(probe.module(), settings=f"{__name__}:Settings")
    assert module.settings_class is Settings
    assert module.default == Settings()
    async with iii_trio.open_engine(iii_trio.EngineConfig(modules={"probe": Settings(3)}), modules=[module]):
        assert [step for _, step in probe.opened] == [3]
    with pytest.raises(MisuseError, match="the settings of module `probe` are 3; give a Settings, or None"):
        async with iii_trio.open_engine(iii_trio.EngineConfig(modules={"probe": 3}), modules=[module]):
            pass


def test_a_built_in_module_that_does_not_run_by_default_has_the_settings_that_its_entry_reads() -> None:
    text = "workers: [{name: iii-http}, {name: iii-http-functions}]"
    read = parse_config(text, "c.yaml", {}, modules=MODULES).config.modules
    classes = {module.name: module.settings_class for module in MODULES}
    assert {name: type(settings) for name, settings in read.items()} == {
        name: classes[name] for name in ("http", "external")
    }
    assert classes["cluster"].__name__ == "ClusterConfig"


async def test_two_modules_of_one_name_and_a_store_for_none_are_misuse() -> None:
    with pytest.raises(MisuseError, match="there are two modules named `queue`"):
        async with iii_trio.open_engine(modules=MODULES):
            pass
    with pytest.raises(MisuseError, match="there is no module `queues`; did you mean `queue`"):
        async with iii_trio.open_engine(stores={"queues": object()}):
            pass


async def test_a_module_takes_new_settings_or_is_started_again_with_them(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    probe = Probe()
    taken: list[int] = []

    def take(settings: Settings) -> Settings:
        taken.append(settings.step)
        return settings

    probe.answer = take

    def config(step: int | None) -> iii_trio.EngineConfig:
        return iii_trio.EngineConfig(listeners=(), modules={"probe": None if step is None else Settings(step)})

    async with iii_trio.open_engine(config(1), modules=[probe.module()]) as engine, engine.open_worker("w") as worker:
        await engine.reload(config(1))
        await engine.reload(config(2))
        assert taken == [2] and len(probe.opened) == 1
        probe.answer = lambda settings: None
        await engine.reload(config(3))
        await trio.testing.wait_all_tasks_blocked()
        assert await worker.trigger("probe::step", {}) == 3
        assert [step for _, step in probe.opened] == [1, 3]

        def refuse(settings: Settings) -> Settings:
            raise ValueError("never")

        probe.answer = refuse
        await engine.reload(config(4))
        await engine.reload(config(None))
        assert caplog.messages == [
            "module `probe` did not take its new settings: ValueError: never",
            "the probe stays on until the engine is started again",
        ]
        probe.fail.set()
        await trio.testing.wait_all_tasks_blocked()
        probe.fail = trio.Event()
        await engine.reload(config(5))  # it waits to be started again
        await trio.sleep(2)
        assert [step for _, step in probe.opened] == [1, 3, 5]


# --- its entry in the file


def test_a_module_without_a_reader_of_its_own_has_a_key_for_each_field() -> None:
    module = Probe().module(entries=["probe"])
    text = "workers:\n  - name: probe\n    iii-trio:\n      step: 3\n"
    assert parse_config(text, "c.yaml", {}, modules=[module]).config.modules == {"probe": Settings(step=3)}
    for wrong, sentence in (
        (text.replace("3", "0"), "c.yaml:4: `step` is 0; it must be >= 1"),
        (text.replace("step", "stop"), "c.yaml:4: unknown key `stop` in `iii-trio` of probe; did you mean `step`?"),
        (
            text.replace("iii-trio", "iii-tri"),
            "c.yaml:3: unknown key `iii-tri` in the entry probe; did you mean `iii-trio`?",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            parse_config(wrong, "c.yaml", {}, modules=[module])
        assert str(caught.value) == sentence
