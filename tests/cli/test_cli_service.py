"""`iii-trio serve` under a service manager: readiness, sockets handed over, reloads, a log that nobody reads."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

import iii_trio
from iii_trio.cli import serve, service
from iii_trio.cli.data import with_sockets
from iii_trio.cli.exits import UsageError
from iii_trio.cli.logs import Unhurried
from iii_trio.errors import ConnectionFailed
from iii_trio.triggers.http import HttpConfig
from tests.helpers.cli_processes import SECONDS, kill, read_line, start

MANAGER = "workers:\n  - name: iii-worker-manager\n    config: { port: 0 }\n"


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[tuple[trio.Process, str]]:
    """An engine's process, killed at the end, and the address in its first line."""
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "serve", *arguments)
        ready = await read_line(process.stdout)
        yield process, ready.partition(" ready on ")[2].partition(" (")[0]
        nursery.cancel_scope.cancel()


async def read_log(process: trio.Process, words: str) -> str:
    """The first line of the log with these words."""
    with trio.fail_after(SECONDS):
        while words not in (line := await read_line(process.stderr)):
            assert line, "the process ended"
    return str(json.loads(line)["message"])


# --- reload


async def test_a_reload_takes_new_tokens_and_keeps_who_may_stay(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(MANAGER + "    iii-trio: { auth: { tokens: [one, two] } }\n")
    async with serving("--config", str(config)) as (process, address):
        async with iii_trio.open_worker(address, name="stays", headers={"Authorization": "Bearer two"}) as stays:
            config.write_text(MANAGER + "    iii-trio: { auth: { tokens: [two, three] } }\n")
            process.send_signal(signal.SIGHUP)
            assert address in await read_log(process, "read again")
            with pytest.raises(ConnectionFailed, match="401"):
                async with iii_trio.open_worker(address, headers={"Authorization": "Bearer one"}):
                    pass
            config.write_text("workers: no\n")
            process.send_signal(signal.SIGHUP)
            said = await read_log(process, "stays as it was")
            assert (
                said
                == f'the configuration stays as it was: {config}:1: `workers` is "no"; make it a list of `- name: …`'
            )
            async with iii_trio.open_worker(address, headers={"Authorization": "Bearer three"}):
                await stays.trigger("engine::workers::list", {})


@pytest.mark.parametrize("reloads", [1, 2])
async def test_a_signal_ends_an_engine_whose_reload_reads_what_blocks(tmp_path: Path, reloads: int) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(MANAGER)
    async with serving("--config", str(config)) as (process, address):
        config.unlink()
        os.mkfifo(config)
        process.send_signal(signal.SIGHUP)
        writing = await trio.to_thread.run_sync(os.open, config, os.O_WRONLY)  # returns once it is being read
        try:
            async with iii_trio.open_worker(address, name="served") as worker:
                await worker.trigger("engine::workers::list", {})
            if reloads == 2:
                process.send_signal(signal.SIGHUP)  # it waits behind the first one
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(SECONDS):
                assert await process.wait() == 0
        finally:
            os.close(writing)


async def test_a_signal_ends_an_engine_that_starts_with_a_file_that_blocks(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    os.mkfifo(config)
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "serve", "--config", str(config))
        writing = await trio.to_thread.run_sync(os.open, config, os.O_WRONLY)
        try:
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(SECONDS):
                assert await process.wait() == 128 + signal.SIGTERM
        finally:
            os.close(writing)
        nursery.cancel_scope.cancel()


async def test_an_error_of_ours_in_a_reload_is_logged_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def load() -> iii_trio.EngineConfig:
        raise KeyError("a slip")

    async with iii_trio.open_engine() as engine:
        before = engine.config
        signals = serve.Signals()
        await serve._reload(engine, load, signals)
        assert engine.config == before and signals.reload is None
    assert "the configuration could not be taken, by an error of ours" in caplog.messages


# --- systemd


async def test_systemd_is_told_of_readiness_reloads_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        told = trio.socket.from_stdlib_socket(manager)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with trio.fail_after(SECONDS):
            async with serving("--port", "0") as (process, _):
                assert await told.recv(1000) == b"READY=1"
                process.send_signal(signal.SIGHUP)
                assert (await told.recv(1000)).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert await told.recv(1000) == b"READY=1"
                process.terminate()
                assert await told.recv(1000) == b"STOPPING=1"
                assert await process.wait() == 0


def test_nobody_to_tell_is_no_failure(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    service.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody-is-there")
    service.notify("READY=1")
    assert [record.getMessage() for record in caplog.records] == [
        "systemd could not be told READY=1: Connection refused"
    ]


async def test_a_socket_that_the_manager_opened_is_used(tmp_path: Path) -> None:
    """Its descriptor is 3, and the process's own id is in the environment: set by a shell that becomes the process."""
    handed = socket.create_server(("127.0.0.1", 0))
    with handed:
        address = f"ws://127.0.0.1:{handed.getsockname()[1]}"
        command = f'exec 3<&{handed.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" -m iii_trio serve --port 1'
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    ["bash", "-c", command, sys.executable],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=[handed.fileno()],
                    check=False,
                    deliver_cancel=kill,
                )
            )
            assert f"ready on {address} " in await read_line(process.stdout)
            async with iii_trio.open_worker(address) as worker:
                with trio.fail_after(SECONDS):
                    await worker.trigger("engine::workers::list", {})
            nursery.cancel_scope.cancel()


