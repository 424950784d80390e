"""Calls that are passed on together, and what they leave behind."""

from __future__ import annotations

import gc

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from iii_trio.errors import CallError
from iii_trio.transport.outbox import Outbox
from iii_trio.triggers.cluster.together import Together

from .mesh_world import mesh_world


class FakeLink:
    """Notes what is done to it."""

    def __init__(self, does: list[str]) -> None:
        self.does = does

    def hold_output(self) -> None:
        self.does.append("hold")

    def flush_output(self) -> None:
        self.does.append("flush")


def test_a_link_is_held_once_until_the_last_read_ends() -> None:
    does: list[str] = []
    link, together = FakeLink(does), Together()
    together.hold(link)  # type: ignore[arg-type]
    assert does == []  # nothing would end it
    with together:
        together.hold(link)  # type: ignore[arg-type]
        # A call that fails at once is answered within the read of another link.
        with together:
            together.hold(link)  # type: ignore[arg-type]
        assert does == ["hold"]
    assert does == ["hold", "flush"]
    with together:
        pass
    assert does == ["hold", "flush"]


async def test_calls_that_come_together_leave_together(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh_world("a", "b") as world:
        async with world.open_worker("a", "shop", "network") as shop, world.open_worker("b", "app", "network") as app:

            @shop.function("double")
            async def double(n: int) -> int:
                if n < 0:
                    raise CallError("negative", str(n))
                return 2 * n

            await shop.wait_registered()
            await world.settle()
            written: list[int] = []
            write_now = Outbox._write_now

            def counted(self: Outbox, stream: object) -> None:
                written.append(self.waiting_bytes)
                write_now(self, stream)  # type: ignore[arg-type]

            answers: dict[int, int] = {}

            async def ask(n: int) -> None:
                answers[n] = await app.trigger("double", {"n": n})

            async def all_at_once() -> int:
                written.clear()
                async with trio.open_nursery() as nursery:
                    for n in range(64):
                        nursery.start_soon(ask, n)
                return len(written)

            monkeypatch.setattr(Outbox, "_write_now", counted)
            writes = await all_at_once()
            assert answers == {n: 2 * n for n in range(64)}
            # One at a time they are 64 of the caller, and six for each call on its further way.
            assert writes < 64 + 5 * 20, writes


class Steps(trio.abc.Instrument):
    """Counts the steps of tasks that serve links within a process."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += "InProcess.connect" in task.name


async def test_an_answer_is_passed_on_in_the_step_that_read_it(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world:
        async with world.open_worker("a", "shop", "network") as shop, world.open_worker("b", "app", "network") as app:

            @shop.function("price")
            async def price(n: int) -> int:
                return n

            await shop.wait_registered()
            await world.settle()
            await app.trigger("price", {"n": 1})
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            for n in range(20):
                assert await app.trigger("price", {"n": n}) == n
            trio.lowlevel.remove_instrument(steps)
            assert steps.count < 10, steps.count


async def test_a_call_that_was_passed_on_leaves_nothing_for_the_cycle_collector(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world:
        async with world.open_worker("a", "shop", "network") as shop, world.open_worker("b", "app", "network") as app:

            @shop.function("price")
            async def price(n: int) -> int:
                return n

            await shop.wait_registered()
            await world.settle()
            await app.trigger("price", {"n": 1})
            gc.collect()
            gc.disable()
            try:
                for n in range(20):
                    assert await app.trigger("price", {"n": n}) == n
                # The collector's own count, because a list of what it found would keep that alive.
                found = gc.collect()
            finally:
                gc.enable()
            assert found < 20, found
