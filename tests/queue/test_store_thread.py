"""The thread of a store's own."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from iii_trio.triggers.queue.thread import open_thread


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "iii-trio store"]


async def test_it_runs_one_thing_after_another_in_one_thread_and_ends_with_its_block() -> None:
    async with open_thread() as run:
        with trio.testing.assert_checkpoints():
            first = await run(threading.get_ident)
        assert first == await run(threading.get_ident) != threading.get_ident()
        assert len(threads()) == 1
    assert not threads()


async def test_what_is_raised_there_is_raised_here_and_it_goes_on() -> None:
    async with open_thread() as run:
        with pytest.raises(ZeroDivisionError):
            await run(lambda: 1 / 0)
        assert await run(lambda: "on") == "on"


async def test_a_cancelled_caller_sees_what_was_begun_to_its_end() -> None:
    ended = threading.Event()
    done: list[str] = []
    async with open_thread() as run, trio.open_nursery() as nursery:

        async def call() -> None:
            await run(ended.wait)
            done.append("the work")

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        assert not done
        ended.set()
    assert done == ["the work"]


async def test_a_block_left_by_an_exception_ends_it() -> None:
    with pytest.raises(KeyError):
        async with open_thread() as run:
            await run(lambda: None)
            raise KeyError("out")
    assert not threads()
