"""A test that hangs fails at its limit and shows where it waits."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.helpers.time_limits import VIRTUAL_SECONDS, limited


async def hang_in_a_child() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)


def test_a_hanging_test_fails_with_the_stacks_of_its_tasks() -> None:
    with pytest.raises(AssertionError, match=r"more than 0\.05 seconds") as failed:
        trio.run(limited(hang_in_a_child, 0.05))
    assert "hang_in_a_child" in str(failed.value) and "in sleep_forever" in str(failed.value)


def test_with_a_virtual_clock_the_limit_is_in_virtual_time() -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    with pytest.raises(AssertionError, match="virtual seconds"):
        trio.run(limited(hang_in_a_child, 0.05), clock=clock)
    assert clock.current_time() == pytest.approx(VIRTUAL_SECONDS)


def test_an_exception_of_the_test_leaves_as_itself() -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        trio.run(limited(fail, 60))


def test_arguments_and_a_good_end_pass_through() -> None:
    heard: list[int] = []

    async def note(number: int) -> None:
        heard.append(number)

    trio.run(limited(note, 60), 7)
    assert heard == [7]


def test_every_test_of_this_run_has_a_limit(request: pytest.FixtureRequest) -> None:
    without = [item.nodeid for item in request.session.items if item.get_closest_marker("timeout") is None]
    assert without == []
