"""The usual length of calls, and which are longer."""

from __future__ import annotations

import math
from typing import Any

import pytest

from iii_trio.triggers.queue.lane import Lane
from iii_trio.triggers.queue.overruns import MIN_SAMPLES, Overruns
from tests.queue.ledgers import in_lane, lane_of


class Call:
    """The parts of an attempt that count here."""

    def __init__(self, lane: Lane, began: float) -> None:
        self.job = in_lane(lane, 1)
        self.began = began
        self.overran = False


def call(lane: Lane, began: float) -> Any:
    return Call(lane, began)


def succeed(overruns: Overruns, lane: Lane, seconds: float, count: int) -> None:
    for _ in range(count):
        overruns.succeeded(lane, seconds)


def test_twenty_calls_say_what_is_usual_and_ten_times_that_is_too_long() -> None:
    overruns, lane = Overruns(), lane_of()
    assert MIN_SAMPLES == 20
    succeed(overruns, lane, 0.5, 19)
    early = call(lane, 100.0)
    overruns.began(early)
    assert overruns.check_at == math.inf and overruns.check(1e9, [early]) == []
    succeed(overruns, lane, 0.5, 1)
    late = call(lane, 100.0)
    overruns.began(late)
    assert overruns.check_at == 105.0
    assert overruns.check(104.9, [late]) == [] and overruns.check_at == 105.0 and not late.overran
    assert overruns.check(105.0, [early, late]) == [(early, 0.5), (late, 0.5)]
    assert late.overran and lane.overruns == 2 and overruns.check_at == math.inf
    assert overruns.check(106.0, [early, late]) == [] and lane.overruns == 2, "once each"
    third = call(lane, 101.0)
    assert overruns.check(200.0, [early, third, late]) == [(third, 0.5)], "long after it became too long"


def test_the_next_look_is_at_the_first_that_may_be_too_long() -> None:
    overruns, lane, other = Overruns(), lane_of(), lane_of("other")
    succeed(overruns, lane, 0.5, 20)
    succeed(overruns, other, 0.2, 20)
    first, second, third = call(lane, 100.0), call(lane, 101.0), call(other, 100.5)
    for one in (second, first, third):
        overruns.began(one)
    assert overruns.check_at == 102.5
    overruns.began(call(lane, 102.0))
    assert overruns.check_at == 102.5, "a later one may become too long later"
    assert [one for one, _ in overruns.check(102.5, [first, second, third])] == [third]
    assert overruns.check_at == 105.0
    assert overruns.check(103.0, [second, first]) == [] and overruns.check_at == 105.0
    assert overruns.check(103.0, [second]) == [] and overruns.check_at == 106.0


def test_a_call_of_a_second_is_never_too_long() -> None:
    overruns, lane = Overruns(), lane_of()
    succeed(overruns, lane, 0.001, 20)
    one = call(lane, 100.0)
    assert overruns.check(100.9, [one]) == [] and [each for each, _ in overruns.check(101.0, [one])] == [one]


def test_the_usual_length_follows_every_sixteenth_call_and_the_last_hundred() -> None:
    overruns, lane = Overruns(), lane_of()
    succeed(overruns, lane, 1.0, 20)
    succeed(overruns, lane, 3.0, 11)
    assert overruns._limits[lane] == 10.0  # nobody sees it otherwise
    succeed(overruns, lane, 3.0, 1)
    assert overruns._limits[lane] == 10.0, "the median of 20 and 12 is still that of the 20"
    succeed(overruns, lane, 3.0, 15)
    assert overruns._limits[lane] == 10.0
    succeed(overruns, lane, 3.0, 1)
    assert overruns._limits[lane] == 30.0
    assert lane.sampled == 48
    succeed(overruns, lane, 5.0, 96)
    assert len(lane.durations) == 101 and overruns._limits[lane] == 50.0


@pytest.mark.parametrize("settings", [{"overrun_factor": None}, {"visibility_timeout_seconds": 9}])
def test_a_lane_without_a_factor_or_with_a_limit_has_no_usual_length(settings: dict[str, Any]) -> None:
    overruns, lane = Overruns(), lane_of(**settings)
    succeed(overruns, lane, 1.0, 40)
    assert overruns._limits == {}


def test_a_lane_that_is_gone_or_has_other_settings_is_forgotten() -> None:
    overruns, lane = Overruns(), lane_of(overrun_factor=4)
    succeed(overruns, lane, 1.0, 20)
    assert overruns._limits == {lane: 4.0}
    overruns.forget(lane)
    overruns.forget(lane)
    assert overruns._limits == {}
    overruns.succeeded(lane, 1.0)
    assert overruns._limits == {lane: 4.0}
    lane.settings = lane_of(overrun_factor=None).settings
    succeed(overruns, lane, 1.0, 11)
    assert overruns._limits == {}
