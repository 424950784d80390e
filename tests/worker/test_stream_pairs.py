"""Two channels as one stream: a close ends both directions, and not for long once it is cancelled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from iii_trio.worker.stream_pairs import Duplex


@attrs.define(eq=False)
class Stream:
    """A stream whose close takes so many seconds."""

    seconds: float = 0.0
    closed: bool = False
    raises: Exception | None = None

    async def aclose(self) -> None:
        await trio.sleep(self.seconds)
        if self.raises is not None:
            raise self.raises
        self.closed = True


def pair(incoming: Stream, outgoing: Stream) -> Any:
    ends: Any = SimpleNamespace(stream=incoming), SimpleNamespace(stream=outgoing)
    return Duplex(*ends)


@pytest.mark.parametrize(("seconds", "closed"), [(0.0, True), (0.75, True), (1.25, False), (60.0, False)])
async def test_a_cancelled_close_tells_the_incoming_side_within_a_second(
    seconds: float, closed: bool, autojump_clock: trio.testing.MockClock
) -> None:
    incoming, outgoing = Stream(seconds), Stream(60.0)
    with trio.move_on_after(2.0) as scope:
        await pair(incoming, outgoing).aclose()
    assert scope.cancelled_caught and (incoming.closed, outgoing.closed) == (closed, False)
    assert trio.current_time() == 2.0 + min(seconds, 1.0)


@pytest.mark.parametrize("error", [None, ValueError("broken")])
async def test_a_close_ends_both_directions_even_if_the_first_fails(error: Exception | None) -> None:
    incoming, outgoing = Stream(), Stream(raises=error)
    if error is None:
        await pair(incoming, outgoing).aclose()
    else:
        with pytest.raises(ValueError, match="broken"):
            await pair(incoming, outgoing).aclose()
    assert (incoming.closed, outgoing.closed) == (True, error is None)
