"""Lost connections are taken down a few a turn of the loop, all of them in the end."""

from __future__ import annotations

import trio
import trio.testing

from iii_trio.transport.lost_connections import LostConnections


async def test_a_few_are_taken_down_in_each_turn_of_the_loop() -> None:
    lost, turn, left = LostConnections(), 0, list[int]()

    async def count_turns() -> None:
        nonlocal turn
        while len(left) < 100:
            await trio.lowlevel.checkpoint()
            turn += 1

    async def connection() -> None:
        await lost.wait_turn()
        left.append(turn)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(connection)
        nursery.start_soon(count_turns)
    # Trio runs the tasks of a turn in any order, so that the ones of two turns may be counted together.
    assert max(map(left.count, left)) <= 33


async def test_a_lone_one_waits_for_one_turn() -> None:
    with trio.testing.assert_checkpoints():
        await LostConnections().wait_turn()


async def test_those_that_come_later_are_taken_down_too() -> None:
    lost = LostConnections()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(lost.wait_turn)
                await trio.lowlevel.checkpoint()


class Followers:
    """Lost connections that wait for their turn, and the number of those that had it."""

    def __init__(self) -> None:
        self.lost, self.left = LostConnections(), 0

    async def follow(self) -> None:
        await self.lost.wait_turn()
        self.left += 1

    def start(self, nursery: trio.Nursery) -> None:
        for _ in range(40):
            nursery.start_soon(self.follow)


async def test_a_cancelled_one_leaves_at_once_and_keeps_nobody() -> None:
    followers, cancelled = Followers(), trio.CancelScope()

    async def give_up() -> None:
        with cancelled:
            await followers.lost.wait_turn()
        assert followers.left < 40

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            followers.start(nursery)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(give_up)
            cancelled.cancel()
    assert followers.left == 40 and cancelled.cancelled_caught


async def test_where_the_one_that_leads_is_cancelled_the_others_wait_no_longer() -> None:
    followers, leads = Followers(), trio.CancelScope()

    async def lead() -> None:
        with leads:
            followers.start(nursery)
            await followers.lost.wait_turn()

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lead)
            await trio.lowlevel.checkpoint()
            leads.cancel()
    assert followers.left == 40 and leads.cancelled_caught
