"""`iii-trio backup`."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import iii_trio
from iii_trio import EngineConfig, Listener, QueueConfig, Queues
from iii_trio.triggers.queue import check_backup
from tests.helpers.cli_processes import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """An engine with three jobs on disk."""
    queue = QueueConfig(directory=str(tmp_path / "jobs"), synchronous="off")
    config = EngineConfig(listeners=(Listener(port=0),), modules={"queue": queue})
    async with iii_trio.open_engine(config) as engine, engine.open_worker() as worker:
        await Queues(worker).pause("default")
        for number in range(3):
            await worker.trigger("f", number, action=iii_trio.enqueue())
        (address,) = await engine.listen()
        yield Site(engine, str(address))


@pytest.mark.slow
async def test_Q32_a_backup_is_checked_private_and_overwrites_only_when_told(site: Site, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    done = await site.run("backup", str(copy), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"file": str(copy), "bytes": copy.stat().st_size, "jobs": 3}
    assert check_backup(copy) == 3
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    again = await site.run("backup", str(copy))
    assert (again.code, again.out) == (2, "")
    assert again.err == f"iii-trio: {copy} is there already; name another file, or say --overwrite\n"
    over = await site.run("backup", str(copy), "--overwrite")
    assert over.code == 0 and over.out.startswith(f"3 jobs in {copy} (") and over.out.endswith("), checked\n")
    assert sorted(os.listdir(tmp_path)) == ["copy.db", "jobs"]


@pytest.mark.slow
async def test_Q32_a_backup_never_replaces_the_jobs_of_a_running_engine(site: Site, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "jobs" / "queue.db")
    for name in ("jobs/queue.db", "link.db", "jobs/queue.db-wal", "jobs/queue.db-shm", "jobs/queue.reserve"):
        done = await site.run("backup", str(tmp_path / name), "--overwrite")
        assert (done.code, done.out) == (2, "")
        assert "belongs to the jobs of an engine" in done.err
    for name, why in ((tmp_path, f"{tmp_path} is a directory; name a file, for example {tmp_path}/jobs.db"),):
        done = await site.run("backup", str(name), "--overwrite")
        assert (done.code, done.out, done.err) == (2, "", f"iii-trio: {why}\n")
    async with site.engine.open_worker("sender") as worker:
        await worker.trigger("f", 4, action=iii_trio.enqueue())


@pytest.mark.slow
async def test_Q32_a_backup_that_cannot_be_made_leaves_no_file(tmp_path: Path) -> None:
    async with iii_trio.open_engine(EngineConfig(listeners=(Listener(port=0),))) as engine:
        (address,) = await engine.listen()
        done = await Site(engine, str(address)).run("backup", str(tmp_path / "copy.db"))
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("storage_failed: the jobs are in memory")
    assert os.listdir(tmp_path) == []
