"""The tables of the core: whole, and no dead ends in them."""

from __future__ import annotations

import pytest

from iii_trio.core import binding, invocation, session
from iii_trio.errors import IllegalCue
from iii_trio.lifecycle import Lifecycle
from iii_trio.testing.lifecycles import check_lifecycle


def test_a_binding_can_always_end() -> None:
    check_lifecycle(
        binding.BINDING,
        binding.Phase.PARKED,
        end_well=binding.Phase.WITHDRAWN,
        mishaps={binding.Cue.REFUSED, binding.Cue.PROVIDER_LEFT},
    )


def test_a_call_is_answered_or_fails_once() -> None:
    check_lifecycle(
        invocation.INVOCATION,
        invocation.Phase.WAITING,
        end_well=invocation.Phase.ANSWERED,
        mishaps={invocation.Cue.CALLEE_LEFT, invocation.Cue.CALLEE_IS_FULL},
    )
    assert all(not row for phase, row in invocation.INVOCATION.items() if phase is not invocation.Phase.WAITING)


def test_a_session_can_always_go() -> None:
    check_lifecycle(
        session.SESSION,
        session.Phase.UNNAMED,
        end_well=session.Phase.GONE,
        mishaps={session.Cue.WAITED_LONG_ENOUGH},
    )
    assert all(session.Cue.LEFT in row for phase, row in session.SESSION.items() if phase is not session.Phase.GONE)


def test_a_cue_without_an_edge_changes_nothing() -> None:
    life = Lifecycle(binding.BINDING, binding.Phase.PARKED)
    with pytest.raises(IllegalCue, match=r"PARKED has no edge for .*ACCEPTED"):
        life.take(binding.Cue.ACCEPTED)
    assert life.phase is binding.Phase.PARKED


def test_a_refused_binding_can_be_offered_again() -> None:
    life = Lifecycle(binding.BINDING, binding.Phase.PARKED)
    for cue in (binding.Cue.OFFERED, binding.Cue.REFUSED, binding.Cue.OFFERED, binding.Cue.ACCEPTED):
        life.take(cue)
    assert life.phase is binding.Phase.BOUND
    assert life.take(binding.Cue.WITHDRAWN) is binding.Phase.WITHDRAWN
    assert life.over
