"""A time limit for async tests, which shows where the tasks of a hanging test wait."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Final

import trio
import trio.testing

VIRTUAL_SECONDS: Final = 1_000_000.0
"""The limit of a test in virtual time. No test waits that long on purpose."""


def limited(test: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Give a coroutine function a deadline. Return any other function as it is.

    The deadline is `seconds` of real time, or VIRTUAL_SECONDS where the test has a virtual clock.
    At the deadline the test fails with an AssertionError that holds the stacks of all its tasks.
    """
    if not inspect.iscoroutinefunction(test):
        return test

    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        virtual = isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)
        limit = VIRTUAL_SECONDS if virtual else seconds
        own = trio.lowlevel.current_task()
        stacks = ""
        scope = trio.CancelScope()

        async def watch(watching: trio.CancelScope) -> None:
            nonlocal stacks
            with watching:
                await trio.sleep(limit)
                stacks = "\n".join(_stacks(own))
                scope.cancel()

        # A system task, because a nursery around the test would wrap its exceptions in groups.
        watching = trio.CancelScope()
        trio.lowlevel.spawn_system_task(watch, watching)
        try:
            with scope:
                await test(*args, **kwargs)
        except BaseException as error:
            if stacks:
                error.add_note(f"after {limit:g} seconds the tasks of the test waited here:\n{stacks}")
            raise
        finally:
            watching.cancel()
        # Only a test that was really cancelled by its limit failed: one that ended just before passes.
        if scope.cancelled_caught:
            raise AssertionError(f"the test took more than {limit:g} {'virtual ' * virtual}seconds:\n{stacks}")

    return run


def _stacks(task: trio.lowlevel.Task) -> Iterator[str]:
    """Yield the stack of a task and of all tasks below it."""
    frames = traceback.StackSummary.extract(task.iter_await_frames())
    yield f"{task.name}:\n" + "".join(frames.format())
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _stacks(child)
