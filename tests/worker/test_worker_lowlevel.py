"""What modules use of a worker: calls without a task, functions that stand by, and what the worker's link tells."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from iii_trio.version import installed_version
from iii_trio.wire import InvokeFunction, RegisterFunction, RegistrationRejected, UnregisterTrigger
from iii_trio.worker import introduction, lowlevel, open_worker
from tests.helpers.fake_engine import FakeEngine, parsed


@pytest.mark.parametrize("stands_by", [True, False])
async def test_a_relayed_function_that_another_worker_has_stands_by_as_expected(
    stands_by: bool, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        register = lowlevel.relay_function if stands_by else lowlevel.register_inline_handler
        offered = register(worker, "f", lambda call: call.answer(1), description="d")
        assert (await engine.link.hear(RegisterFunction)).description == "d"
        with caplog.at_level(logging.DEBUG, "iii_trio"):
            engine.link.say(RegistrationRejected("FUNCTION_NAMESPACE_CONFLICT", "default", "w9", function_id="f"))
            await trio.testing.wait_all_tasks_blocked()
    (line,) = [record for record in caplog.records if "f was refused" in record.message]
    assert line.levelno == (logging.DEBUG if stands_by else logging.WARNING)
    assert offered.refused == "f was refused in namespace 'default': worker w9 has it"


async def test_a_call_is_begun_when_the_output_has_room() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:
        assert lowlevel.can_call(worker)
        engine.full = True
        assert not lowlevel.can_call(worker)
        begun: list[object] = []

        async def begin() -> None:
            handle = await lowlevel.begin_call(worker, "f", {"a": 1}, metadata={"m": 1}, namespace="fleet")
            begun.append("begun")
            await handle.wait_settled()
            begun.append(handle.value())

        async def wait() -> None:
            await lowlevel.wait_can_call(worker)
            begun.append("can call")

        nursery.start_soon(begin)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert begun == [] and engine.link.of(InvokeFunction) == []
        engine.full = False
        engine.news.unpark_all()
        call = await engine.link.hear(InvokeFunction)
        assert (call.function_id, parsed(call.data), parsed(call.metadata), call.namespace) == (
            "f", {"a": 1}, {"m": 1}, "fleet",
        )  # fmt: skip
        engine.link.answer(call, 7)
    assert sorted(map(str, begun)) == ["7", "begun", "can call"]


async def test_a_call_without_a_task_keeps_the_id_that_it_has_and_is_settled_once() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        settled: list[str] = []
        calls = [InvokeFunction("f"), InvokeFunction("f", "mine")]
        handles = [lowlevel.call_nowait(worker, call, lambda: settled.append("settled")) for call in calls]
        assert calls[1].invocation_id == "mine" and calls[0].invocation_id not in (None, "mine")
        for number, call in enumerate(calls):
            engine.link.answer(call, number)
        await trio.testing.wait_all_tasks_blocked()
        assert [handle.value() for handle in handles] == [0, 1] and settled == ["settled"] * 2


async def test_a_flush_is_for_a_link_that_is_there(autojump_clock: trio.testing.MockClock) -> None:
    engine, flushed = FakeEngine(), []
    async with open_worker(engine) as worker:
        link = engine.link
        link.flush_output = lambda: flushed.append(link.number)  # type: ignore[method-assign]
        lowlevel.flush(worker)
        assert flushed == [link.number]
        lost: list[str] = []
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                await lowlevel.wait_link_lost(worker)
                lost.append("lost")

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert lost == []
            link.drop()
        assert lost == ["lost"]
        if not worker.connected:
            lowlevel.flush(worker)
        assert flushed == [link.number]


@pytest.mark.parametrize("owner_gone", [True, False])
async def test_a_binding_ends_withdrawn_or_with_its_owner(owner_gone: bool) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        binding = worker.register_trigger("tide", "f")
        lowlevel.end_binding(binding, owner_gone=owner_gone)
        lowlevel.end_binding(binding, owner_gone=owner_gone)
        message = await engine.link.hear(UnregisterTrigger)
        await trio.testing.wait_all_tasks_blocked()
        assert (message.id, message.trigger_type, message.owner_gone) == (binding.id, "tide", owner_gone)
        assert len(engine.link.of(UnregisterTrigger)) == 1


@pytest.mark.parametrize("version", [None, "9.9"])
def test_a_worker_says_which_version_it_is(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert introduction.introduction("w", None, None)["version"] == (installed_version() or "unknown")
    monkeypatch.setattr(introduction, "installed_version", lambda: version)
    said = introduction.introduction("w", "fleet", "d", ["more"])
    assert said["version"] == (version or "unknown")
    assert (said["name"], said["namespace"], said["description"], said["features"][-1]) == ("w", "fleet", "d", "more")
