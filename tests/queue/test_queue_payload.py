"""What a job's function is called with."""

from __future__ import annotations

from msgspec import Raw
from trio.testing import MockClock, wait_all_tasks_blocked

import iii_trio


async def test_Q10_the_payload_is_what_was_given_and_nothing_else(autojump_clock: MockClock) -> None:
    """As it comes by the wire: no id of a caller is put into it, as into the payloads of other calls."""
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:
        seen: list[bytes] = []

        @worker.function("raw")
        async def raw(payload: Raw) -> None:
            seen.append(bytes(payload))

        @worker.subscribe("topic")
        async def subscriber(payload: Raw) -> None:
            seen.append(bytes(payload))

        await worker.trigger("raw", {"a": [1]}, action=iii_trio.enqueue())
        await wait_all_tasks_blocked()
        await worker.trigger("iii::durable::publish", {"topic": "topic", "data": {}})
        await wait_all_tasks_blocked()
        await worker.trigger("raw", {"a": [1]})
        assert seen[:2] == [b'{"a":[1]}', b"{}"]
        assert b"_caller_worker_id" in seen[2]
