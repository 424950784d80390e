"""The life of one channel: its table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.core.channel import CHANNEL, HALF_ATTACHED, ChannelEvent, ChannelState
from iii_trio.state_machine import StateMachine
from iii_trio.testing.lifecycles import check_lifecycle, states_that_reach
from iii_trio.wire import Outcome

MISHAPS = {
    ChannelEvent.WRITER_ABORTED,
    ChannelEvent.WRITER_LOST,
    ChannelEvent.READER_CANCELLED,
    ChannelEvent.READER_LOST,
    ChannelEvent.OWNER_LEFT,
    ChannelEvent.NOBODY_CAME,
    ChannelEvent.ENGINE_CLOSED,
}


def test_the_table_is_whole() -> None:
    check_lifecycle(CHANNEL, ChannelState.ALLOCATED, ChannelState.COMPLETED, MISHAPS)


def test_C4_7_every_end_is_an_outcome_and_every_outcome_an_end() -> None:
    assert {phase.name for phase in ChannelState if not CHANNEL[phase]} == {outcome.name for outcome in Outcome}


def test_C4_2_a_truncated_stream_never_looks_complete() -> None:
    """Whoever is lost before the writer's close keeps the channel from ever completing."""
    for mishap in MISHAPS:
        for phase in ChannelState:
            after = CHANNEL[phase].get(mishap)
            if after is not None and after is not phase:
                assert after not in states_that_reach(ChannelState.COMPLETED, CHANNEL), (phase, mishap)
    for needed in (ChannelEvent.WRITER_CLOSED, ChannelEvent.READER_FINISHED):
        assert ChannelState.ALLOCATED not in states_that_reach(ChannelState.COMPLETED, CHANNEL, {needed})


def test_C2_3_only_half_attached_channels_expire() -> None:
    assert {phase for phase in ChannelState if ChannelEvent.NOBODY_CAME in CHANNEL[phase]} == HALF_ATTACHED


def test_C2_1_an_end_is_attached_at_most_once() -> None:
    for cue in (ChannelEvent.WRITER_ATTACHED, ChannelEvent.READER_ATTACHED):
        attachable = [phase for phase in ChannelState if cue in CHANNEL[phase]]
        for phase in attachable:
            for again in attachable:
                assert CHANNEL[phase][cue] not in states_that_reach(again, CHANNEL), (cue, phase, again)


def test_C4_5_only_a_stream_closed_by_its_writer_outlives_its_owner() -> None:
    unmoved = {phase for phase in ChannelState if CHANNEL[phase].get(ChannelEvent.OWNER_LEFT) is phase}
    assert unmoved == {ChannelState.SEALED, ChannelState.DRAINING}
    assert all(ChannelEvent.OWNER_LEFT in row for row in CHANNEL.values() if row)


def test_C4_4_the_readers_end_counts_whenever_it_is_attached() -> None:
    attached = {ChannelState.AWAITING_WRITER, ChannelState.FLOWING, ChannelState.DRAINING}
    for cue in (ChannelEvent.READER_CANCELLED, ChannelEvent.READER_LOST):
        assert {phase for phase in ChannelState if cue in CHANNEL[phase]} == attached


@pytest.mark.parametrize(
    ("cues", "end"),
    [
        (
            [
                ChannelEvent.WRITER_ATTACHED,
                ChannelEvent.READER_ATTACHED,
                ChannelEvent.WRITER_CLOSED,
                ChannelEvent.READER_FINISHED,
            ],
            ChannelState.COMPLETED,
        ),
        (
            [
                ChannelEvent.READER_ATTACHED,
                ChannelEvent.WRITER_ATTACHED,
                ChannelEvent.WRITER_CLOSED,
                ChannelEvent.READER_FINISHED,
            ],
            ChannelState.COMPLETED,
        ),
        (
            [
                ChannelEvent.WRITER_ATTACHED,
                ChannelEvent.WRITER_CLOSED,
                ChannelEvent.READER_ATTACHED,
                ChannelEvent.READER_FINISHED,
            ],
            ChannelState.COMPLETED,
        ),
        (
            [
                ChannelEvent.WRITER_ATTACHED,
                ChannelEvent.WRITER_CLOSED,
                ChannelEvent.OWNER_LEFT,
                ChannelEvent.NOBODY_CAME,
            ],
            ChannelState.EXPIRED,
        ),
        (
            [
                ChannelEvent.WRITER_ATTACHED,
                ChannelEvent.READER_ATTACHED,
                ChannelEvent.WRITER_CLOSED,
                ChannelEvent.READER_LOST,
            ],
            ChannelState.READER_LOST,
        ),
        ([ChannelEvent.OWNER_LEFT], ChannelState.OWNER_LOST),
    ],
)
def test_walks_that_a_reader_would_ask_about(cues: list[ChannelEvent], end: ChannelState) -> None:
    state = StateMachine(CHANNEL, ChannelState.ALLOCATED)
    for cue in cues:
        state.advance(cue)
    assert state.current is end
    assert state.is_final


@given(st.lists(st.sampled_from(ChannelEvent)))
def test_whatever_happens_there_is_at_most_one_outcome(cues: list[ChannelEvent]) -> None:
    state = StateMachine(CHANNEL, ChannelState.ALLOCATED)
    closed = False
    for cue in cues:
        if state.is_final:
            assert not any(state.can(each) for each in ChannelEvent)
        elif state.can(cue):
            state.advance(cue)
            closed |= cue is ChannelEvent.WRITER_CLOSED
    assert closed or state.current is not ChannelState.COMPLETED
