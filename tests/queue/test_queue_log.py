"""What the queue writes into the log: about which job, queue and function it is; and a flood is bounded."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from iii_trio import QueueSettings, enqueue
from tests.helpers.queue_world import queueing


async def test_a_dead_letter_is_one_line_with_its_ids_and_a_flood_of_them_is_bounded(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "iii_trio.queue")
    once = QueueSettings(max_attempts=1, dead_letters=100)
    async with queueing(mail=once, other=once) as engine, engine.open_worker("w") as worker:

        @worker.function("fail")
        async def fail() -> None:
            raise ValueError("a line\nand another")

        receipt = await worker.trigger("fail", {}, action=enqueue("mail"))
        await trio.sleep(100)
        (line,) = [line for line in caplog.records if line.name == "iii_trio.queue"]
        assert line.getMessage().startswith(
            f"job {receipt.id} of mail is a dead letter, after 1 failed call and 0 lost workers"
        )
        assert "\n" not in line.getMessage()
        said = vars(line)
        assert (said["iii_queue"], said["iii_job"], said["iii_function"]) == ("mail", receipt.id, "fail")

        caplog.clear()
        for _ in range(300):
            await worker.trigger("fail", {}, action=enqueue("mail"))
        await worker.trigger("fail", {}, action=enqueue("other"))
        await trio.sleep(0.5)
        lines = [line for line in caplog.records if line.name == "iii_trio.queue"]
        assert len(lines) < 100
        assert [line for line in lines if vars(line)["iii_queue"] == "other"], "the flood hides no other queue"
