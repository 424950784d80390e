"""The tables of the core: whole, and no dead ends in them."""

from __future__ import annotations

import pytest

from iii_trio.core import binding, call, session
from iii_trio.errors import IllegalTransition
from iii_trio.state_machine import StateMachine
from iii_trio.testing.lifecycles import check_lifecycle


def test_a_binding_can_always_end() -> None:
    check_lifecycle(
        binding.BINDING,
        binding.BindingState.PARKED,
        end_well=binding.BindingState.WITHDRAWN,
        mishaps={binding.BindingEvent.REFUSED, binding.BindingEvent.PROVIDER_LEFT},
    )


def test_a_call_is_answered_or_fails_once() -> None:
    check_lifecycle(
        call.CALL,
        call.CallState.WAITING,
        end_well=call.CallState.ANSWERED,
        mishaps={call.CallEvent.CALLEE_LEFT, call.CallEvent.CALLEE_IS_FULL},
    )
    assert all(not row for phase, row in call.CALL.items() if phase is not call.CallState.WAITING)


def test_a_session_can_always_go() -> None:
    check_lifecycle(
        session.SESSION,
        session.SessionState.UNNAMED,
        end_well=session.SessionState.GONE,
        mishaps={session.SessionEvent.WAITED_LONG_ENOUGH},
    )
    assert all(
        session.SessionEvent.LEFT in row
        for phase, row in session.SESSION.items()
        if phase is not session.SessionState.GONE
    )


def test_an_event_without_a_transition_changes_nothing() -> None:
    state = StateMachine(binding.BINDING, binding.BindingState.PARKED)
    with pytest.raises(IllegalTransition, match=r"PARKED has no transition for .*ACCEPTED"):
        state.advance(binding.BindingEvent.ACCEPTED)
    assert state.current is binding.BindingState.PARKED


def test_a_refused_binding_can_be_offered_again() -> None:
    state = StateMachine(binding.BINDING, binding.BindingState.PARKED)
    for cue in (
        binding.BindingEvent.OFFERED,
        binding.BindingEvent.REFUSED,
        binding.BindingEvent.OFFERED,
        binding.BindingEvent.ACCEPTED,
    ):
        state.advance(cue)
    assert state.current is binding.BindingState.BOUND
    assert state.advance(binding.BindingEvent.WITHDRAWN) is binding.BindingState.WITHDRAWN
    assert state.is_final
