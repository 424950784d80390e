"""A failure in a user's code ends at most the work that it belongs to.

Each place where a worker runs a user's code raises each odd exception in turn. A bystander's call, channel and job on the
same worker go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

import iii_trio
from iii_trio import lowlevel
from iii_trio.wire import InvokeFunction
from iii_trio.worker import BoundTrigger, Worker
from tests.helpers.bystanders import ODD, bystanders


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest) -> Callable[[], BaseException]:
    return ODD[request.param]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logger = logging.getLogger("iii_trio")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    yield


async def fails(other: Worker, function_id: str) -> iii_trio.CallError:
    with pytest.raises(iii_trio.CallError) as caught:
        await other.trigger(function_id)
    return caught.value


@pytest.mark.parametrize("kind", ["async", "nursery", "inline", "plain", "run_sync"])
async def test_a_handler(odd: Callable[[], BaseException], kind: str) -> None:
    def raises() -> None:
        raise odd()

    async def raises_in_a_task() -> None:
        raises()

    async def own_run_sync(handler: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        return handler(**arguments)

    async with bystanders(**({} if kind == "plain" else {"run_sync": own_run_sync})) as mesh:
        if kind == "async":
            mesh.worker.register_function("f", raises_in_a_task)
        elif kind == "nursery":

            async def in_a_nursery() -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(raises_in_a_task)
                    nursery.start_soon(trio.sleep_forever)

            mesh.worker.register_function("f", in_a_nursery)
        elif kind == "inline":
            lowlevel.register_inline_handler(mesh.worker, "f", lambda call: raises())
        else:
            mesh.worker.register_function("f", raises)
        await mesh.worker.wait_registered()
        error = await fails(mesh.other, "f")
        assert error.origin == "handler" and error.message


async def test_a_handler_that_is_cancelled(odd: Callable[[], BaseException], autojump_clock: object) -> None:
    async with bystanders() as mesh:

        @mesh.worker.function("f")
        async def f() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise odd()

        await mesh.worker.wait_registered()
        with trio.move_on_after(1):
            await mesh.other.trigger("f")


@pytest.mark.parametrize("kind", ["task", "bind", "unbind", "later"])
async def test_a_trigger_provider(odd: Callable[[], BaseException], kind: str, autojump_clock: object) -> None:
    def raises(bound: BoundTrigger) -> None:
        raise odd()

    async def task(bound: BoundTrigger, *, task_status: trio.TaskStatus[None]) -> None:
        if kind == "later":
            task_status.started()
        raises(bound)

    provider: Any = {"bind": (raises, raises), "unbind": (lambda bound: None, raises)}.get(kind, task)
    async with bystanders() as mesh:
        mesh.worker.register_trigger_type("odd", provider)
        await mesh.worker.wait_registered()
        refusals: list[iii_trio.CallError] = []
        binding = mesh.other.register_trigger("odd", "bystander", on_error=refusals.append)
        await mesh.other.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        assert bool(refusals) == (kind != "unbind")
        binding.unregister()
        await mesh.other.wait_registered()


async def test_a_subscriber(odd: Callable[[], BaseException], autojump_clock: object) -> None:
    calls: list[str] = []
    async with bystanders() as mesh:

        @mesh.worker.subscribe("topic", max_attempts=2, backoff_seconds=0.1)
        async def on_it(data: Any) -> None:
            calls.append("called")
            raise odd()

        await mesh.worker.wait_registered()
        await mesh.other.trigger("iii::durable::publish", {"topic": "topic", "data": 1})
        await trio.sleep(5)
    assert calls == ["called"] * 2


@pytest.mark.parametrize("place", ["on_error", "then"])
async def test_a_callback(odd: Callable[[], BaseException], place: str, autojump_clock: object) -> None:
    called: list[object] = []

    def raises(*arguments: object) -> None:
        called.append(arguments)
        raise odd()

    async with bystanders() as mesh:
        if place == "on_error":
            mesh.other.register_trigger_type("t", (_refuse, None))
            await mesh.other.wait_registered()
            mesh.worker.register_trigger("t", "bystander", on_error=raises)
        else:
            lowlevel.call_nowait(mesh.worker, InvokeFunction("nobody::has_this"), raises)
        await mesh.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        assert len(called) == 1


def _refuse(bound: BoundTrigger) -> None:
    raise ValueError("refused")


@pytest.mark.parametrize("logger", ["iii_trio.worker", "iii_trio.engine", "iii_trio.queue"])
async def test_a_log_handler(odd: Callable[[], BaseException], logger: str, autojump_clock: object) -> None:
    lines: list[str] = []

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            raise odd()

    handler = Raising()
    real = logging.getLogger(logger)
    level = real.level
    real.setLevel(logging.DEBUG)
    async with bystanders() as mesh:
        real.addHandler(handler)
        try:

            @mesh.worker.function("f")
            async def f() -> None:
                raise ValueError

            await mesh.worker.wait_registered()
            await fails(mesh.other, "f")
            mesh.worker.register_trigger_type("t", (_refuse, None))
            await mesh.worker.wait_registered()
            mesh.other.register_trigger("t", "f")
            mesh.other.register_trigger("durable:subscriber", "f", config={})
            await mesh.other.wait_registered()
            await trio.testing.wait_all_tasks_blocked()
        finally:
            real.removeHandler(handler)
            real.setLevel(level)
    assert lines


@pytest.mark.parametrize("how", ["abort", "cancel", "block", "reader's block", "channel's block"])
async def test_a_reason_for_the_other_end(odd: Callable[[], BaseException], how: str, autojump_clock: object) -> None:
    async with bystanders() as mesh, mesh.other.create_channel() as channel:
        error = odd()
        await channel.writer.send(b"x")
        if how == "abort":
            channel.writer.abort("bad\udcff", "c\udcff")
        elif how == "cancel":
            channel.reader.cancel("bad\udcff", "c\udcff")
        else:
            end: Any = {"block": channel.writer, "reader's block": channel.reader}.get(how)
            try:
                async with end or mesh.other.create_channel() as inner:
                    if end is None:
                        await inner.writer.send(b"x")
                    raise error
            except BaseException as caught:
                assert caught is error
        assert (await mesh.other.trigger("engine::channels::list", {}))["channels"] is not None


async def test_a_cancellation_with_an_odd_reason(autojump_clock: object) -> None:
    async with bystanders() as mesh:

        @mesh.worker.function("f")
        async def f() -> None:
            await trio.sleep_forever()

        await mesh.worker.wait_registered()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mesh.other.trigger, "f")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel(reason="bad\udcff")


@pytest.mark.parametrize("handler", ["async", "plain"])
async def test_a_KeyboardInterrupt_goes_on(handler: str) -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    def plain() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:
            worker.register_function("f", interrupted if handler == "async" else plain)
            await worker.trigger("f")


async def test_a_trio_Cancelled_of_a_scope_that_is_over(autojump_clock: object) -> None:
    kept: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            kept.append(error)
            raise
    async with bystanders() as mesh:

        @mesh.worker.function("f")
        async def f() -> None:
            raise kept[0]

        await mesh.worker.wait_registered()
        assert (await fails(mesh.other, "f")).code == "invocation_cancelled"


async def test_a_failed_handler_is_logged_with_its_traceback_and_named_to_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger("iii_trio").propagate = True
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:

        @worker.function("f")
        async def f() -> None:
            {}["missing"]

        @worker.function("g")
        async def g() -> None:
            raise iii_trio.CallError("sold_out", "none left")

        for _ in range(500):
            with pytest.raises(iii_trio.CallError) as caught:
                await worker.trigger("f")
        assert caught.value.message == "KeyError: 'missing'"
        with pytest.raises(iii_trio.CallError, match="sold_out: none left"):
            await worker.trigger("g")
    records = [record for record in caplog.records if record.name == "iii_trio.worker"]
    failures = [record for record in records if record.levelno == logging.ERROR]
    assert "the handler of f failed: KeyError: 'missing'" in failures[0].getMessage()
    assert failures[0].exc_info is not None and failures[0].iii_function == "f"  # type: ignore[attr-defined]
    assert 50 <= len(failures) < 200, "rate-limited, for each function"
    assert not [record for record in records if "none left" in record.getMessage()]
