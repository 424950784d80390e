"""Recordings as histories: judged by the promises of the core, and shrunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pytest

import tests.helpers.conversation as conversation
from iii_trio.config import EngineConfig
from iii_trio.core import calls, channels, hub, registry
from iii_trio.core.call import CallEvent
from iii_trio.core.effects import Send
from iii_trio.recorder.recorded_hub import RecordedHub
from iii_trio.recorder.ring import Ring
from iii_trio.testing import BrokenPromise, RecordedHistory, draw_conversation, from_recording, simulate_conversation
from iii_trio.wire import Direction
from tests.helpers.conversation import Peer, counted_ids
from tests.helpers.recorded_world import Recorded, encoded, recorded_hubs, recording_of
from tests.helpers.script import golden_conversations, play


@pytest.mark.parametrize("script", golden_conversations())
def test_a_golden_conversation_keeps_every_promise(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hubs: list[RecordedHub] = []

    def recorded(config: EngineConfig, new_id: Any, **more: Any) -> RecordedHub:
        hubs.append(RecordedHub(config, counted_ids(), Ring(1 << 26), 0.0, **more))
        return hubs[-1]

    monkeypatch.setattr(conversation, "Hub", recorded)
    play(script)
    RecordedHistory(recording_of(hubs[0])).check()


def test_simulated_histories_keep_every_promise() -> None:
    for seed in range(8):
        with recorded_hubs() as hubs:
            simulate_conversation(draw_conversation(Random(seed)), seed)
        for each in hubs:
            RecordedHistory(recording_of(each)).check()


# --- planted defects, each with the promise that it breaks


def busy() -> Recorded:
    """Return a conversation of a few workers that ends with the loss of one."""
    talk = Recorded()
    talk.peers[talk.hub.state.id] = Peer(talk, talk.connect().session)
    a, b, c = talk.join("a"), talk.join("b"), talk.join("c")
    for peer in (a, b, c):
        peer.register(peer.session.info.name, features=["iii-trio.v1"])
    a.offer("f")
    for number in range(10, 16):
        talk.call(b, a, {"n": number}, number)
    ref = b.ask("engine::channels::create", {}, 2)["writer"]
    talk.hub.attach(ref["channel_id"], ref["access_key"], Direction.WRITE, talk.now, a.session)
    b.call("f", {"n": 1}, 3)
    talk.now = 5.0
    a.leave("its connection was reset")
    c.ask("engine::workers::list", {}, 4)
    return talk


def forget_callers(state: Any, session: Any, reason: str, *, left: bool = False) -> None:
    for call in list(state.calls.given_to(session).values()):
        state.calls.leave(call, CallEvent.CALLEE_LEFT)


def send_to_nobody(state: Any, session: Any, reason: str, *, left: bool = False) -> None:
    state.emit(Send(state.id, b'{"type":"ping"}'))


def keep_functions(self: Any, owner: Any) -> list[Any]:
    self.release_name(owner)
    return []


def fail(*_: Any, **__: Any) -> None:
    raise ZeroDivisionError


DEFECTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "a call is answered": lambda: mock.patch.object(calls, "callee_left", forget_callers),
    "messages go to sessions": lambda: mock.patch.object(calls, "callee_left", send_to_nobody),
    "nothing is left of a session": lambda: mock.patch.object(registry.Registry, "remove_all_of", keep_functions),
    "all are told the outcome": lambda: mock.patch.object(channels, "FEATURE", "no worker has it"),
    "no error of its own": lambda: mock.patch.dict(hub._HANDLERS, {hub.InvocationResult: fail}),
}


@pytest.fixture(params=DEFECTS)
def defect(request: pytest.FixtureRequest) -> Iterator[str]:
    with DEFECTS[request.param]():
        yield request.param


def test_a_planted_defect_is_found_in_a_recording_and_shrunk(defect: str, tmp_path: Path) -> None:
    history = from_recording(encoded(busy().recording()))
    broken = history.broken_promise()
    assert broken is not None and broken.promise == defect
    with pytest.raises(BrokenPromise) as raised:
        history.check()
    assert raised.value.step == broken.step and str(raised.value).startswith(f"step {broken.step}: ")
    small = history.shrink()
    assert len(small) <= 6 and len(str(small).splitlines()) >= len(small)
    small.save(tmp_path / "small.recording")
    again = from_recording(tmp_path / "small.recording").broken_promise()
    assert again is not None and again.promise == defect
    # No step can go.
    for place in range(len(small)):
        fewer = small.keep([each for each in range(len(small)) if each != place]).broken_promise()
        assert fewer is None or fewer.promise != defect


def test_the_same_history_without_a_defect_keeps_every_promise() -> None:
    history = from_recording(encoded(busy().recording()))
    history.check()
    with pytest.raises(ValueError, match="breaks no promise"):
        history.shrink()
    with pytest.raises(ValueError, match="does not fail"):
        history.shrink(lambda one: False)


def test_a_history_is_shrunk_by_a_judge_of_ones_own() -> None:
    history = from_recording(encoded(busy().recording()))

    def a_worker_is_named_c(one: RecordedHistory) -> bool:
        return "c (" in str(one)

    assert len(history.shrink(a_worker_is_named_c)) == 2


def test_a_part_of_a_history_has_places_that_there_are() -> None:
    history = RecordedHistory(busy().recording())
    assert len(history.keep([0, len(history) - 1])) == 2
    for place in (-1, len(history)):
        with pytest.raises(ValueError) as caught:
            history.keep([0, place])
        assert str(caught.value) == (
            f"the history has no step at the place {place}: it has the places 0 to {len(history) - 1}"
        )
    with pytest.raises(ValueError, match="no step at the place 0: it has none"):
        history.keep([]).keep([0])
