"""`iii-trio demo` as a newcomer runs it: what it shows, and that nothing stays behind."""

from __future__ import annotations

import hashlib
import os
import signal
import uuid
from pathlib import Path

import pytest
import trio

from tests.helpers.cli_processes import SECONDS, read_line, read_rest, run, start

pytestmark = pytest.mark.slow  # each of them starts processes

ON_LINUX = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """A mark in the environment of every process that the demo starts."""
    token = str(uuid.uuid4())
    monkeypatch.setenv("III_TRIO_TEST_TOKEN", token)
    return token


def alive(token: str) -> list[int]:
    """The processes that carry the mark (this one was started before it had it)."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if token.encode() in Path("/proc", pid, "environ").read_bytes():
                found.append(int(pid))
        except OSError:  # gone meanwhile, or somebody else's
            pass
    return found


@pytest.mark.parametrize("size", [1024 * 1024, 3, 0])
async def test_the_demo_shows_a_whole_stream_and_a_cut_one(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    film = tmp_path / "film"
    film.write_bytes(content)
    ended = await run("demo", str(film))
    assert (ended.code, ended.err) == (0, "")
    assert f"the reader has the file's SHA-256: {hashlib.sha256(content).hexdigest()}" in ended.out
    whole, cut = ended.out.split("2. The same stream")
    assert "the reader was told: the clean end" in whole
    assert "the reader was told: writer_lost" in cut
    assert "does not take them for the whole" in cut
    assert "\x1b" not in ended.out  # plain text for what is not a terminal


@ON_LINUX
@pytest.mark.parametrize("after", ["Three processes", "1. A stream that arrives", "2. The same stream", "kill -9"])
async def test_an_interrupted_demo_leaves_no_process(tmp_path: Path, token: str, after: str) -> None:
    film = tmp_path / "film"
    film.write_bytes(os.urandom(1024 * 1024))
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "demo", str(film))
        while after not in (line := await read_line(process.stdout)):
            assert process.returncode is None, line
        assert len(alive(token)) >= 3 or "kill" in after  # which is nearly the end
        process.send_signal(signal.SIGINT)
        await read_rest(process.stdout)
        with trio.fail_after(SECONDS):
            # 0: it was done before the signal came; -2: it was about to exit, which a shell shows as 130, too
            assert await process.wait() in (130, 0, -signal.SIGINT)
        assert "Traceback" not in await read_rest(process.stderr)
    assert alive(token) == []


@ON_LINUX
async def test_the_processes_of_a_demo_that_was_killed_end_by_themselves(tmp_path: Path, token: str) -> None:
    film = tmp_path / "film"
    film.write_bytes(b"x")
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "demo", str(film))
        while "Three processes" not in await read_line(process.stdout):
            pass
        process.kill()
        await process.wait()
    with trio.fail_after(SECONDS):
        while alive(token):  # noqa: ASYNC110  (nothing tells of a process that is not our child)
            await trio.sleep(0.02)


@ON_LINUX
async def test_a_demo_that_was_killed_leaves_no_generated_file(
    tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "demo")
        while "1. A stream that arrives" not in await read_line(process.stdout):
            pass
        process.kill()
        await process.wait()
    with trio.fail_after(SECONDS):
        while alive(token):  # noqa: ASYNC110
            await trio.sleep(0.02)
    assert os.listdir(tmp_path) == []
