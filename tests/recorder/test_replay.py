"""Recording and replay of whole simulated histories."""

from __future__ import annotations

from random import Random
from unittest import mock

import pytest

from iii_trio.recorder import recorded_hub
from iii_trio.recorder.replay import replay
from iii_trio.testing import draw_conversation, simulate_conversation
from tests.helpers.recorded_world import read_again, recorded_hubs, recording_from, segments_of


def check_seeds(seeds: range, entry_bytes: int = 384) -> tuple[int, int]:
    """Record and replay the histories of these seeds. Return the numbers of steps done and of snapshots begun with.

    Inputs that count as large make many segments, and a replay begins at each of them.
    """
    steps = snapshots = 0
    for seed in seeds:
        with recorded_hubs(1 << 24) as hubs, mock.patch.object(recorded_hub, "ENTRY_BYTES", entry_bytes):
            simulate_conversation(draw_conversation(Random(seed)), seed)
        for hub in hubs:
            assert not hub.fault
            segments = segments_of(hub)
            for first in range(len(segments)):
                # Payloads are kept in every second one.
                recording = recording_from(segments[first:], keep_payloads=first % 2 == 1)
                steps += sum(1 for _ in replay(read_again(recording)))
                snapshots += 1
    return steps, snapshots


def test_F3_a_replay_decides_as_the_engine_did() -> None:
    steps, snapshots = check_seeds(range(6))
    assert steps > 6 * 20 and snapshots >= 6


def test_F4_a_replay_of_a_history_may_begin_at_any_snapshot() -> None:
    steps, snapshots = check_seeds(range(6, 12), 1 << 19)
    assert steps > 6 * 10 and snapshots >= 6 * 2


@pytest.mark.slow
def test_F3_a_thousand_histories_are_replayed_alike() -> None:
    check_seeds(range(1000, 1700))
    _, snapshots = check_seeds(range(1700, 2000), 1 << 19)
    assert snapshots > 300 * 2
