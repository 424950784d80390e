"""Where `iii-trio serve` keeps its jobs, as real processes: they outlive it; and what is in the way is one sentence."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

import iii_trio
from iii_trio.cli.data import default_directory
from iii_trio.config import Listener
from iii_trio.testing.job_stores import record
from iii_trio.triggers.queue import Put
from iii_trio.triggers.queue.sqlite_schema import MIGRATIONS
from iii_trio.triggers.queue.sqlite_store import SqliteStore
from tests.helpers.cli_processes import SECONDS, kill, read_line, read_rest, run, start

pytestmark = pytest.mark.slow  # each of them starts processes

MANAGER = "workers:\n  - name: iii-worker-manager\n    config: { port: 0 }\n"


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[tuple[trio.Process, str, str]]:
    """An engine's process, killed at the end; the address, and the place of the jobs, in its first line."""
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "serve", *arguments)
        ready = (await read_line(process.stdout)).partition(" ready on ")[2]
        address, _, rest = ready.partition(" (jobs in ")
        yield process, address, rest.removesuffix("; Ctrl-C drains)")
        nursery.cancel_scope.cancel()


async def depth(address: str) -> int:
    """How many jobs the queue `default` has."""
    said = json.loads((await run("queues", "--json", "--address", address)).out)
    return next(int(row["depth"]) for row in said["queues"] if row["name"] == "default")


async def add_job(address: str, **payload: str) -> str:
    async with iii_trio.open_worker(address) as worker:
        receipt = await worker.trigger("nobody::home", payload, action=iii_trio.enqueue())
    assert isinstance(receipt, iii_trio.Receipt)
    return receipt.id


# --- where


def test_each_port_has_a_directory_of_its_own_and_a_free_one_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_directory(Listener()) == "/state/iii-trio/49134"
    assert default_directory(Listener(port=1)) == "/state/iii-trio/1"
    assert default_directory(Listener(port=0)) is None
    assert default_directory(Listener(unix="/run/a/engine.sock")) == "/state/iii-trio/unix-run-a-engine.sock"
    for none in ("", "state"):  # a relative one is to be ignored
        monkeypatch.setenv("XDG_STATE_HOME", none)
        monkeypatch.setenv("HOME", "/home/ada")
        assert default_directory(Listener()) == "/home/ada/.local/state/iii-trio/49134"


async def test_a_free_port_keeps_jobs_in_memory_and_says_so(state: Path) -> None:
    async with serving("--port", "0") as (_, address, place):
        assert place == "memory"
        await add_job(address)
        assert await depth(address) == 1
    assert not os.listdir(state)


async def test_memory_can_be_asked_for(tmp_path: Path, state: Path) -> None:
    async with serving("--config", str(unix_config(tmp_path)), "--data", "memory") as (_, _, place):
        assert place == "memory"
    assert not os.listdir(state)


def unix_config(tmp_path: Path) -> Path:
    config = tmp_path / "config.yaml"
    config.write_text(f"workers:\n  - name: iii-worker-manager\n    iii-trio: {{ unix: {tmp_path}/engine.sock }}\n")
    return config


async def test_Q2_jobs_are_there_again_after_a_kill_without_anything_being_said(tmp_path: Path, state: Path) -> None:
    config = str(unix_config(tmp_path))
    async with serving("--config", config) as (process, address, place):
        assert Path(place).parent == state / "iii-trio"
        await add_job(address)
        process.kill()
        await process.wait()
    async with serving("--config", config) as (_, address, again):
        assert again == place
        assert await depth(address) == 1


async def test_a_file_names_the_directory_and_the_command_line_another(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"{MANAGER}  - name: iii-queue\n    iii-trio: {{ data: {tmp_path}/file }}\n")
    async with serving("--config", str(config)) as (_, _, place):
        assert place == f"{tmp_path}/file"
    async with serving("--config", str(config), "--data", f"{tmp_path}/option") as (_, _, place):
        assert place == f"{tmp_path}/option"


async def test_there_may_be_no_queue(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"{MANAGER}  - name: iii-queue\n    iii-trio: {{ enabled: false }}\n")
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "serve", "--config", str(config))
        assert (await read_line(process.stdout)).endswith(" (no queue; Ctrl-C drains)")
        nursery.cancel_scope.cancel()


# --- what is in the way


