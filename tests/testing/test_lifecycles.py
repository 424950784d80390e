"""`check_lifecycle` finds each kind of flaw; the product's own lifecycles have none."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import pytest

from iii_trio.core import call, channel
from iii_trio.testing import check_lifecycle, draw_lifecycle, states_that_reach
from iii_trio.transport import connection_state
from iii_trio.worker import channel_end, worker_state


class State(Enum):
    NEW = auto()
    BUSY = auto()
    DONE = auto()
    FAILED = auto()


class Event(Enum):
    STARTED = auto()
    FINISHED = auto()
    CRASHED = auto()


SOUND: dict[State, dict[Event, State]] = {
    State.NEW: {Event.STARTED: State.BUSY},
    State.BUSY: {Event.FINISHED: State.DONE, Event.CRASHED: State.FAILED},
    State.DONE: {},
    State.FAILED: {},
}


def test_a_sound_lifecycle_passes() -> None:
    check_lifecycle(SOUND, State.NEW, State.DONE, {Event.CRASHED})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({State.FAILED: None}, "states without a row: FAILED"),
        ({State.BUSY: {Event.FINISHED: State.DONE}}, "events without an effect: CRASHED"),
        ({State.BUSY: {Event.FINISHED: State.DONE, Event.CRASHED: State.DONE}}, "states never reached: FAILED"),
        (
            {State.FAILED: {Event.CRASHED: State.FAILED}},
            "states that cannot end: FAILED",
        ),
        (
            {State.BUSY: {Event.STARTED: State.BUSY, Event.FINISHED: State.FAILED, Event.CRASHED: State.DONE}},
            "states that cannot end well without a mishap: BUSY, NEW",
        ),
    ],
)
def test_each_flaw_is_named(row: dict[State, Any], said: str) -> None:
    table = {state: edges for state, edges in {**SOUND, **row}.items() if edges is not None}
    with pytest.raises(AssertionError) as caught:
        check_lifecycle(table, State.NEW, State.DONE, {Event.CRASHED})
    assert str(caught.value) == said


def test_what_reaches_a_state_is_found_through_any_number_of_edges() -> None:
    assert states_that_reach(State.DONE, SOUND) == {State.NEW, State.BUSY, State.DONE}
    assert states_that_reach(State.DONE, SOUND, {Event.FINISHED}) == {State.DONE}


def test_a_lifecycle_is_drawn_as_a_state_diagram() -> None:
    assert draw_lifecycle(SOUND, State.NEW).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> NEW",
        "    NEW --> BUSY: started",
        "    BUSY --> DONE: finished",
        "    BUSY --> FAILED: crashed",
        "    DONE --> [*]",
        "    FAILED --> [*]",
    ]


C = channel.ChannelEvent


@pytest.mark.parametrize(
    ("table", "start", "end_well", "mishaps"),
    [
        pytest.param(
            channel.CHANNEL,
            channel.ChannelState.ALLOCATED,
            channel.ChannelState.COMPLETED,
            set(channel.ChannelEvent) - {C.WRITER_ATTACHED, C.READER_ATTACHED, C.WRITER_CLOSED, C.READER_FINISHED},
            id="channel",
        ),
        pytest.param(
            channel_end.CHANNEL_END,
            channel_end.ChannelEndState.FRESH,
            channel_end.ChannelEndState.CLOSED,
            set(),
            id="channel end",
        ),
        pytest.param(
            connection_state.CONNECTION,
            connection_state.ConnectionState.CONNECTING,
            connection_state.ConnectionState.CLOSED,
            {connection_state.ConnectionEvent.LOST},
            id="connection",
        ),
        pytest.param(
            call.CALL,
            call.CallState.WAITING,
            call.CallState.ANSWERED,
            set(call.CallEvent) - {call.CallEvent.ANSWER_CAME},
            id="call",
        ),
        pytest.param(
            worker_state.MEMBERSHIP,
            worker_state.WorkerState.CONNECTING,
            worker_state.WorkerState.CLOSED,
            {
                worker_state.WorkerEvent.LINK_LOST,
                worker_state.WorkerEvent.NOT_REACHED,
                worker_state.WorkerEvent.REJECTED,
            },
            id="membership",
        ),
    ],
)
def test_the_products_lifecycles_are_sound(table: Any, start: Any, end_well: Any, mishaps: Any) -> None:
    check_lifecycle(table, start, end_well, mishaps)
