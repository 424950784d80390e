"""Damage on disk and in single jobs: it stays where it is, and it is told (Q13, Q20)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import CallError, EngineConfig, QueueConfig, QueueSettings, enqueue
from iii_trio.environment import Environment
from iii_trio.testing.job_stores import record
from iii_trio.triggers.queue import BadChange, Damaged, Put, Remember, StorageError
from iii_trio.triggers.queue.sqlite_files import committed_frames
from iii_trio.triggers.queue.sqlite_store import SqliteStore
from tests.helpers.queue_world import dead, inline, queueing, rows

Clock = trio.testing.MockClock
MAIL = QueueSettings(max_attempts=1)


def config(directory: Path, **options: Any) -> EngineConfig:
    return EngineConfig(modules={"queue": QueueConfig(queues={"mail": MAIL}, directory=str(directory), **options)})


def change_rows(directory: Path, statement: str) -> None:
    connection = sqlite3.connect(directory / "queue.db")
    connection.execute(statement)
    connection.commit()
    connection.close()


# --- a fault in one job


async def test_Q13_metadata_that_cannot_be_decoded_is_refused_and_ends_nothing(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker, trio.open_nursery() as nursery:
        link = await nursery.start(engine.address.connect)
        await link.receive()
        link.send(
            b'{"type":"invokefunction","invocation_id":"0af76519-16cd-43dd-8448-eb211c80319c","function_id":"f","data":1,'
            b'"metadata":{"n":1e999},"action":{"type":"enqueue","queue":"default"}}'
        )
        while "result" not in (message := json.loads(await link.receive() or b""))["type"]:
            pass
        assert message["error"]["code"] == "deserialization_error"
        assert (await rows(worker))["default"]["depth"] == 0
        nursery.cancel_scope.cancel()


async def test_Q13_a_stored_job_that_cannot_be_called_is_a_dead_letter_and_others_run(
    autojump_clock: Clock, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path)
    store.write([Put(record(1, metadata=b'{"n":1e999}')), Put(record(2))])
    done: list[int] = []
    async with queueing(store, mail=MAIL) as engine, engine.open_worker("w") as worker:

        @worker.function("mail::send")
        async def send(n: int) -> None:
            done.append(n)

        await trio.sleep(1)
        [letter] = await dead(worker, "mail")
        assert done == [2]
        assert (letter["id"], letter["code"]) == ("receipt-1", "job_damaged") and "metadata" in letter["message"]
    store.close()


DAMAGES = [
    ("UPDATE jobs SET lane = 'unreadable' WHERE key = 1", "JSON"),
    ("UPDATE jobs SET lane = '[\"queue\"]' WHERE key = 1", "names no queue"),
    ("UPDATE jobs SET attempts = 'many' WHERE key = 1", "column attempts"),
    ("UPDATE jobs SET data = NULL WHERE key = 1", "column data"),
    ("UPDATE jobs SET data = x'7b22' WHERE key = 1", "not JSON"),
    ("UPDATE jobs SET data = x'22ff22' WHERE key = 1", "not JSON"),
    ("UPDATE jobs SET id = x'00' WHERE key = 1", "column id"),
    ("UPDATE jobs SET due_ms = 1.5 WHERE key = 1", "column due_ms"),
]


@pytest.mark.parametrize(("damage", "problem"), DAMAGES)
async def test_Q13_a_damaged_row_is_set_aside_with_one_line_and_all_others_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str, problem: str
) -> None:
    store = SqliteStore(tmp_path)
    store.write([Put(record(key)) for key in (1, 2, 3)])
    store.close()
    change_rows(tmp_path, damage)
    for start in (1, 2):
        caplog.clear()
        async with iii_trio.open_engine(config(tmp_path)) as engine, engine.open_worker("w") as worker:
            assert (await rows(worker))["mail"]["depth"] == 2
        lines = [line.getMessage() for line in caplog.records if "set aside" in line.getMessage()]
        assert len(lines) == (1 if start == 1 else 0), "it is told once"
        assert not lines or problem in lines[0]
    connection = sqlite3.connect(tmp_path / "queue.db")
    assert connection.execute("SELECT key FROM damaged_jobs").fetchall() == [(1,)]
    connection.close()


async def test_Q13_a_subscriber_with_damaged_settings_is_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(tmp_path)
    store.write([Remember("news", "default", "hear", b"no JSON")])
    store.close()
    async with iii_trio.open_engine(config(tmp_path)) as engine, engine.open_worker("w") as worker:
        await worker.trigger("iii::durable::publish", {"topic": "news", "data": 1})
        assert (await rows(worker))["news"]["depth"] == 1
    assert [line for line in caplog.records if "subscriber of news, is damaged" in line.getMessage()]


async def test_Q13_data_that_vanishes_while_the_engine_runs_makes_a_dead_letter(
    autojump_clock: Clock, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path)
    queue = QueueConfig(queues={"mail": MAIL}, memory_bytes=0)
    async with (
        iii_trio.open_engine(
            EngineConfig(modules={"queue": queue}),
            stores={"queue": store},
            environment=Environment(run_blocking=inline),
        ) as engine,
        engine.open_worker("w") as worker,
    ):
        for n in (1, 2):
            await worker.trigger("f", n, action=enqueue("mail"))
        await trio.sleep(1)
        store.connection.execute("UPDATE jobs SET data = NULL WHERE key = 1")
        done: list[int] = []

        @worker.function("f")
        async def f(data: int) -> None:
            done.append(data)

        await trio.sleep(10)
        [letter] = await dead(worker, "mail")
        assert done == [2]
        assert (letter["code"], letter["payload"]) == ("job_damaged", None)
        assert "any more" in letter["payload_omitted"]
    store.close()


def test_Q13_times_that_no_store_could_keep_are_no_settings() -> None:
    for name in ("delay_seconds", "backoff_seconds", "max_backoff_seconds", "visibility_timeout_seconds"):
        for value in (1e300, float("inf"), float("nan")):
            with pytest.raises(ValueError, match=name):
                QueueSettings(**{name: value})


# --- damage of the files


def kill_with_jobs(directory: Path, jobs: int) -> None:
    """Leave a directory as a killed engine does: with jobs in the write-ahead log only."""
    child = os.fork()
    if child == 0:
        store = SqliteStore(directory)
        for key in range(1, jobs + 1):
            store.write([Put(record(key))])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def flip_a_byte(wal: Path) -> None:
    content = bytearray(wal.read_bytes())
    content[len(content) // 2] ^= 0xFF
    wal.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [(flip_a_byte, "cannot be recovered"), (Path.unlink, "is missing"), (lambda wal: None, None)],
)
def test_Q20_damage_of_the_log_is_told_at_the_next_start(
    tmp_path: Path, damage: Callable[[Path], object], words: str | None
) -> None:
    kill_with_jobs(tmp_path, 50)
    wal = tmp_path / "queue.db-wal"
    assert committed_frames(wal) >= 50
    damage(wal)
    store = SqliteStore(tmp_path)
    loaded = store.load()
    assert len(loaded.warnings) == (0 if words is None else 1)
    assert words is None or (words in loaded.warnings[0] and "may be missing" in loaded.warnings[0])
    assert (len(list(loaded.jobs)) == 50) == (words is None)
    store.close()
    store = SqliteStore(tmp_path)
    assert not store.load().warnings, "it is told once"
    store.close()


def test_Q20_a_transaction_that_was_cut_off_is_no_damage(tmp_path: Path) -> None:
    """It was acknowledged to nobody."""
    kill_with_jobs(tmp_path, 5)
    wal = tmp_path / "queue.db-wal"
    wal.write_bytes(wal.read_bytes()[:-100])
    store = SqliteStore(tmp_path)
    loaded = store.load()
    assert (len(list(loaded.jobs)), list(loaded.warnings)) == (4, [])
    store.close()


def test_Q20_a_new_schema_is_in_the_file_itself_before_the_first_job(tmp_path: Path) -> None:
    kill_with_jobs(tmp_path, 0)
    assert committed_frames(tmp_path / "queue.db-wal") == 0


async def test_Q20_a_directory_that_is_removed_is_noticed_at_the_next_commit(tmp_path: Path) -> None:
    home = tmp_path / "jobs"
    async with iii_trio.open_engine(config(home)) as engine, engine.open_worker("w") as worker:
        await worker.trigger("f", 1, action=enqueue("mail"))
        shutil.rmtree(home)
        for _ in range(2):
            with pytest.raises(CallError, match=r"storage_failed: .* were removed or replaced"):
                await worker.trigger("f", 2, action=enqueue("mail"))
        assert (await rows(worker))["mail"]["depth"] == 1


# --- who may read the files, and what a start leaves behind


@pytest.mark.parametrize("mask", [0o022, 0o000, 0o777])
def test_Q20_jobs_can_be_read_by_their_user_only_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        store = SqliteStore(tmp_path / "of" / "mine")
        store.write([Put(record(1))])
    finally:
        os.umask(before)
    assert [(tmp_path / part).stat().st_mode & 0o777 for part in ("of", "of/mine")] == [0o700] * 2
    files = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "of" / "mine").iterdir()}
    assert files == {"queue.db": 0o600, "queue.db-wal": 0o600, "queue.reserve": 0o600}
    store.close()


def test_Q20_a_store_that_was_not_used_leaves_nothing_and_one_that_was_is_left(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "a" / "b").close()
    assert list(tmp_path.iterdir()) == []
    store = SqliteStore(tmp_path / "a")
    store.write([Put(record(1))])
    store.close()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["queue.db"]
    SqliteStore(tmp_path / "a").close()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["queue.db"], "it is not this one's"


def test_Q13_a_row_of_any_damage_is_told_by_its_column(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.write([Put(record(1)), Put(record(2))])
    store.connection.execute("UPDATE jobs SET message = x'00' WHERE key = 1")
    [one, other] = store.load().jobs
    assert isinstance(one, Damaged) and one.key == 1 and "column message" in one.problem
    assert not isinstance(other, Damaged)
    store.close()


def test_Q13_a_change_that_no_store_could_keep_is_told_apart(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(BadChange):
        store.write([Put(record(1, due_ms=2**70))])
    with pytest.raises(StorageError):
        store.write([Put(record(1)), Put(record(1))])
    store.write([Put(record(1))])
    store.close()
