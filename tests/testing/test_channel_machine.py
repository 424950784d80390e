"""Any script of channel operations shows what the model allows, over memory and sockets; defects are found and shrunk."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from iii_trio.core.channel import CHANNEL, ChannelEvent, ChannelState
from iii_trio.testing.channel_machine import ChannelMachine, play_script
from iii_trio.testing.channel_model import Step

FEW = settings(
    derandomize=True, max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class OverMemory(ChannelMachine):
    ways = ("memory",)


class OverSockets(ChannelMachine):
    ways = ("network",)


@pytest.mark.parametrize("machine", [OverMemory, OverSockets, ChannelMachine])
def test_any_script_shows_what_the_model_allows(machine: type[ChannelMachine]) -> None:
    run_state_machine_as_test(machine, settings=FEW)


@pytest.mark.slow
def test_a_planted_defect_is_found_and_shrunk_to_a_short_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHANNEL[ChannelState.AWAITING_READER], ChannelEvent.WRITER_ABORTED, ChannelState.COMPLETED)  # type: ignore[arg-type]
    scripts: list[list[Step]] = []

    class Watched(OverMemory):
        def teardown(self) -> None:
            try:
                super().teardown()
            except Exception:
                scripts.append(self.steps)
                raise

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Watched,
            settings=settings(FEW, max_examples=100, stateful_step_count=4, report_multiple_bugs=False),
        )
    shortest = min(scripts, key=len)
    assert [step.do for step in shortest][-2:] == ["create", "abort"]
    assert len(shortest) <= 3


def test_a_script_can_be_played_by_itself() -> None:
    script = [
        Step("create", worker=0, writer=1, reader=2),
        Step("send", 0, item=0),
        Step("receive", 0),
        Step("close", 0),
    ]
    history = play_script(script, ("memory", "network", "network"))
    assert history.seconds == 0.0
    assert [str(channel.outcome) for channel in history.ended] == ["completed"]
    # By its transcript each step happened once, by the worker that the script names.
    said = [line.partition(" ")[2] for line in str(history).splitlines() if " put " in line or " took " in line]
    assert [line.split()[:2] for line in said] == [["w1", "put"], ["w2", "took"]]


def test_a_script_that_shows_what_the_model_forbids_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHANNEL[ChannelState.AWAITING_READER], ChannelEvent.WRITER_ABORTED, ChannelState.COMPLETED)  # type: ignore[arg-type]
    script = [Step("create", worker=0, writer=1, reader=2), Step("abort", 0)]
    with pytest.raises(AssertionError, match="channel 0 is completed"):
        play_script(script, ("memory", "memory", "memory"))
