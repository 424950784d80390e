"""What `enqueue --wait` and `job --wait` say of a job that is not over when their time is."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
from trio.testing import MockClock as Clock

import iii_trio
from iii_trio.cli.calling import Deadline
from iii_trio.cli.exits import Exit, Failure
from iii_trio.cli.jobs import hint_at_whole_id, wait_for
from iii_trio.config import EngineConfig
from iii_trio.triggers.queue.settings import QueueConfig, QueueSettings


async def why(worker: iii_trio.Worker, receipt: iii_trio.Receipt) -> str:
    """Wait for a job that does not end, and return what stands between the time and the option."""
    with pytest.raises(Failure) as late:
        await wait_for(worker, receipt.id, Deadline(3.0))
    assert late.value.exit_code is Exit.TIMED_OUT
    before, after = f"job {receipt.id} was not over within 3 s", "; see --timeout"
    text = str(late.value)
    assert text.startswith(before) and text.endswith(after)
    return text.removeprefix(before).removesuffix(after)


async def test_what_the_job_waits_for_is_said(autojump_clock: Clock) -> None:
    queues = {"mail": QueueSettings(concurrency=1, backoff_seconds=600)}
    config = EngineConfig(modules={"queue": QueueConfig(queues=queues)})
    async with iii_trio.open_engine(config) as engine, engine.open_worker("post") as worker:

        @worker.function("mail::slow")
        async def slow() -> None:
            await trio.sleep_forever()

        @worker.function("mail::broken")
        async def broken() -> None:
            raise iii_trio.CallError("no_such_address", "nobody is there")

        await worker.wait_registered()

        async def job(function: str, queue: str = "default", **options: Any) -> iii_trio.Receipt:
            return await worker.trigger(function, {}, action=iii_trio.enqueue(queue), **options)

        missing = ": it waits for the function misspelt::fn, which no worker offers"
        assert await why(worker, await job("misspelt::fn")) == missing
        elsewhere = ": it waits for the function misspelt::fn in namespace shop, which no worker offers"
        assert await why(worker, await job("misspelt::fn", namespace="shop")) == elsewhere
        rests = await why(worker, await job("mail::broken", "mail"))
        assert re.fullmatch(r": it is to be called in \d+ min after 1 failed call", rests)  # a pause has some jitter
        assert await why(worker, await job("mail::slow", "mail")) == ": mail::slow still runs"
        waits = await job("mail::slow", "mail")
        assert await why(worker, waits) == ": it waits for its turn"
        await iii_trio.Queues(worker).pause("mail")
        paused = ": queue mail is paused; `iii-trio resume mail` starts its jobs again"
        assert await why(worker, waits) == paused


async def test_an_engine_that_does_not_tell_why_adds_no_more_than_a_moment(autojump_clock: Clock) -> None:
    config = EngineConfig(modules={"queue": None})
    async with iii_trio.open_engine(config) as engine, engine.open_worker("queue") as worker:

        @worker.function("engine::queue::wait")
        @worker.function("engine::queue::job")
        async def never() -> None:
            await trio.sleep_forever()

        await worker.wait_registered()
        began = trio.current_time()
        assert await why(worker, iii_trio.Receipt("6f1c9a52")) == ""
        assert 3 <= trio.current_time() - began < 6


@pytest.mark.parametrize(
    ("given", "is_hinted"),
    [
        ("6ecb4f87", True), ("6ecb4f87…", True), ("6f1c9a52-6f0e-4d8a-9a53-0c6f0f1c3d77", False), ("mine", False),
    ],
)  # fmt: skip
def test_the_beginning_of_an_id_is_no_id(given: str, is_hinted: bool) -> None:
    with pytest.raises(iii_trio.CallError) as refused, hint_at_whole_id(given):
        raise iii_trio.CallError("job_not_found", "there is no such job")
    hint = "; give the whole id, of 36 characters, as `iii-trio jobs QUEUE --json` shows it"
    assert refused.value.message == "there is no such job" + (hint if is_hinted else "")
    with pytest.raises(iii_trio.CallError, match=r"^queue_not_set: x$"), hint_at_whole_id(given):
        raise iii_trio.CallError("queue_not_set", "x")
