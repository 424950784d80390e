"""Calls that run much longer than usual are told, once each (Q33)."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock as Clock

import iii_trio
from iii_trio import QueueSettings, enqueue
from iii_trio.triggers.queue.overruns import MIN_SAMPLES
from tests.helpers.queue_world import queueing, rows


async def _serve(engine: iii_trio.Engine, worker: iii_trio.Worker) -> None:
    @worker.function("app::sleep")
    async def sleep(seconds: float) -> None:
        await trio.sleep(seconds)

    await worker.wait_registered()


async def _jobs(worker: iii_trio.Worker, seconds: float, count: int = 1) -> None:
    for _ in range(count):
        await worker.trigger("app::sleep", {"seconds": seconds}, action=enqueue("mail"))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "usually" in record.getMessage()]


@pytest.mark.parametrize(
    ("settings", "samples", "seconds", "expected"),
    [
        (QueueSettings(), MIN_SAMPLES, 5.5, 1),  # usually 0.5 s, so the limit is 5 s
        (QueueSettings(), MIN_SAMPLES, 4.5, 0),
        (QueueSettings(), MIN_SAMPLES - 1, 60.0, 0),
        (QueueSettings(overrun_factor=100), MIN_SAMPLES, 40.0, 0),
        (QueueSettings(overrun_factor=None), MIN_SAMPLES, 1000.0, 0),
        (QueueSettings(visibility_timeout_seconds=100), MIN_SAMPLES, 60.0, 0),
    ],
)
async def test_Q33_a_call_of_more_than_ten_times_the_usual_length_is_told_once(
    autojump_clock: Clock,
    caplog: pytest.LogCaptureFixture,
    settings: QueueSettings,
    samples: int,
    seconds: float,
    expected: int,
) -> None:
    caplog.set_level(logging.WARNING, "iii_trio")
    async with queueing(mail=settings) as engine, engine.open_worker("w") as worker:
        await _serve(engine, worker)
        await _jobs(worker, 0.5, samples)
        await trio.sleep(20)
        await _jobs(worker, seconds)
        await trio.sleep(seconds + 1)
        assert len(told(caplog)) == expected
        row = (await rows(worker))["mail"]
        assert (row["overruns"], row["calls"], row["depth"]) == (expected, samples + 1, 0)


async def test_Q33_the_line_comes_while_the_call_runs_and_says_how_to_end_such_calls(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with queueing(mail=QueueSettings()) as engine, engine.open_worker("w") as worker:
        await _serve(engine, worker)
        await _jobs(worker, 2.0, MIN_SAMPLES)
        await trio.sleep(20)
        await _jobs(worker, 500.0, 2)
        await trio.sleep(20.5)
        first, second = told(caplog)
        assert "has run for 20 s, and usually it is 2 s; set visibility_timeout_seconds to end such calls" in first
        assert first.split()[1] != second.split()[1], "another job"


async def test_Q33_short_calls_are_given_a_second(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async with queueing(mail=QueueSettings()) as engine, engine.open_worker("w") as worker:
        await _serve(engine, worker)
        await _jobs(worker, 0.0, MIN_SAMPLES)
        await trio.sleep(5)
        await _jobs(worker, 0.9)
        await trio.sleep(5)
        assert told(caplog) == []
        await _jobs(worker, 1.1)
        await trio.sleep(5)
        assert len(told(caplog)) == 1


async def test_Q33_a_queue_that_has_nothing_to_do_looks_at_nothing(autojump_clock: Clock) -> None:
    async with queueing(mail=QueueSettings()) as engine, engine.open_worker("w") as worker:
        await _serve(engine, worker)
        await _jobs(worker, 0.5, MIN_SAMPLES + 1)
        await trio.sleep(60)
        before = trio.lowlevel.current_statistics().seconds_to_next_deadline
        assert before > 1000
