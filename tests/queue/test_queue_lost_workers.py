"""Workers that leave and workers that are lost: what it costs their jobs (Q15, Q16)."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from iii_trio import QueueSettings, enqueue
from tests.helpers.queue_world import dead, queueing, rows, settled

Clock = trio.testing.MockClock


async def test_Q15_a_worker_that_leaves_in_the_middle_of_a_job_costs_it_nothing(autojump_clock: Clock) -> None:
    strict = QueueSettings(max_attempts=1, max_lost_deliveries=1)
    async with queueing(mail=strict) as engine, engine.open_worker("w") as worker:
        attempts: list[int] = []
        await worker.trigger("f", {}, action=enqueue("mail"))
        for _ in range(5):
            async with engine.open_worker("leaver") as leaver:
                began = trio.Event()

                @leaver.function("f")
                async def f(metadata: dict[str, Any], began: trio.Event = began) -> None:
                    attempts.append(metadata["job"]["attempt"])
                    began.set()
                    await trio.sleep_forever()

                await began.wait()
        await settled()
        assert attempts == [1] * 5
        assert not await dead(worker, "mail") and (await rows(worker))["mail"]["depth"] == 1
