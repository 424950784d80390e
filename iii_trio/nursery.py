"""A nursery whose users never see an exception group.

Our context managers run tasks of their own beside the body. What leaves them is one exception (clause C5.2): the body's,
as it is; or, if one of our tasks failed, that failure, with the body's as its `__context__`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_service_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery for the tasks that serve a block; raises single exceptions only.

    Leaving the block waits for the tasks: whoever opens it cancels its scope when they are to end with the block.
    If cancelled: the tasks are, too.
    """
    from_body: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                from_body = error
                raise
    except BaseExceptionGroup as group:
        ours = _first_failure(group, from_body)
        if ours is None:
            if from_body is None:
                raise
            raise from_body from from_body.__cause__
        if from_body is not None and not isinstance(from_body, trio.Cancelled):
            ours.__context__ = from_body
        raise ours from ours.__cause__


def _first_failure(group: BaseExceptionGroup[BaseException], from_body: BaseException | None) -> BaseException | None:
    """The first failure of our own tasks: neither the body's exception nor a cancellation."""
    for error in group.exceptions:
        if error is from_body or isinstance(error, trio.Cancelled):
            continue
        if isinstance(error, BaseExceptionGroup):
            inner = _first_failure(error, from_body)
            if inner is not None:
                return inner
        else:
            return error
    return None


async def keep_shielded(
    leaving: trio.Event, goodbye_seconds: float, *, task_status: trio.TaskStatus[trio.Nursery]
) -> None:
    """Keep a nursery that a cancellation from outside does not reach; end it `goodbye_seconds` after `leaving`.

    For connections: cut by the cancellation that ends their owner, they could say no goodbye. The owner sets `leaving`
    in a `finally` around all that follows, the start of this included.
    """
    await trio.lowlevel.checkpoint_if_cancelled()  # started under a cancellation, it would wait for `leaving` in vain
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        task_status.started(nursery)
        await leaving.wait()
        nursery.cancel_scope.deadline = trio.current_time() + goodbye_seconds
