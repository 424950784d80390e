"""A recording may begin at any snapshot: each golden conversation is replayed from each of its inputs."""

from __future__ import annotations

from typing import Any

import pytest

import tests.helpers.conversation as conversation
from iii_trio.config import EngineConfig
from iii_trio.core.hub import Hub
from iii_trio.recorder.recorded_hub import RecordedHub
from iii_trio.recorder.replay import replay
from iii_trio.recorder.ring import Ring
from tests.helpers.conversation import counted_ids
from tests.helpers.recorded_world import read_again, recording_from, segments_of
from tests.helpers.script import golden_conversations, play


@pytest.mark.parametrize("script", golden_conversations())
def test_F4_a_replay_may_begin_at_any_snapshot(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hubs: list[RecordedHub] = []

    def recorded(config: EngineConfig, new_id: Any, **more: Any) -> Hub:
        hub = RecordedHub(config, counted_ids(), Ring(1 << 26), 0.0, **more)
        note = hub._note
        # Each input ends its segment. The short path of a usual message does not apply then.
        hub._ids = _Restless()

        def noted(kind: Any, now: float, *rest: Any) -> Any:
            effects = note(kind, now, *rest)
            hub.begin_segment(now)
            return effects

        hub._note = noted  # type: ignore[method-assign]
        hubs.append(hub)
        return hub

    monkeypatch.setattr(conversation, "Hub", recorded)
    play(script)
    (hub,) = hubs
    segments = segments_of(hub)
    for first in range(len(segments)):
        for keep_payloads in (False, True):
            recording = recording_from(segments[first:], keep_payloads=keep_payloads)
            assert [done.number for done in replay(read_again(recording))] == list(range(1, len(recording.steps) + 1))


class _Restless(list[str]):
    """Ids of an input, which are never missing."""

    def __bool__(self) -> bool:
        return True