HTTP = "workers:\n  - name: iii-worker-manager\n    config: { port: 0 }\n  - name: iii-http\n    config: { port: 1 }\n"


async def test_a_socket_that_is_named_for_http_is_the_http_modules(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(HTTP)
    handed = socket.create_server(("127.0.0.1", 0))
    with handed:
        port = handed.getsockname()[1]
        command = (
            f"exec 3<&{handed.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=iii-http; "
            f'exec "$0" -m iii_trio serve --data memory --config {config}'
        )
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    ["bash", "-c", command, sys.executable],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=[handed.fileno()],
                    check=False,
                    deliver_cancel=kill,
                )
            )
            assert f"HTTP on http://127.0.0.1:{port}" in await read_line(process.stdout)
            # A reload to other settings keeps the socket, which no bind could get again.
            for text in (HTTP, HTTP.replace("port: 1", "port: 2, default_timeout: 5000")):
                config.write_text(text)
                process.send_signal(signal.SIGHUP)
                with trio.fail_after(SECONDS):
                    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                        await stream.send_all(b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n")
                        assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 404")
            nursery.cancel_scope.cancel()


def test_a_socket_for_a_module_that_does_not_run_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="handed over for `http`, which the configuration does not name"):
        with_sockets(iii_trio.EngineConfig(), [(3, "iii-http")])
    config = iii_trio.EngineConfig(modules={"http": HttpConfig()})
    assert with_sockets(config, [(3, "http"), (4, ""), (5, "iii-http")]).modules["http"].descriptors == (3, 5)


@pytest.mark.parametrize(
    ("pid", "count", "expected"), [("own", "2", [3, 4]), ("1", "2", []), ("own", "x", []), ("", "", [])]
)
def test_handed_over_sockets_are_this_processes_own(
    monkeypatch: pytest.MonkeyPatch, pid: str, count: str, expected: list[int]
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if pid == "own" else pid)
    monkeypatch.setenv("LISTEN_FDS", count)
    assert [descriptor for descriptor, _ in service.handed_over()] == expected
    assert service.handed_over() == []
    assert "LISTEN_FDS" not in os.environ


# --- open files


@pytest.mark.parametrize(
    ("limits", "wanted", "raised", "said"),
    [
        ((1024, 4096), 1000, [(1064, 4096)], ""),
        ((1024, 4096), 100_000, [(4096, 4096)], "at most 4096 files may be open here, enough for 4032 connections"),
        ((1024, resource.RLIM_INFINITY), 10_000, [(10_064, resource.RLIM_INFINITY)], ""),
        ((200_000, 200_000), 100_000, [], ""),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 100_000, [], ""),
    ],
)
def test_the_limit_of_open_files_is_raised_or_said(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limits: tuple[int, int],
    wanted: int,
    raised: list[tuple[int, int]],
    said: str,
) -> None:
    caplog.set_level("INFO", "iii_trio")
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda which, to: set_to.append(to))
    service.allow_open_files(wanted)
    assert set_to == raised
    assert (said in caplog.text) if said else not caplog.records


# --- logs


async def test_a_log_that_nobody_reads_stops_nobody() -> None:
    async with serving("--port", "0", "--log-level", "debug") as (process, address):
        async with iii_trio.open_worker(address, name="chatty") as worker:
            with trio.fail_after(SECONDS):
                for _ in range(400):  # 64 KiB of pipe are full long before
                    await worker.trigger("engine::log::info", {"message": "x" * 1000})
                    await worker.trigger("engine::channels::list", {})
        process.terminate()
        with trio.fail_after(SECONDS):
            assert await process.wait() == 0


def test_what_a_full_pipe_does_not_take_is_counted_and_said_once_there_is_room() -> None:
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as reading, open(write, "w") as writing:
        handler = Unhurried(writing)
        logger = logging.Logger("test")
        logger.addHandler(handler)
        for number in range(200):
            logger.info("%d %s", number, "x" * 1000)
        os.set_blocking(read, False)
        before = b"".join(iter(lambda: reading.read(65536) or b"", b""))
        logger.info("after")
        after = (reading.read(65536) or b"").decode().splitlines()
        whole = [line for line in before.decode().splitlines() if len(line) > 1000]
        assert len(whole) > 50
        assert after[-2:] == [f"{200 - len(whole)} lines before this one were left out: nobody took them", "after"]
