"""The torture, and that it would notice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.torture import Plan, Tally, play_round
from tests.torture.plan import ENDS_OF_THE_ENGINE, MISHAPS, Conduct
from tests.torture.tally import Line, judge

WELL: Mapping[str, Conduct] = {"plain/p/1": "well", "fifo/f/1": "well", "fifo/f/2": "well"}
STORY = [
    "1 began plain/p/1 1", "2 began fifo/f/1 1", "3 done plain/p/1 1", "4 done fifo/f/1 1", "5 began fifo/f/2 1",
    "6 done fifo/f/2 1",
]  # fmt: skip


def judged(
    *lines: str, wanted: Mapping[str, Conduct] = WELL, promised: set[str] | None = None, dead: tuple[str, ...] = ()
) -> Tally:
    return judge(wanted, set(wanted) if promised is None else promised, set(dead), [Line.parse(line) for line in lines])


def test_a_story_without_a_fault_has_none() -> None:
    tally = judged(*STORY)
    assert (tally.problems, tally.promised, tally.done, tally.redeliveries) == ([], 3, 3, 0)


def test_a_job_that_is_done_again_is_a_redelivery_and_no_fault() -> None:
    tally = judged(*STORY, "7 began fifo/f/2 1", "8 done fifo/f/2 1")
    assert (tally.problems, tally.redeliveries) == ([], 1)


def test_what_nobody_has_a_receipt_for_may_be_lost() -> None:
    assert judged(*STORY[:4], promised={"plain/p/1", "fifo/f/1"}).problems == []


def test_failures_are_no_redeliveries_and_lead_to_a_dead_letter() -> None:
    wanted: Mapping[str, Conduct] = {"plain/p/1": "doomed", "plain/p/2": "flaky"}
    lines = ["1 began plain/p/2 1", "2 failed plain/p/2 1", "3 began plain/p/2 2", "4 done plain/p/2 2"]
    lines += [f"{at + 4} {what} plain/p/1 {at}" for at in (1, 2, 3) for what in ("began", "failed")]
    tally = judged(*lines, wanted=wanted, dead=("plain/p/1",))
    assert (tally.problems, tally.redeliveries) == ([], 0)


@pytest.mark.parametrize(
    ("lines", "dead", "problem"),
    [
        (STORY[:4], (), "fifo/f/2 was promised, and never done"),
        ([*STORY, "7 began plain/p/9 1"], (), "plain/p/9 was begun, and nobody wanted it"),
        ([*STORY, "7 began plain/p/1 2"], (), "plain/p/1 was begun as attempt 2 after 0 failures"),
        ([*STORY, "7 began fifo/f/1 1"], (), "fifo/f/1 was begun after 2 of its group"),
        (["1 began fifo/f/2 1", *STORY], (), "fifo/f/2 was begun before 1 of its group had ended"),
        ([*STORY[:3], "4 began fifo/f/2 1", "5 done fifo/f/1 1"], (), "fifo/f/2 was begun before 1 of its group had ended"),
        (STORY, ("plain/p/1",), "plain/p/1 is a dead letter, and has done nothing to be one"),
    ],
)  # fmt: skip
def test_each_broken_promise_is_told(lines: list[str], dead: tuple[str, ...], problem: str) -> None:
    assert problem in judged(*lines, dead=dead).problems


def test_a_dead_letter_that_had_attempts_left_is_told_and_one_that_is_missing() -> None:
    wanted: Mapping[str, Conduct] = {"plain/p/1": "doomed"}
    lines = ["1 began plain/p/1 1", "2 failed plain/p/1 1"]
    assert (
        judged(*lines, wanted=wanted, dead=("plain/p/1",)).problems[-1] == "plain/p/1 is a dead letter after 1 failures"
    )
    lines = [f"{at} {what} plain/p/1 {at}" for at in (1, 2, 3) for what in ("began", "failed")]
    assert judged(*lines, wanted=wanted).problems == ["plain/p/1 can never succeed, and is not a dead letter"]


def test_plans_repeat_and_are_of_all_kinds() -> None:
    plans = [Plan.draw(seed) for seed in range(200)]
    assert plans == [Plan.draw(seed) for seed in range(200)]
    deeds = {deed for plan in plans for _, deed in plan.deeds}
    assert deeds == {*ENDS_OF_THE_ENGINE, "kill a", "kill b", "leave a", "leave b", "fill disk"}
    assert {plan.lost_allowed for plan in plans} == {1, 3, 1000}
    assert {plan.mishap for plan in plans} == set(MISHAPS)
    for plan in plans:
        if plan.mishap in ("leaves", "poison"):
            assert not any(deed.startswith("kill ") and deed != "kill engine" for _, deed in plan.deeds)


@pytest.mark.slow
async def test_Q2_ten_rounds_of_kills_break_no_promise(tmp_path: Path) -> None:
    killed = 0
    for seed in range(10):
        home = tmp_path / str(seed)
        home.mkdir()
        played = await play_round(Plan.draw(seed), home)
        assert not played.tally.problems, played.summary
        assert played.tally.promised > 0
        killed += sum(deed.startswith("kill") for _, deed in played.plan.deeds)
    assert killed > 10


def test_a_poisonous_job_is_to_be_a_dead_letter_and_a_damaged_one_is_excused() -> None:
    wanted: Mapping[str, Conduct] = {"plain/poison/1": "poison", "fifo/f/1": "well", "fifo/f/2": "well"}
    lines = [Line.parse(line) for line in ("1 began plain/poison/1 1", "2 began fifo/f/2 1", "3 done fifo/f/2 1")]
    everything = set(wanted)
    assert judge(wanted, everything, {"plain/poison/1"}, lines, {"fifo/f/1"}).problems == []
    assert judge(wanted, everything, set(), lines, {"fifo/f/1"}).problems == [
        "plain/poison/1 was promised, and never done"
    ]
    assert judge(wanted, everything, {"plain/poison/1"}, lines).problems == [
        "fifo/f/2 was begun before 1 of its group had ended",
        "fifo/f/1 was promised, and never done",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 2 * len(MISHAPS), 2))
async def test_Q14_each_mishap_breaks_no_promise(seed: int, tmp_path: Path) -> None:
    plan = Plan.draw(seed)
    assert plan.mishap == MISHAPS[seed // 2]
    played = await play_round(plan, tmp_path)
    assert not played.tally.problems, played.summary
    assert played.tally.promised > 0
