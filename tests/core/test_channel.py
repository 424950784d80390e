"""The life of one channel: its table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.core.channel import CHANNEL, HALF_ATTACHED, Cue, Phase
from iii_trio.lifecycle import Lifecycle
from iii_trio.testing.lifecycles import check_lifecycle, phases_that_reach
from iii_trio.wire import Outcome

MISHAPS = {
    Cue.WRITER_ABORTED,
    Cue.WRITER_LOST,
    Cue.READER_CANCELLED,
    Cue.READER_LOST,
    Cue.OWNER_LEFT,
    Cue.NOBODY_CAME,
    Cue.ENGINE_CLOSED,
}


def test_the_table_is_whole() -> None:
    check_lifecycle(CHANNEL, Phase.ALLOCATED, Phase.COMPLETED, MISHAPS)


def test_C4_7_every_end_is_an_outcome_and_every_outcome_an_end() -> None:
    assert {phase.name for phase in Phase if not CHANNEL[phase]} == {outcome.name for outcome in Outcome}


def test_C4_2_a_truncated_stream_never_looks_complete() -> None:
    """Whoever is lost before the writer's close keeps the channel from ever completing."""
    for mishap in MISHAPS:
        for phase in Phase:
            after = CHANNEL[phase].get(mishap)
            if after is not None and after is not phase:
                assert after not in phases_that_reach(Phase.COMPLETED, CHANNEL), (phase, mishap)
    for needed in (Cue.WRITER_CLOSED, Cue.READER_FINISHED):
        assert Phase.ALLOCATED not in phases_that_reach(Phase.COMPLETED, CHANNEL, {needed})


def test_C2_3_only_half_attached_channels_expire() -> None:
    assert {phase for phase in Phase if Cue.NOBODY_CAME in CHANNEL[phase]} == HALF_ATTACHED


def test_C2_1_an_end_is_attached_at_most_once() -> None:
    for cue in (Cue.WRITER_ATTACHED, Cue.READER_ATTACHED):
        attachable = [phase for phase in Phase if cue in CHANNEL[phase]]
        for phase in attachable:
            for again in attachable:
                assert CHANNEL[phase][cue] not in phases_that_reach(again, CHANNEL), (cue, phase, again)


def test_C4_5_only_a_stream_closed_by_its_writer_outlives_its_owner() -> None:
    unmoved = {phase for phase in Phase if CHANNEL[phase].get(Cue.OWNER_LEFT) is phase}
    assert unmoved == {Phase.SEALED, Phase.DRAINING}
    assert all(Cue.OWNER_LEFT in row for row in CHANNEL.values() if row)


def test_C4_4_the_readers_end_counts_whenever_it_is_attached() -> None:
    attached = {Phase.AWAITING_WRITER, Phase.FLOWING, Phase.DRAINING}
    for cue in (Cue.READER_CANCELLED, Cue.READER_LOST):
        assert {phase for phase in Phase if cue in CHANNEL[phase]} == attached


@pytest.mark.parametrize(
    ("cues", "end"),
    [
        ([Cue.WRITER_ATTACHED, Cue.READER_ATTACHED, Cue.WRITER_CLOSED, Cue.READER_FINISHED], Phase.COMPLETED),
        ([Cue.READER_ATTACHED, Cue.WRITER_ATTACHED, Cue.WRITER_CLOSED, Cue.READER_FINISHED], Phase.COMPLETED),
        ([Cue.WRITER_ATTACHED, Cue.WRITER_CLOSED, Cue.READER_ATTACHED, Cue.READER_FINISHED], Phase.COMPLETED),
        ([Cue.WRITER_ATTACHED, Cue.WRITER_CLOSED, Cue.OWNER_LEFT, Cue.NOBODY_CAME], Phase.EXPIRED),
        ([Cue.WRITER_ATTACHED, Cue.READER_ATTACHED, Cue.WRITER_CLOSED, Cue.READER_LOST], Phase.READER_LOST),
        ([Cue.OWNER_LEFT], Phase.OWNER_LOST),
    ],
)
def test_walks_that_a_reader_would_ask_about(cues: list[Cue], end: Phase) -> None:
    life = Lifecycle(CHANNEL, Phase.ALLOCATED)
    for cue in cues:
        life.take(cue)
    assert life.phase is end
    assert life.over


@given(st.lists(st.sampled_from(Cue)))
def test_whatever_happens_there_is_at_most_one_outcome(cues: list[Cue]) -> None:
    life = Lifecycle(CHANNEL, Phase.ALLOCATED)
    closed = False
    for cue in cues:
        if life.over:
            assert not any(life.accepts(each) for each in Cue)
        elif life.accepts(cue):
            life.take(cue)
            closed |= cue is Cue.WRITER_CLOSED
    assert closed or life.phase is not Phase.COMPLETED
