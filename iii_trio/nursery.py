"""Nurseries for context managers that run tasks of their own beside the body of their block.

One exception leaves such a block (clause C5.2). It is the body's own exception, the same object, also if it is an exception
group. If one of our tasks failed, it is that failure, with the body's exception as its `__context__`.

Theory of operation. Trio's nursery wraps what the body raises into a group, and a cancelled scope then splits that group.
The split copies all nested groups, so that the body's exception cannot be found again by its identity. So it never enters
the nursery: it is kept aside while the tasks are cancelled and awaited, and raised again afterwards. An exception that
holds a `trio.Cancelled` has to pass through the nursery, because the cancelled scope may be the nursery's own. It travels
in a `_FromBody` group then, which keeps its class when Trio splits it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import trio

from .errors import MisuseError


def require_trio() -> None:
    """Raise MisuseError unless this code runs in Trio."""
    if not trio.lowlevel.in_trio_task():
        raise MisuseError(
            "iii_trio runs on Trio: call this from an async function that trio.run() started. Beside another event loop "
            "(asyncio, a GUI), run Trio in guest mode: trio.lowlevel.start_guest_run()"
        )


@asynccontextmanager
async def open_service_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery for the tasks that serve a block. Single exceptions leave it, or the body's own group.

    Leaving the block waits for the tasks. The opener cancels its scope when they are to end with the block.
    Raises MisuseError if Trio does not run here.
    If cancelled: the tasks are cancelled, too.
    """
    require_trio()
    from_body: BaseException | None = None
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except trio.Cancelled:
                raise  # only the nursery's scope knows whether it is its own
            except BaseException as error:
                # The cancellation in it may be the nursery's own, so it has to pass through there.
                if _holds_cancelled(error):
                    raise _FromBody("from the body", [error]) from None
                from_body = error
                nursery.cancel_scope.cancel(reason="the body of the block raised")
    except BaseExceptionGroup as group:
        split_body, failures, cancelled = _sort(group)
        if from_body is None:
            from_body = cancelled if split_body is None else split_body
        failure = failures[0] if failures else None
    if failure is not None:
        if from_body is not None and not isinstance(from_body, trio.Cancelled):
            failure.__context__ = from_body
        raise failure from failure.__cause__
    if from_body is not None:
        raise from_body  # outside of every `except`, so that its own context stays


class _FromBody(BaseExceptionGroup[BaseException]):
    """Marks the body's exception on its way through a nursery."""

    def derive(self, excs: Sequence[BaseException]) -> _FromBody:  # type: ignore[override]
        return _FromBody(self.message, excs)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Iterate over the single exceptions in an exception, at any depth."""
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(reversed(one.exceptions))
        else:
            yield one


def sort_failure(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split what a user's code raised into the failure to report and the exception that has to go on.

    A cancellation of ours and a KeyboardInterrupt go on. All else is a failure of that code, a SystemExit, a GeneratorExit,
    asyncio's CancelledError and another run's `trio.Cancelled` included, and must not end more than its own work.
    """
    going_on = [_goes_on(leaf) for leaf in leaves(error)]
    if not any(going_on):
        return error, None
    if all(going_on) or not isinstance(error, BaseExceptionGroup):
        return None, error
    passing, failure = error.split(_goes_on_or_groups)
    return failure, passing


def _goes_on(leaf: BaseException) -> bool:
    if isinstance(leaf, trio.Cancelled):
        return trio.current_effective_deadline() == -float("inf")  # else it was kept from a scope that is over
    return isinstance(leaf, KeyboardInterrupt)


def _goes_on_or_groups(error: BaseException) -> bool:
    return not isinstance(error, BaseExceptionGroup) and _goes_on(error)


def _holds_cancelled(error: BaseException) -> bool:
    return any(isinstance(leaf, trio.Cancelled) for leaf in leaves(error))


def _sort(
    group: BaseExceptionGroup[BaseException],
) -> tuple[BaseException | None, list[BaseException], BaseException | None]:
    """Return the body's exception, the failures of our tasks, and a cancellation, as far as a nursery raised them."""
    from_body = cancelled = None
    failures = []
    for error in group.exceptions:
        if isinstance(error, _FromBody):
            from_body = error.exceptions[0]
            continue
        for leaf in leaves(error):
            if isinstance(leaf, trio.Cancelled):
                cancelled = leaf
            else:
                failures.append(leaf)
    return from_body, failures, cancelled


async def keep_shielded(
    leaving: trio.Event, goodbye_seconds: float, *, task_status: trio.TaskStatus[trio.Nursery]
) -> None:
    """Keep a nursery that a cancellation from outside does not reach, and end it `goodbye_seconds` after `leaving`.

    It is for connections, because a connection that is cut by its owner's cancellation cannot say goodbye. The owner sets
    `leaving` in a `finally` around everything that follows, the start of this task included.
    """
    await trio.lowlevel.checkpoint_if_cancelled()  # started under a cancellation, it would wait for `leaving` in vain
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        task_status.started(nursery)
        await leaving.wait()
        nursery.cancel_scope.deadline = trio.current_time() + goodbye_seconds
