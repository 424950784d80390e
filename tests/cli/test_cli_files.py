"""A received file is there once it is whole, and not before."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import trio

from iii_trio.cli.exits import Failure, UsageError
from iii_trio.cli.files import CHUNK, Sink, Source
from iii_trio.cli.output import ReaderLeft


async def test_a_file_appears_when_it_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "big.log"
    sink = await Sink.open(str(place))
    await sink.write(b"first ")
    await sink.write(b"second")
    assert not place.exists()
    (part,) = os.listdir(tmp_path)
    assert part.startswith(".big.log.") and part.endswith(".part")
    await sink.keep()
    sink.close()
    assert place.read_bytes() == b"first second"
    assert os.listdir(tmp_path) == ["big.log"]


async def test_a_file_that_is_not_kept_leaves_nothing_behind_and_an_old_one_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "big.log"
    place.write_bytes(b"old")
    sink = await Sink.open(str(place))
    await sink.write(b"new")
    sink.close()
    sink.close()
    assert os.listdir(tmp_path) == ["big.log"]
    assert place.read_bytes() == b"old"


async def test_a_replaced_file_keeps_its_mode_and_a_link_to_it_stays_a_link(tmp_path: Path) -> None:
    place, link = tmp_path / "big.log", tmp_path / "link"
    place.write_bytes(b"old")
    place.chmod(0o640)
    link.symlink_to(place)
    sink = await Sink.open(str(link))
    await sink.write(b"new")
    await sink.keep()
    sink.close()
    assert link.is_symlink() and place.read_bytes() == b"new"
    assert stat.S_IMODE(place.stat().st_mode) == 0o640


async def test_a_new_file_gets_the_usual_mode(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    sink = await Sink.open(str(tmp_path / "new"))
    await sink.keep()
    sink.close()
    assert (tmp_path / "new").stat().st_mode == usual.stat().st_mode


async def test_a_device_is_written_as_it_is() -> None:
    sink = await Sink.open("/dev/null")
    await sink.write(b"x" * 100_000)
    await sink.keep()
    sink.close()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


async def test_a_named_pipe_is_waited_for_and_written_as_the_bytes_come(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []

    async def read() -> None:
        source = await Source.open(str(pipe))
        assert source.size is None
        while chunk := await source.read():
            got.append(chunk)
        source.close()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            sink = await Sink.open(str(pipe))
            await sink.write(b"a" * (CHUNK + 1))
            os.close(sink._descriptor)
    assert b"".join(got) == b"a" * (CHUNK + 1)


async def test_waiting_for_a_pipe_can_be_cancelled(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with trio.move_on_after(0.01) as scope:
        await Source.open(str(tmp_path / "pipe"))
    assert scope.cancelled_caught
    os.close(os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK))  # lets the abandoned thread go


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "big.log"
    place.touch(0o400)
    with pytest.raises(UsageError, match="is read-only; name another file, or change its mode"):
        await Sink.open(str(place))


async def test_a_source_knows_its_size_where_it_has_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    source = await Source.open(str(tmp_path / "file"))
    assert (source.size, await source.read(), await source.read()) == (5, b"12345", b"")
    source.close()


async def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    sink = await Sink.open("/dev/full")
    with pytest.raises(Failure, match=r"^/dev/full cannot be written: No space left on device$"):
        await sink.write(b"x")
    sink.close()
    source = await Source.open("/proc/self/mem")
    with pytest.raises(Failure, match=r"^/proc/self/mem cannot be read: Input/output error$"):
        await source.read()
    source.close()


async def test_a_pipe_that_nobody_reads_any_more_ends_in_silence() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    sink = Sink("standard output", False, writing)
    with pytest.raises(ReaderLeft):
        await sink.write(b"x")
    os.close(writing)
