"""The wait for the end of a job, which goes on with the next engine (Q29)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock as Clock

from iii_trio import CallError, MisuseError, enqueue
from iii_trio.worker.jobs import wait_over

LOST = CallError("invocation_stopped", "the link to the engine was lost", origin="link")


async def wait_with(*answers: CallError | dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Wait while the engine answers so. Return the row, and how many answers are left."""
    left = list(answers)

    async def ask() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        answer = left.pop(0)
        if isinstance(answer, CallError):
            raise answer
        return answer

    return await wait_over(ask), len(left)


@pytest.mark.parametrize("state", ["done", "dead", "removed"])
async def test_Q29_a_wait_ends_with_its_job(autojump_clock: Clock, state: str) -> None:
    assert await wait_with({"state": state}, {"state": "done"}) == ({"state": state}, 1)
    assert trio.current_time() == 0


async def test_Q29_a_wait_goes_on_with_the_next_engine(autojump_clock: Clock) -> None:
    """An engine that drains answers at once, and a killed one does not."""
    began = trio.current_time()
    answers: list[CallError | dict[str, Any]] = [{"state": "running"}, {"state": "delayed"}, LOST, {"state": "waiting"}]
    assert await wait_with(*answers, {"state": "done"}) == ({"state": "done"}, 0)
    assert trio.current_time() - began > 0.5, "it does not ask as fast as it can"


async def test_Q29_what_the_engine_refuses_ends_the_wait(autojump_clock: Clock) -> None:
    with pytest.raises(CallError, match="no such job"):
        await wait_with(CallError("job_not_found", "no such job", origin="engine"), {"state": "done"})


@pytest.mark.parametrize("key", ["", "x" * 257])
def test_Q27_a_unique_key_that_no_engine_takes_is_refused_before_it_is_sent(key: str) -> None:
    with pytest.raises(MisuseError, match=f"`unique_key` has {len(key)} characters; give 1 to 256"):
        enqueue("mail", unique_key=key)
    assert enqueue("mail", unique_key="x" * 256).options == {"unique_key": "x" * 256}
