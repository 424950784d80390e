"""Bounds: the disk, memory, lanes, lists and receipts (Q14, Q17, Q21, Q22)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import CallError, EngineConfig, QueueConfig, QueueSettings, enqueue
from iii_trio.environment import Environment
from iii_trio.testing.job_stores import record
from iii_trio.triggers.queue import BadChange, Change, MemoryStore, Put, Remove, StorageError, StorageFull, Update
from iii_trio.triggers.queue.journal import Journal
from iii_trio.triggers.queue.sqlite_store import SqliteStore
from tests.helpers.queue_world import dead, inline, queueing, rows, settled

Clock = trio.testing.MockClock
ONCE = QueueSettings(max_attempts=1)


async def fail(payload: Any) -> None:
    raise CallError("broken", "it is broken")


def engine_config(**options: Any) -> EngineConfig:
    return EngineConfig(modules={"queue": QueueConfig(queues={"mail": ONCE}, **options)})


# --- a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 20 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(path)]
    if not sys.platform.startswith("linux") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("not allowed to mount")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("others_fill_it", [False, True])
async def test_Q14_jobs_end_on_a_full_disk_and_there_is_room_again(disk: Path, others_fill_it: bool) -> None:
    config = engine_config(directory=str(disk / "jobs"))
    kept = 0
    async with iii_trio.open_engine(config) as engine, engine.open_worker("w") as worker:
        filler = {"filler": "x" * 10_000}
        with pytest.raises(CallError) as refused:
            while True:
                await worker.trigger("f", {"n": kept, **filler}, action=enqueue("mail"))
                kept += 1
        assert "queue_full: the disk of" in refused.value.message and "make room on its disk" in refused.value.message
        assert kept > 500
        if others_fill_it:
            with pytest.raises(OSError, match="No space"):
                await trio.to_thread.run_sync(fill, disk / "theirs")
        done: list[int] = []

        @worker.function("f")
        async def f(n: int, filler: str) -> None:
            done.append(n)

        with trio.fail_after(60):
            while (await rows(worker))["mail"]["depth"]:  # noqa: ASYNC110  (there is no event for it)
                await trio.sleep(0.01)
        (disk / "theirs").unlink(missing_ok=True)
        with trio.fail_after(60):
            while True:
                try:
                    await worker.trigger("f", {"n": kept, **filler}, action=enqueue("mail"))
                    break
                except CallError:
                    await trio.sleep(0.1)
        assert sorted(set(done) | {kept}) == list(range(kept + 1))
        assert len(done) in (kept, kept + 1), "nothing is done twice"
    async with iii_trio.open_engine(config) as engine, engine.open_worker("w") as worker:
        assert (await rows(worker))["mail"]["depth"] <= 1


async def test_Q14_disk_bytes_refuses_jobs_before_the_disk_is_full_and_is_given_back(autojump_clock: Clock) -> None:
    async with (
        iii_trio.open_engine(engine_config(disk_bytes=100_000), environment=Environment(run_blocking=inline)) as engine,
        engine.open_worker("w") as worker,
    ):
        for _ in range(3):
            kept = 0
            with pytest.raises(CallError, match=r"queue_full: .*disk_bytes"):
                while True:
                    await worker.trigger("f", "x" * 10_000, action=enqueue("mail"))
                    kept += 1
            assert kept == 8, "each takes three pages"
            assert await worker.trigger("engine::queue::purge", {"queue": "mail"}) == {
                "queue": "mail", "purged": 8, "by_state": {"waiting_for_function": 8}
            }  # fmt: skip


class OneAtATime:
    """A store with a full disk, on which removals have room."""

    def __init__(self) -> None:
        self._inner = MemoryStore()
        self.place, self.load, self.fetch = "memory", self._inner.load, self._inner.fetch
        self.close, self.tidy = self._inner.close, self._inner.tidy
        self.full = False

    def write(self, changes: Sequence[Change]) -> None:
        if self.full and any(isinstance(change, Put) for change in changes):
            raise StorageFull("no room; make some")
        self._inner.write(changes)


async def test_Q14_ends_of_jobs_are_written_beside_new_jobs_that_have_no_room(autojump_clock: Clock) -> None:
    store = OneAtATime()
    async with queueing(store, mail=ONCE) as engine, engine.open_worker("w") as worker, trio.open_nursery() as nursery:
        for n in range(5):
            await worker.trigger("f", n, action=enqueue("mail"))
        store.full = True

        async def keep_asking() -> None:
            while True:
                with pytest.raises(CallError, match="queue_full: no room"):
                    await worker.trigger("f", -1, action=enqueue("mail"))

        nursery.start_soon(keep_asking)

        @worker.function("f")
        async def f(data: int) -> None: ...

        await trio.sleep(10)
        assert list(store.load().jobs) == []
        nursery.cancel_scope.cancel()


def test_Q14_a_file_shrinks_when_its_jobs_are_done(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.write([Put(record(key, data=b'"' + b"x" * 100_000 + b'"')) for key in range(1, 200)])
    while store.tidy():
        pass
    full = store.path.stat().st_size
    store.write([Remove(key) for key in range(1, 200)])
    while store.tidy():
        pass
    assert full > 19_000_000 and store.path.stat().st_size < 2_000_000
    store.close()


async def test_Q14_the_file_is_tidied_up_when_the_queue_is_idle_and_once(autojump_clock: Clock) -> None:
    class Counting(OneAtATime):
        tidied = 0

        def __init__(self) -> None:
            super().__init__()
            self.tidy = self.count

        def count(self) -> bool:
            self.tidied += 1
            return self.tidied % 3 != 0

    store = Counting()
    async with queueing(store, mail=ONCE) as engine, engine.open_worker("w") as worker:
        await trio.sleep(1000)
        assert store.tidied == 3
        await worker.trigger("nobody", 1, action=enqueue("mail"))
        await trio.sleep(1000)
        assert store.tidied == 6


# --- the journal


class Scripted(OneAtATime):
    """A store that refuses some writes, and notes the others."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = 0
        self.written: list[Change] = []

    def write(self, changes: Sequence[Change]) -> None:
        if any(isinstance(change, Put) and change.record.id == "bad" for change in changes):
            raise BadChange("a value that has no place")
        if self.refuses:
            self.refuses -= 1
            raise StorageError("not now")
        self.written += changes


