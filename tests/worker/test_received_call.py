"""How long a call waits for its handler, as its answer tells the engine that records it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from iii_trio.wire import InvokeFunction
from iii_trio.worker.received_call import ReceivedCall

SAMPLED = f"00-{'a' * 32}-{'b' * 16}-01"
NOT_SAMPLED = f"00-{'a' * 32}-{'b' * 16}-00"


class Clock(trio.abc.Clock):
    """A clock that the test sets."""

    now = 5.0

    def start_clock(self) -> None: ...

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0.0


class Session:
    supports_extensions = True


def call_at(came_at: float | None, clock: Clock | None) -> ReceivedCall:
    return ReceivedCall(Session(), InvokeFunction("f", "i"), None, came_at=came_at, clock=clock)  # type: ignore[arg-type]


@pytest.mark.parametrize(("came_at", "waited_us"), [(5.0, 0), (4.5, 500_000), (1.0, 4_000_000), (9.0, 0), (None, None)])
def test_the_wait_is_told_in_whole_microseconds_and_is_never_negative(
    came_at: float | None, waited_us: int | None
) -> None:
    call = call_at(came_at, Clock())
    call.start()
    assert call.waited_us == waited_us
    threaded = call_at(came_at, Clock())
    assert threaded.starting(lambda **arguments: (threaded.waited_us, arguments))(n=1) == (waited_us, {"n": 1})


def test_a_call_without_a_clock_is_not_measured() -> None:
    call = call_at(5.0, None)
    call.start()
    assert call.waited_us is None


@pytest.mark.parametrize(
    ("traceparent", "extensions", "watched"),
    [(SAMPLED, True, True), (SAMPLED, False, False), (NOT_SAMPLED, True, False), (None, True, False)],
)
async def test_a_wait_is_watched_if_the_engine_records_it_and_knows_the_field(
    traceparent: str | None, extensions: bool, watched: bool
) -> None:
    session: Any = Session()
    session.supports_extensions = extensions
    call = ReceivedCall(session, InvokeFunction("f", "i", traceparent=traceparent), None)
    call.watch_wait()
    assert (call.came_at is not None, call.clock is not None) == (watched, watched)
    handler = object()
    assert (call.starting(handler) is handler) is not watched  # type: ignore[arg-type]
