"""Handlers in threads: what a cancelled one gives, and that its place is given back when its thread has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from iii_trio.worker.threads import ThreadedHandlers


@attrs.define(eq=False)
class Handler:
    """A plain function that runs until it is released, and notes that it began."""

    then: Callable[[], Any] = lambda: "done"
    begun: threading.Event = attrs.field(factory=threading.Event)
    release: threading.Event = attrs.field(factory=threading.Event)

    def __call__(self, **arguments: Any) -> Any:
        self.begun.set()
        self.release.wait()
        return self.then()

    async def wait_begun(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self.begun.wait)


@attrs.define(eq=False)
class Run:
    """One run of a handler in a scope of its own."""

    handlers: ThreadedHandlers
    handler: Callable[..., Any]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    outcome: list[Any] = attrs.field(factory=list)

    async def __call__(self) -> None:
        with self.scope:
            try:
                self.outcome.append(await self.handlers.run(self.handler, {}))
            except trio.Cancelled:
                self.outcome.append("cancelled")
                raise
            except ValueError as error:
                self.outcome.append(str(error))


def fail() -> None:
    raise ValueError("broken")


async def wait_free(handlers: ThreadedHandlers) -> None:
    """Wait until no place is taken."""
    while handlers._limiter.borrowed_tokens:
        await trio.lowlevel.checkpoint()


async def test_a_function_gives_its_value_or_its_error_and_its_place_back() -> None:
    handlers = ThreadedHandlers()
    assert await handlers.run(lambda a, b: a + b, {"a": 1, "b": 2}) == 3
    with pytest.raises(ValueError, match="broken"):
        await handlers.run(fail, {})
    await wait_free(handlers)


async def test_a_call_that_is_cancelled_before_its_thread_begins_runs_nothing_and_keeps_no_place() -> None:
    handlers, ran = ThreadedHandlers(), list[int]()
    for _ in range(2):
        with trio.CancelScope() as scope:
            scope.cancel()
            await handlers.run(lambda: ran.append(1), {})
        assert scope.cancelled_caught and handlers._limiter.borrowed_tokens == 0
    assert ran == []


async def test_a_call_that_is_cancelled_as_its_thread_begins_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trio raises Cancelled before it starts the thread."""
    handlers = ThreadedHandlers()

    async def cancelled(*_: Any, **__: Any) -> None:
        with trio.CancelScope(shield=False):
            scope.cancel()
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(trio.to_thread, "run_sync", cancelled)
    with trio.CancelScope() as scope:
        await handlers.run(fail, {})
    assert scope.cancelled_caught and handlers._limiter.borrowed_tokens == 0


@pytest.mark.parametrize(
    ("then", "outcome"), [(lambda: "done", "done"), (lambda: None, None), (fail, "broken"),
                          (trio.from_thread.check_cancelled, "cancelled")],
)  # fmt: skip
async def test_a_cancelled_call_waits_for_its_function_whose_end_wins(then: Callable[[], Any], outcome: Any) -> None:
    handlers, handler = ThreadedHandlers(), Handler(then)
    run = Run(handlers, handler)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await handler.wait_begun()
        run.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert run.outcome == [] and len(handlers._waiting) == 1
        handler.release.set()
    assert run.outcome == [outcome] and not handlers._waiting
    await wait_free(handlers)


@pytest.mark.parametrize("first", ["the cancellation", "the deadline"])
async def test_a_cancelled_call_is_abandoned_at_the_deadline_and_its_place_is_free_when_its_thread_ends(
    first: str, mock_clock: trio.testing.MockClock
) -> None:
    handlers, handler = ThreadedHandlers(), Handler()
    run = Run(handlers, handler)
    async with trio.open_nursery() as nursery:
        try:
            nursery.start_soon(run)
            await handler.wait_begun()
            if first == "the deadline":
                handlers.abandon_at(trio.current_time() + 5)
            run.scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            if first == "the cancellation":
                handlers.abandon_at(trio.current_time() + 5)
            for seconds, outcome in ((4.5, []), (1.0, ["cancelled"])):
                mock_clock.jump(seconds)
                await trio.testing.wait_all_tasks_blocked()
                assert run.outcome == outcome
            assert run.scope.cancelled_caught and handlers._limiter.borrowed_tokens == 1
        finally:
            handler.release.set()
    await wait_free(handlers)