async def refused(data: Path) -> str:
    """What an engine says that cannot keep its jobs there."""
    ended = await run("serve", "--port", "0", "--data", str(data))
    assert (ended.code, ended.out) == (73, "")
    assert ended.err.startswith("iii-trio: ") and ended.err.count("\n") == 1
    return ended.err.removeprefix("iii-trio: ").rstrip("\n")


async def test_Q11_a_directory_in_use_is_one_sentence_and_its_engine_is_not_disturbed(tmp_path: Path) -> None:
    async with serving("--port", "0", "--data", str(tmp_path)) as (_, address, _):
        await add_job(address)
        assert await refused(tmp_path) == (
            f"the jobs in {tmp_path}/queue.db are in the hands of another engine; "
            "name another directory (iii-trio: --data DIR; in a program: QueueConfig(directory=…))"
        )
        assert await depth(address) == 1


async def test_two_engines_at_one_port_hear_of_the_port(tmp_path: Path) -> None:
    """They would meet in one directory first; but the directory is not what is to be mended."""
    async with serving("--port", "0", "--data", str(tmp_path)) as (_, address, _):
        port = address.rpartition(":")[2]
        ended = await run("serve", "--port", port, "--data", str(tmp_path))
        assert (ended.code, ended.out) == (98, "")
        assert ended.err.startswith(f"iii-trio: cannot listen at 127.0.0.1:{port}: the port is in use")


@pytest.mark.parametrize("cause", ["port", "port of http", "tls"])
async def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path, state: Path, cause: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        manager, http = (port if cause == name else 0 for name in ("port", "port of http"))
        config = tmp_path / "config.yaml"
        tls = f"    iii-trio: {{ tls: {{ certificate: {tmp_path}/no.pem, key: {tmp_path}/no.pem }} }}\n"
        config.write_text(
            f"workers:\n  - name: iii-worker-manager\n    config: {{ host: 127.0.0.1, port: {manager} }}\n"
            + (tls if cause == "tls" else "")
            + f"  - name: iii-http\n    config: {{ host: 127.0.0.1, port: {http} }}\n"
        )
        for arguments in ((), ("--data", str(tmp_path / "jobs"))):
            ended = await run("serve", "--config", str(config), *arguments)
            assert (ended.code, ended.out) == (2 if cause == "tls" else 98, "")
            assert os.listdir(tmp_path) == ["config.yaml"] and not os.listdir(state)


async def test_a_place_that_is_no_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (await refused(tmp_path / "file" / "jobs")).startswith(f"jobs cannot be kept in {tmp_path}/file/jobs: ")


async def test_where_nobody_asked_for_a_directory_memory_is_offered_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    ended = await run("serve", "--config", str(unix_config(tmp_path)))
    assert (ended.code, ended.out) == (73, "")
    assert ended.err.endswith(
        "; name another directory (iii-trio: --data DIR; in a program: QueueConfig(directory=…)), "
        "or have them kept in memory (--data memory)\n"
    )


async def test_Q11_a_read_only_directory_is_one_sentence_and_keeps_its_jobs(tmp_path: Path) -> None:
    async with serving("--port", "0", "--data", str(tmp_path)) as (_, address, _):
        await add_job(address)
    with read_only(tmp_path):
        assert await refused(tmp_path) == (
            f"jobs cannot be kept in {tmp_path}: {tmp_path} may not be written; "
            "make it writable, or name another directory (iii-trio: --data DIR; in a program: QueueConfig(directory=…))"
        )
    async with serving("--port", "0", "--data", str(tmp_path)) as (_, address, _):
        assert await depth(address) == 1


