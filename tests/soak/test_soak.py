"""The long run passes on the product as it is, and finds what is planted in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from iii_trio.core.channel import CHANNEL, ChannelEvent, ChannelState
from iii_trio.core.channels import Channels
from iii_trio.transport.pipe import Pipe
from tests.soak.__main__ import main
from tests.soak.simulated import soak

Patch = pytest.MonkeyPatch


def test_no_promise_is_broken() -> None:
    tally = soak(range(100))
    assert tally.broken is None, tally.problem
    assert tally.histories == 100


def _an_abort_looks_complete(patch: Patch) -> None:
    for phase in (ChannelState.FLOWING, ChannelState.AWAITING_READER):
        patch.setitem(CHANNEL[phase], ChannelEvent.WRITER_ABORTED, ChannelState.COMPLETED)  # type: ignore[arg-type]


def _a_lost_writer_looks_complete(patch: Patch) -> None:
    patch.setitem(CHANNEL[ChannelState.FLOWING], ChannelEvent.WRITER_LOST, ChannelState.COMPLETED)  # type: ignore[arg-type]


def _room_is_not_told(patch: Patch) -> None:
    def done(pipe: Pipe, chunk: object) -> None:
        unpark = pipe._room
        pipe._room = type(pipe._room)()
        real_done(pipe, chunk)  # type: ignore[arg-type]
        pipe._room = unpark

    real_done = Pipe.done
    patch.setattr(Pipe, "done", done)


def _an_item_is_put_twice(patch: Patch) -> None:
    def push_item(pipe: Pipe, item: bytes | str) -> None:
        real_push_item(pipe, item)
        if pipe.items_waiting == 3:
            real_push_item(pipe, item)

    real_push_item = Pipe.push_item
    patch.setattr(Pipe, "push_item", push_item)


def _what_an_owner_leaves_stays(patch: Patch) -> None:
    patch.setitem(CHANNEL[ChannelState.FLOWING], ChannelEvent.OWNER_LEFT, ChannelState.FLOWING)  # type: ignore[arg-type]
    patch.setitem(CHANNEL[ChannelState.ALLOCATED], ChannelEvent.OWNER_LEFT, ChannelState.ALLOCATED)  # type: ignore[arg-type]


def _nothing_expires(patch: Patch) -> None:
    patch.setattr(Channels, "next_due", lambda self: None)


DEFECTS = [
    _an_abort_looks_complete,
    _a_lost_writer_looks_complete,
    _room_is_not_told,
    _an_item_is_put_twice,
    _what_an_owner_leaves_stays,
    _nothing_expires,
]


@pytest.mark.slow
@pytest.mark.parametrize("plant", DEFECTS, ids=lambda plant: plant.__name__.strip("_"))
def test_a_planted_defect_is_found(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    tally = soak(range(400))
    assert tally.broken is not None
    assert "seed" in tally.problem


def test_the_command_prints_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "5", "--jobs", "1"]) == 0
    assert "5 histories" in capsys.readouterr().out


def test_a_seed_is_played_again_with_its_transcript(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--replay", "3"]) == 0
    assert "the engine runs" in capsys.readouterr().out
