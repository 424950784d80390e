"""What an engine says of how much it holds."""

from __future__ import annotations

import attrs
import trio
import trio.testing

from iii_trio import EngineStatistics, Worker, open_engine


async def test_statistics_count_what_workers_hold_and_what_the_process_does() -> None:
    async with open_engine() as engine, engine.open_worker("one") as one, engine.open_worker("two") as two:

        @two.function("two::hang")
        async def hang() -> None:
            await trio.sleep_forever()

        await two.wait_registered()

        async def held(worker: Worker = one) -> dict[str, int]:
            told = await worker.trigger("engine::statistics", {})
            return {**told}

        before = await held()
        assert set(before) == {field.name for field in attrs.fields(EngineStatistics)} | {
            "tasks",
            "memory_blocks",
            "cpu_seconds",
            "rss_bytes",
        }
        assert (before["sessions"], before["functions"], before["channels"], before["calls"]) == (2, 1, 0, 0)
        assert before["tasks"] == trio.lowlevel.current_statistics().tasks_living
        assert before["memory_blocks"] > 10_000
        async with one.create_channel(), trio.open_nursery() as nursery:
            nursery.start_soon(one.trigger, "two::hang")
            await trio.testing.wait_all_tasks_blocked()
            during = await held()
            assert (during["channels"], during["calls"]) == (1, 1)
            assert during["tasks"] > before["tasks"]
            assert {**attrs.asdict(engine.statistics())} == {
                key: during[key] for key in attrs.asdict(engine.statistics())
            }
            nursery.cancel_scope.cancel()