class read_only:
    """A directory, and its files, that cannot be written to. Root can only be kept off by a mount."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        if os.geteuid():
            self._set(0o555, 0o444)
            return
        for command in (
            ["mount", "--bind", str(self._directory), str(self._directory)],
            ["mount", "-o", "remount,ro,bind", str(self._directory)],
        ):
            if subprocess.run(command, capture_output=True, check=False).returncode:
                pytest.skip("root, and not allowed to mount")

    def __exit__(self, *error: object) -> None:
        if os.geteuid():
            self._set(0o755, 0o644)
        else:
            subprocess.run(["umount", str(self._directory)], check=True)

    def _set(self, of_directory: int, of_files: int) -> None:
        for path in self._directory.iterdir():
            path.chmod(of_files)
        self._directory.chmod(of_directory)


async def test_Q11_jobs_of_a_newer_version_are_one_sentence_and_stay_as_they_are(tmp_path: Path) -> None:
    async with serving("--port", "0", "--data", str(tmp_path)):
        pass
    with sqlite3.connect(tmp_path / "queue.db") as file:
        file.execute("PRAGMA user_version = 999")
    file.close()
    assert await refused(tmp_path) == (
        f"the jobs in {tmp_path}/queue.db are of version 999, written by a newer iii-trio than this one, which knows "
        f"{len(MIGRATIONS)}; use the newer one, or "
        "name another directory (iii-trio: --data DIR; in a program: QueueConfig(directory=…))"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if not sys.platform.startswith("linux") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("not allowed to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_Q11_a_full_disk_refuses_jobs_in_one_sentence_and_loses_none(small_disk: Path) -> None:
    async with serving("--port", "0", "--data", str(small_disk)) as (_, address, _):
        kept = 0
        with pytest.raises(iii_trio.CallError) as raised:
            for _ in range(100):
                await add_job(address, data="x" * 10_000)
                kept += 1
        assert raised.value.code == "enqueue_error"
        assert raised.value.message.startswith(
            f"storage_failed: the jobs in {small_disk}/queue.db cannot be written to: "
        )
        assert "make room on its disk" in raised.value.message
        assert await depth(address) == kept > 0
    async with serving("--port", "0", "--data", str(small_disk)) as (_, address, _):
        assert await depth(address) == kept


async def test_Q11_a_disk_that_is_full_from_the_start_is_one_sentence(small_disk: Path) -> None:
    try:
        (small_disk / "all").write_bytes(b"x" * 1_000_000)
    except OSError:
        pass
    assert "make room on its disk" in await refused(small_disk)


# --- other settings while it runs


async def read_log(process: trio.Process, words: str) -> str:
    """The first line of the log with these words."""
    with trio.fail_after(SECONDS):
        while words not in (line := await read_line(process.stderr)):
            assert line, "the process ended"
    return str(json.loads(line)["message"])


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
async def test_Q12_a_reload_takes_new_queues_and_leaves_the_jobs_where_they_are(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    queue = MANAGER + "  - name: iii-queue\n    iii-trio:\n"
    config.write_text(f"{queue}      data: {tmp_path}/one\n")
    async with serving("--config", str(config)) as (process, address, _):
        job = await add_job(address)
        assert "there are default\n" in (await run("enqueue", "mail", "f", "--address", address)).err
        config.write_text(f"{queue}      data: {tmp_path}/two\n      queues: {{ mail: }}\n")
        process.send_signal(signal.SIGHUP)
        assert await read_log(process, "directory") == (
            f"the queue's directory stays {tmp_path}/one until the engine is started again, and is {tmp_path}/two then"
        )
        await read_log(process, "read again")
        assert (await run("enqueue", "mail", "f", "--address", address)).code == 0
        assert await depth(address) == 1
        config.write_text(f"{queue}      enabled: false\n")
        process.send_signal(signal.SIGHUP)
        assert await read_log(process, "queue stays") == "the queue stays on until the engine is started again"
        config.write_text(f"{queue}      queues: 3\n")
        process.send_signal(signal.SIGHUP)
        assert f"{config}:6: `queues` is 3" in await read_log(process, "stays as it was")
        await kill(process)
    assert job and not (tmp_path / "two").exists()


async def test_Q36_a_signal_stops_an_engine_that_loads_jobs_at_once(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "jobs", synchronous="off")) as store:
        for first in range(1, 100_001, 10_000):
            store.write([Put(record(key)) for key in range(first, first + 10_000)])
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "serve", "--port", "0", "--data", str(tmp_path / "jobs"))
        with trio.fail_after(SECONDS):
            while not (tmp_path / "jobs" / "queue.reserve").exists():  # noqa: ASYNC110 - the store is open
                await trio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(SECONDS):
            await process.wait()
        assert process.returncode == 143
        assert await read_rest(process.stdout) == "", "it was ready before it was stopped"
        assert "draining" not in await read_rest(process.stderr)
        nursery.cancel_scope.cancel()
    with closing(SqliteStore(tmp_path / "jobs")) as store:
        assert store.load().warnings == [] and len(list(store.load().jobs)) == 100_000
