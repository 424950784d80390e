"""What leaves the blocks of our context managers (clause C5.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.nursery import open_service_nursery

Open = Callable[[], AbstractAsyncContextManager[object]]


@asynccontextmanager
async def all_of_them() -> AsyncIterator[None]:
    async with (
        iii_trio.open_engine() as engine,
        engine.open_worker("w") as worker,
        worker.create_channel() as channel,
        channel.writer,
        channel.reader,
    ):
        yield


@asynccontextmanager
async def worker_only() -> AsyncIterator[None]:
    async with iii_trio.open_engine() as engine, iii_trio.open_worker(engine):
        yield


OPEN: dict[str, Open] = {
    "nursery": open_service_nursery,
    "engine": iii_trio.open_engine,
    "worker": worker_only,
    "all of them": all_of_them,
}
everywhere = pytest.mark.parametrize("open_block", OPEN.values(), ids=OPEN)


def a_group() -> BaseException:
    return ExceptionGroup("mine", [ValueError("v")])


def nested() -> BaseException:
    return BaseExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("v"), KeyError("k")]), SystemExit(3)])


def with_a_context() -> BaseException:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError as error:
        return error


class Odd(Exception):
    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


@everywhere
@pytest.mark.parametrize(
    "make", [ValueError, a_group, nested, with_a_context, SystemExit, StopAsyncIteration, StopIteration, Odd]
)
async def test_C5_2_the_bodys_exception_leaves_as_itself(
    open_block: Open, make: Callable[[], BaseException], autojump_clock: object
) -> None:
    error = make()
    cause, context = error.__cause__, error.__context__
    try:
        async with open_block():
            await trio.lowlevel.checkpoint()
            raise error
    except BaseException as caught:
        assert caught is error
        assert (error.__cause__, error.__context__) == (cause, context)
        if isinstance(error, BaseExceptionGroup):
            assert error.exceptions == make().exceptions or len(error.exceptions) == len(make().exceptions)  # type: ignore[attr-defined]
    else:
        pytest.fail("nothing left the block")


@everywhere
async def test_C5_2_both_failures_of_the_bodys_tasks_leave(open_block: Open, autojump_clock: object) -> None:
    async def fail(error: Exception) -> None:
        raise error

    seen: list[str] = []
    try:
        async with open_block(), trio.open_nursery() as nursery:
            nursery.start_soon(fail, ValueError("v"))
            nursery.start_soon(fail, KeyError("k"))
    except* ValueError:
        seen.append("ValueError")
    except* KeyError:
        seen.append("KeyError")
    assert seen == ["ValueError", "KeyError"]


@everywhere
async def test_C5_2_a_cancellation_leaves_and_is_caught_by_its_own_scope(
    open_block: Open, autojump_clock: object
) -> None:
    with trio.CancelScope() as outer, trio.CancelScope() as inner:
        async with open_block():
            inner.cancel()
            await trio.sleep_forever()
    assert inner.cancelled_caught and not outer.cancelled_caught


@everywhere
async def test_C5_2_a_failure_beside_a_cancellation_is_kept(open_block: Open, autojump_clock: object) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    with pytest.raises(BaseExceptionGroup) as caught, trio.CancelScope() as scope:
        async with open_block(), trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    (error,) = caught.value.exceptions
    assert repr(error) == "ValueError('on the way out')"


async def test_a_failure_of_our_own_task_wins_and_the_bodys_is_its_context() -> None:
    async def fail() -> None:
        raise ValueError("ours")

    body = ExceptionGroup("body", [KeyError("k")])
    with pytest.raises(ValueError, match="ours") as caught:
        async with open_service_nursery() as nursery:
            nursery.start_soon(fail)
            try:
                await trio.sleep_forever()
            finally:
                raise body
    assert caught.value.__context__ is body


async def test_the_cancellation_by_our_own_failure_is_not_the_bodys() -> None:
    async def fail() -> None:
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        async with open_service_nursery() as nursery, trio.open_nursery() as inner:
            nursery.start_soon(fail)
            inner.start_soon(trio.sleep_forever)


async def test_a_cancelled_nursery_ends_quietly() -> None:
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(open_service_nursery())
        nursery.start_soon(trio.sleep_forever)
        nursery.cancel_scope.cancel()
        await trio.sleep_forever()


@pytest.mark.parametrize("open_block", [iii_trio.open_engine, lambda: iii_trio.open_worker("ws://127.0.0.1:1")])
def test_asyncio_is_told_that_this_needs_trio(open_block: Open) -> None:
    async def main() -> None:
        async with open_block():
            pass

    with pytest.raises(iii_trio.MisuseError, match=r"trio\.run.*guest mode"):
        asyncio.run(main())
