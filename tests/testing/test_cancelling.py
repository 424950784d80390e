"""`cancel_everywhere` finds what is lost by a cancellation, parked and woken, and passes what loses nothing."""

from __future__ import annotations

import math

import outcome
import pytest
import trio

from iii_trio.testing import cancel_everywhere
from iii_trio.testing.cancelling import Run, Seen


async def offer_five(seen: Seen, run: Run) -> None:
    """Five items wait; what the subject did not take is what is left."""
    send, seen["from"] = trio.open_memory_channel[int](math.inf)
    for item in range(5):
        send.send_nowait(item)
    seen["taken"] = []
    await run()
    seen["left"] = []
    while seen["from"].statistics().current_buffer_used:
        seen["left"].append(seen["from"].receive_nowait())


def nothing_is_lost(seen: Seen) -> None:
    assert seen["taken"] + seen["left"] == list(range(5))


async def take_carefully(seen: Seen) -> None:
    while len(seen["taken"]) < 5:
        seen["taken"].append(await seen["from"].receive())


async def take_and_wait(seen: Seen) -> None:
    """The planted bug: an item is in nobody's hands at a checkpoint."""
    while len(seen["taken"]) < 5:
        item = await seen["from"].receive()
        await trio.lowlevel.checkpoint()
        seen["taken"].append(item)


def test_what_loses_nothing_passes_and_its_steps_are_counted() -> None:
    assert cancel_everywhere(take_carefully, nothing_is_lost, around=offer_five) == 5


def test_an_item_lost_at_a_checkpoint_is_found() -> None:
    with pytest.raises(AssertionError) as caught:
        cancel_everywhere(take_and_wait, nothing_is_lost, around=offer_five)
    assert "cancelled at step 1, parked" in "".join(caught.value.__notes__)


async def hand_over(seen: Seen, run: Run) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(1)
        waiting: trio.lowlevel.Task | None = seen.get("waiting")
        if waiting is not None:
            seen["given"] = 42
            trio.lowlevel.reschedule(waiting, outcome.Value(42))


async def wait_for_it(seen: Seen, *, careless: bool) -> None:
    def stop_waiting(_: object) -> trio.lowlevel.Abort:
        seen["waiting"] = None
        return trio.lowlevel.Abort.SUCCEEDED

    seen["waiting"] = trio.lowlevel.current_task()
    got = await trio.lowlevel.wait_task_rescheduled(stop_waiting)
    if careless:
        await trio.lowlevel.checkpoint_if_cancelled()
    seen["got"] = got


def what_was_given_was_got(seen: Seen) -> None:
    assert seen.get("given") == seen.get("got")


async def wait_carefully(seen: Seen) -> None:
    await wait_for_it(seen, careless=False)


async def wait_carelessly(seen: Seen) -> None:
    await wait_for_it(seen, careless=True)


def test_a_value_lost_on_its_way_to_a_woken_task_is_found_by_the_second_way_only() -> None:
    cancel_everywhere(wait_carefully, what_was_given_was_got, around=hand_over)
    with pytest.raises(AssertionError) as caught:
        cancel_everywhere(wait_carelessly, what_was_given_was_got, around=hand_over)
    assert ", woken" in "".join(caught.value.__notes__)


def test_a_subject_that_never_ends_is_given_up() -> None:
    async def spin(seen: Seen) -> None:
        while not seen.get("enough"):
            try:
                await trio.sleep(0.001)
            except trio.Cancelled:
                seen["enough"] = seen.get("n", 0) > 1_000
                raise

    with pytest.raises(AssertionError, match="still not done after 20 steps"):
        cancel_everywhere(spin, lambda seen: None, max_steps=20)


def test_a_run_that_hangs_is_a_failure() -> None:
    async def hang(seen: Seen, run: Run) -> None:
        await offer_five(seen, run)
        await trio.sleep_forever()

    with pytest.raises(AssertionError, match="hung"):
        cancel_everywhere(take_carefully, lambda seen: None, around=hang)