async def test_Q13_one_change_that_cannot_be_kept_is_refused_and_those_beside_it_are_kept(
    autojump_clock: Clock,
) -> None:
    store = Scripted()
    journal = Journal(store, inline)
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        for n in range(5):
            job = record(n, id="bad" if n == 2 else "good")
            journal.write(
                [Put(job)], lambda n=n: said.append(f"kept {n}"), lambda error, n=n: said.append(f"refused {n}")
            )  # type: ignore[misc]
        await nursery.start(journal.keep)
        await settled()
        nursery.cancel_scope.cancel()
    assert said == ["kept 0", "kept 1", "refused 2", "kept 3", "kept 4"]


async def test_a_change_that_is_tried_again_goes_before_those_that_came_meanwhile(autojump_clock: Clock) -> None:
    store = Scripted()
    store.refuses = 3
    gate = trio.Event()

    async def slowly(function: Any) -> Any:
        await gate.wait()
        return function()

    journal = Journal(store, slowly)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.keep)
        changes: list[Change] = [Update(record(1, attempts=n, data=None)) for n in range(3)]
        for change in changes:  # each during the commit of the one before, which fails
            journal.write([change])
            await settled()
        gate.set()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert store.written == changes


# --- lanes


async def test_Q17_a_subscriber_that_is_away_fills_its_own_lane_only_and_can_be_removed(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        async with engine.open_worker("old") as old:
            subscription = {"topic": "orders", "queue_config": {"maxJobs": 3}}
            old.register_trigger("durable:subscriber", "old::hear", config=subscription)
            await old.wait_registered()
            await settled()
            assert (await rows(worker))["orders"]["subscribers"][0]["away_since_ms"] is None
        for n in range(3):
            await worker.trigger("iii::durable::publish", {"topic": "orders", "data": n})
        with pytest.raises(CallError, match=r"queue_full: .*old::hear.*unsubscribe it"):
            await worker.trigger("iii::durable::publish", {"topic": "orders", "data": 3})
        await worker.trigger("nobody", 1, action=enqueue())  # others are not in its way
        [row] = (await rows(worker))["orders"]["subscribers"]
        assert (row["function_id"], row["depth"], row["subscribed"]) == ("old::hear", 3, True)
        assert row["away_since_ms"] > 0
        which = {"topic": "orders", "function_id": "old::hear"}
        assert await worker.trigger("engine::queue::unsubscribe", which) == {
            **which, "unsubscribed": 1, "purged": 3, "by_state": {"waiting": 3}
        }  # fmt: skip
        assert "orders" not in await rows(worker)
        await worker.trigger("iii::durable::publish", {"topic": "orders", "data": 4})


async def test_Q17_a_subscriber_that_is_here_cannot_be_removed(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:

        @worker.subscribe("orders", "hear")
        async def hear(data: int) -> None: ...

        await worker.wait_registered()
        await settled()
        with pytest.raises(CallError, match="subscriber_not_away: hear is here"):
            await worker.trigger("engine::queue::unsubscribe", {"topic": "orders", "function_id": "hear"})


async def test_Q17_a_removed_subscriber_and_its_jobs_are_gone_after_a_restart(autojump_clock: Clock) -> None:
    store = MemoryStore()
    async with queueing(store) as engine, engine.open_worker("w") as worker:
        async with engine.open_worker("old") as old:
            old.register_trigger("durable:subscriber", "old::hear", config={"topic": "orders"})
            await old.wait_registered()
            await settled()
        await worker.trigger("iii::durable::publish", {"topic": "orders", "data": 1})
    away = [one.away_since_ms for one in store.load().subscribers]
    assert away[0] is not None
    async with queueing(store) as engine, engine.open_worker("w") as worker:
        assert (await rows(worker))["orders"]["subscribers"][0]["away_since_ms"] == away[0]
        await worker.trigger("engine::queue::unsubscribe", {"topic": "orders", "function_id": "old::hear"})
    loaded = store.load()
    assert (list(loaded.jobs), list(loaded.subscribers), list(loaded.lanes)) == ([], [], [])


async def test_Q17_a_purge_removes_what_waits_and_leaves_what_runs(autojump_clock: Clock) -> None:
    settings = QueueSettings(concurrency=1, fifo=True, group_by="g")
    async with (
        queueing(mail=settings, late=QueueSettings(delay_seconds=60)) as engine,
        engine.open_worker("w") as worker,
    ):
        done: list[int] = []

        @worker.function("f")
        async def f(n: int) -> None:
            await trio.sleep(5)
            done.append(n)

        for n in range(6):
            await worker.trigger("f", {"n": n, "g": n % 2}, action=enqueue("mail"))
        await worker.trigger("nobody", {"n": 6, "g": 3}, action=enqueue("mail"))
        await worker.trigger("f", {"n": 7}, action=enqueue("late"))
        await trio.sleep(1)
        assert (await worker.trigger("engine::queue::purge", {"queue": "mail"}))["purged"] == 6
        assert (await worker.trigger("engine::queue::purge", {"queue": "late"}))["purged"] == 1
        await worker.trigger("f", {"n": 8, "g": 0}, action=enqueue("mail"))
        await trio.sleep(100)
        assert done == [0, 8]
        assert [row["depth"] for row in (await rows(worker)).values()] == [0, 0, 0]


async def test_Q17_a_redrive_goes_up_to_the_bounds_and_says_what_is_left(autojump_clock: Clock) -> None:
    async with queueing(jobs=5, mail=ONCE) as engine, engine.open_worker("w") as worker:
        binding = worker.register_function("f", fail)
        for _ in range(8):
            await worker.trigger("f", {}, action=enqueue("mail"))
            await trio.sleep(1)
        binding.unregister()
        await settled()
        assert await worker.trigger("iii::queue::redrive", {"queue": "mail"}) == {
            "queue": "mail", "redriven": 5, "left": 3
        }  # fmt: skip
        [one, *_] = await dead(worker, "mail")
        with pytest.raises(CallError, match="queue_full"):
            await worker.trigger("iii::queue::redrive_message", {"queue": "mail", "message_id": one["id"]})
        assert await worker.trigger("iii::queue::redrive", {"queue": "mail"}) == {
            "queue": "mail", "redriven": 0, "left": 3
        }  # fmt: skip


async def test_Q17_a_queue_and_a_topic_of_one_name_are_told_apart(autojump_clock: Clock) -> None:
    once = {"queue_config": {"maxRetries": 0}}
    async with queueing(**{"my.topic": ONCE}) as engine, engine.open_worker("w") as worker:
        worker.register_function("f", fail)
        worker.register_trigger("durable:subscriber", "f", config={"topic": "my.topic", **once})
        await worker.wait_registered()
        await settled()
        await worker.trigger("iii::durable::publish", {"topic": "my.topic", "data": {}})
        await trio.sleep(1)
        assert await dead(worker, "my.topic") == []
        [letter] = await worker.trigger("engine::queue::dlq_messages", {"topic": "my.topic"})
        which = {"topic": "my.topic", "message_id": letter["id"]}
        assert (await worker.trigger("iii::queue::redrive_message", which))["redriven"] == 1
        await trio.sleep(1)
        assert (await worker.trigger("engine::queue::discard", {"topic": "my.topic"}))["discarded"] == 1


# --- receipts


async def test_Q21_the_same_receipt_twice_is_one_job(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker, trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def ask() -> None:
            payload = {"queue": "default", "function_id": "f", "data": 1, "messageReceiptId": "mine"}
            answers.append(await worker.trigger("engine::queue::enqueue", payload))

        nursery.start_soon(ask)  # both before the first is stored
        nursery.start_soon(ask)
        await settled()
        await ask()  # while it waits
        assert (await rows(worker))["default"]["depth"] == 1
        calls: list[int] = []

        @worker.function("f")
        async def f(data: int) -> None:
            calls.append(data)

        await trio.sleep(1)
        await ask()  # after it was done
        await trio.sleep(1)
        assert calls == [1] and answers == [{"messageReceiptId": "mine"}] * 4


# --- memory, and lists


async def test_Q22_a_long_error_is_cut(autojump_clock: Clock) -> None:
    async with queueing(mail=ONCE) as engine, engine.open_worker("w") as worker:

        @worker.function("f")
        async def f() -> None:
            raise CallError("C" * 10_000, "é" * 1_000_000)

        await worker.trigger("f", {}, action=enqueue("mail"))
        await trio.sleep(1)
        [letter] = await dead(worker, "mail")
        assert len(letter["message"]) < 2_200 and letter["message"].endswith(" bytes in all)")
        assert len(letter["code"]) < 300


@pytest.mark.parametrize("what", ["function_id", "namespace", "messageReceiptId"])
async def test_Q22_names_that_are_too_long_are_refused(autojump_clock: Clock, what: str) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        payload = {"queue": "default", "function_id": "f", "data": 1} | {what: "x" * 1025}
        with pytest.raises(CallError, match=f"deserialization_error: .*`{what}` is 1025 bytes"):
            await worker.trigger("engine::queue::enqueue", payload)


async def test_Q22_metadata_is_of_the_memory_that_is_bounded_and_comes_back(autojump_clock: Clock) -> None:
    queue = QueueConfig(queues={"mail": ONCE}, memory_bytes=1_000)
    async with (
        iii_trio.open_engine(
            EngineConfig(modules={"queue": queue}), environment=Environment(run_blocking=inline)
        ) as engine,
        engine.open_worker("w") as worker,
    ):
        for n in range(3):
            await worker.trigger("f", n, metadata={"n": n, "filler": "x" * 900}, action=enqueue("mail"))
        seen: list[Any] = []

        @worker.function("f")
        async def f(data: int, metadata: Any) -> None:
            seen.append((data, metadata["n"], len(metadata["filler"])))

        await trio.sleep(1)
        assert sorted(seen) == [(n, n, 900) for n in range(3)]


async def test_Q22_a_list_of_dead_letters_stops_at_a_size_and_says_so(autojump_clock: Clock) -> None:
    async with queueing(mail=ONCE) as engine, engine.open_worker("w") as worker:
        worker.register_function("f", fail)
        for n in range(12):
            await worker.trigger("f", {"data": f"{n:02}" + "x" * 300_000}, action=enqueue("mail"))
        await trio.sleep(1)
        letters = await dead(worker, "mail")
        assert len(json.dumps(letters)) < 1_000_000
        shown = [letter for letter in letters if letter["payload"] is not None]
        assert len(shown) == 2 and all(letter["payload_omitted"] for letter in letters[2:])
        which = {"queue": "mail", "limit": 5}
        assert (await worker.trigger("engine::queue::dlq_messages", which))[-1]["more"] == 7
        [one] = await worker.trigger("engine::queue::dlq_messages", {"queue": "mail", "limit": 1})
        assert len(one["payload"]["data"]) == 300_002
        bare = await worker.trigger("engine::queue::dlq_messages", {"queue": "mail", "payloads": False})
        assert len(bare) == 12 and {letter["payload"] for letter in bare} == {None}


@pytest.mark.timeout(300)  # it takes a quarter of a minute on a machine at rest
async def test_what_ten_thousand_jobs_take_is_given_back(autojump_clock: Clock) -> None:
    queue = QueueConfig(queues={"mail": QueueSettings(max_jobs=2)}, jobs=2, disk_bytes=10_000, memory_bytes=100)
    async with (
        iii_trio.open_engine(
            EngineConfig(modules={"queue": queue}), environment=Environment(run_blocking=inline)
        ) as engine,
        engine.open_worker("w") as worker,
    ):

        @worker.function("f")
        async def f(data: str) -> None: ...

        for _ in range(10_000):
            await worker.trigger("f", "x" * 90, metadata={"a": 1}, action=enqueue("mail"))
            await settled()
        assert (await rows(worker))["mail"]["depth"] == 0


# --- the memory of the engine


def small_engine(directory: Path | None) -> EngineConfig:
    """An engine with a budget of 2 MB, half of which is for payloads."""
    return EngineConfig(
        limits=iii_trio.Limits(memory_bytes=2_000_000),
        modules={"queue": QueueConfig(directory=None if directory is None else str(directory), memory_bytes=300_000)},
    )


async def test_Q22_payloads_in_memory_have_half_of_the_engines_memory() -> None:
    async with iii_trio.open_engine(small_engine(None)) as engine, engine.open_worker("w") as worker:
        taken = 0
        with pytest.raises(CallError) as refused:
            while True:
                await worker.trigger("nobody::has_this", "x" * 100_000, action=enqueue("default"))
                taken += 1
        assert taken == 9 and "queue_full" in refused.value.message and "limits.memory_bytes" in refused.value.message
        assert 900_000 < engine._shell.memory.used_bytes <= 1_000_000
        # All else has the other half: a call, and a channel that is full.
        async with worker.create_channel(max_bytes=900_000) as channel:
            await channel.writer.send(bytes(800_000))
            assert len(await channel.reader.receive()) == 800_000
        await worker.trigger("engine::queue::purge", {"queue": "default"})
        await worker.trigger("nobody::has_this", "x" * 800_000, action=enqueue("default"))


async def test_Q22_payloads_on_disk_take_what_is_kept_of_them_in_memory(tmp_path: Path) -> None:
    async with iii_trio.open_engine(small_engine(tmp_path)) as engine, engine.open_worker("w") as worker:
        for _ in range(15):
            await worker.trigger("nobody::has_this", "x" * 100_000, action=enqueue("default"))
        assert 200_000 < engine._shell.memory.used_bytes < 500_000


@pytest.mark.parametrize(
    "ending", ["done", "dead and discarded", "dead and redriven", "cancelled", "purged", "refused"]
)
@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.slow)])
async def test_Q22_the_memory_of_payloads_is_given_back_each_time(
    ending: str, rounds: int, autojump_clock: Clock
) -> None:
    class Refusing(MemoryStore):
        def write(self, changes: Sequence[Change]) -> None:
            if ending == "refused" and any(isinstance(change, Put) for change in changes):
                raise StorageFull("full")
            super().write(changes)

    queues = {"mail": QueueSettings(max_attempts=1, concurrency=100)}
    config = EngineConfig(
        limits=iii_trio.Limits(memory_bytes=2_000_000),
        modules={"queue": QueueConfig(queues=queues, memory_bytes=50_000)},
    )
    failing = ending.startswith("dead")
    async with (
        iii_trio.open_engine(config, stores={"queue": Refusing()}) as engine,
        engine.open_worker("w") as worker,
    ):

        async def end(payload: Any) -> None:
            if failing:
                raise CallError("broken", "it is broken")

        name = "f" if ending in ("done", "dead and discarded", "dead and redriven") else "nobody::has_this"
        if name == "f":
            worker.register_function("f", end)
            await worker.wait_registered()
        for _ in range(rounds):
            receipts = []
            for _ in range(100):
                try:
                    receipts.append(await worker.trigger(name, {"payload": "x" * 9_000}, action=enqueue("mail")))
                except CallError as error:
                    assert ending == "refused" and "queue_full" in error.message
            if ending == "cancelled":
                for receipt in receipts:
                    await worker.trigger("engine::queue::cancel", {"id": receipt.id})
            elif ending == "purged":
                await worker.trigger("engine::queue::purge", {"queue": "mail"})
            elif failing:
                await settled()
                if ending == "dead and redriven":
                    failing = False
                    await worker.trigger("iii::queue::redrive", {"queue": "mail"})
                    await settled()
                    failing = True
                else:
                    await worker.trigger("engine::queue::discard", {"queue": "mail"})
            await trio.testing.wait_all_tasks_blocked()
        assert engine._shell.memory.usage().get("module queue", 0) == 0
