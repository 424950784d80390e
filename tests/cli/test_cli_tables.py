"""`iii-trio functions`, `workers`, `channels`, `triggers` against an engine with known contents."""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator

import pytest
import trio
from rich.console import Console

import iii_trio
from iii_trio.cli.tables import View, _shown
from iii_trio.transport.dial import SocketAddress
from iii_trio.wire import WorkerRegistered, decode
from tests.helpers.cli_processes import SECONDS, Site, read_line, start

pytestmark = pytest.mark.slow  # each of them starts processes


@pytest.fixture
async def files(site: Site) -> AsyncIterator[iii_trio.Worker]:
    """A worker named `files` with a function that is described."""
    async with site.engine.open_worker("files", description="keeps files") as worker:

        @worker.function("files::[count]", description="counts")
        async def count() -> int:
            return 3

        await worker.trigger("engine::workers::list", {})
        yield worker


def cells(out: str) -> list[list[str]]:
    """The rows of a table, without its heading."""
    lines = [line for line in out.splitlines() if line.strip() and not set(line.strip()) <= set("─ ")]
    return [re.split(r"  +", line.strip()) for line in lines[1:]]


async def test_functions_are_listed_for_people_and_programs(site: Site, files: iii_trio.Worker) -> None:
    shown = await site.run("functions")
    assert (shown.code, shown.err) == (0, "")
    assert cells(shown.out) == [["files::[count]", "default", "files", "counts"]]
    said = json.loads((await site.run("functions", "--json")).out)
    assert [row["function_id"] for row in said["functions"] if row["worker_name"] != "iii-queue"] == ["files::[count]"]
    everything = json.loads((await site.run("functions", "--json", "--all")).out)
    assert "engine::channels::list" in [row["function_id"] for row in everything["functions"]]


async def test_workers_are_listed_without_the_command_itself(site: Site, files: iii_trio.Worker) -> None:
    rows = cells((await site.run("workers", "--all")).out)
    assert [row[0] for row in rows] == ["files", "iii-engine-functions", "iii-queue"]


async def test_workers_of_the_engine_itself_are_listed_with_all_only(site: Site, files: iii_trio.Worker) -> None:
    assert [row[0] for row in cells((await site.run("workers")).out)] == ["files"]
    listed = json.loads((await site.run("workers", "--json")).out)
    assert [row["name"] for row in listed["workers"]] == ["files"]


async def test_workers_of_other_nodes_are_listed_with_their_nodes(site: Site, files: iii_trio.Worker) -> None:
    row = {"name": "shop", "id": "1", "namespace": "default", "function_count": 0, "active_invocations": 0}
    absent = dict.fromkeys(("description", "runtime", "status"))
    site.engine._shell.hub.show_workers([{**row, **absent, "node": "five"}])
    assert [row[0] for row in cells((await site.run("workers")).out)] == ["files", "shop at node five"]


async def test_workers_without_a_process_id_are_listed_with_all(site: Site, files: iii_trio.Worker) -> None:
    async with trio.open_nursery() as nursery:
        link = await nursery.start(SocketAddress(site.address).connect)  # who has not said who it is
        hello = decode(await link.receive() or b"")
        assert isinstance(hello, WorkerRegistered)
        without = await site.run("workers")
        assert hello.worker_id not in without.out and "files" in without.out
        assert hello.worker_id in (await site.run("workers", "--all")).out
        link.close()


async def test_triggers_are_listed_by_type(site: Site, files: iii_trio.Worker) -> None:
    await files.trigger(
        "engine::register_trigger",
        {"trigger_type": "engine::workers-available", "function_id": "files::[count]", "config": {"event": "all"}},
    )
    rows = cells((await site.run("triggers", "--all")).out)
    bound = [row for row in rows if row[1] == "files::[count]"]
    assert bound and bound[0][0] == "engine::workers-available"
    assert (await site.run("triggers")).code == 0


async def test_a_binding_that_waits_for_a_provider_is_listed_as_such(site: Site, files: iii_trio.Worker) -> None:
    await files.trigger("engine::register_trigger", {"trigger_type": "tide", "function_id": "files::[count]"})
    [row] = [row for row in cells((await site.run("triggers")).out) if row[0] == "tide"]
    assert row[1] == "files::[count]" and row[-1] == "waits: no worker provides this trigger type"


async def test_channels_say_who_waits_for_whom_and_why(site: Site, files: iii_trio.Worker) -> None:
    async with files.create_channel(buffer_size=1) as channel:
        assert (await site.run("channels")).out != "none\n"
        await channel.writer.send(b"x" * 2048)
        (row,) = cells((await site.run("channels")).out)
        assert "awaiting_reader" in row and "2.0 KiB of 1.0 MiB" in row
        assert row[-1] == "a reader is to come, files waits for the reader: the pipe is full"
        async with site.engine.open_worker("copy") as copy, copy.open_reader(channel.reader_ref) as reader:
            assert await reader.receive() == b"x" * 2048
            with trio.move_on_after(0.01):
                await reader.receive()
            (row,) = cells((await site.run("channels")).out)
            assert row[-1] == "copy waits for files: the pipe is empty"
    assert (await site.run("channels")).out == "none\n"


async def test_channels_that_ended_say_how_and_why_the_latest_first(site: Site, files: iii_trio.Worker) -> None:
    async with files.create_channel() as channel:
        await channel.writer.send(b"x")
        channel.writer.abort("the disk is full", code="no_space")
        await channel.writer.wait_outcome()
    async with files.create_channel() as channel:
        await channel.writer.send(b"x")
        channel.reader.cancel("enough")
        await channel.writer.wait_outcome()
    rows = cells((await site.run("channels", "--ended")).out)
    assert [row[1] for row in rows] == ["reader_cancelled", "aborted"]
    assert rows[1][2] == "no_space: the disk is full"
    said = json.loads((await site.run("channels", "--ended", "--json")).out)
    assert said["channels"][1]["reason"] == "the disk is full"


async def test_watching_goes_on_until_interrupted_and_shows_rates(site: Site, files: iii_trio.Worker) -> None:
    async with files.create_channel() as channel, trio.open_nursery() as nursery:
        process = await start(nursery, "channels", "--watch", "--every", "0.05", "--address", site.address)
        with trio.fail_after(SECONDS):
            while "0 B/s" not in (line := await read_line(process.stdout)):
                pass
            await channel.writer.send(b"x" * 1000)
            while "1000 B of" not in (line := await read_line(process.stdout)):
                assert line is not None
            process.terminate()
            assert await process.wait() == 143
        nursery.cancel_scope.cancel()


async def test_watching_in_json_is_one_line_a_look(site: Site) -> None:
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "workers", "--json", "--watch", "--every", "0.05", "--address", site.address)
        for _ in range(3):
            assert "workers" in json.loads(await read_line(process.stdout))
        nursery.cancel_scope.cancel()


async def test_a_pause_that_is_none_is_wrong_usage(site: Site) -> None:
    ended = await site.run("workers", "--watch", "--every", "0")
    assert (ended.code, ended.out) == (2, "") and "--every is 0" in ended.err


@pytest.mark.parametrize(
    ("width", "first"),
    [
        (200, "channel                                owner   rate"),
        (40, "channel     rate      why"),
    ],
)
def test_a_narrow_terminal_sees_short_ids_and_fewer_columns(width: int, first: str) -> None:
    rows = [("7a5c6da4-52b4-4243-a15e-81257dd325d1", "files", "4.6 MiB", "a waits for b")]
    view = View(None, ("channel", "owner", "rate", "why"), rows, spare=("owner",))
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(_shown(view, console))
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert said.splitlines()[0].startswith(first[:width].rstrip())
    assert ("7a5c6da4…" in said) == (width == 40) and ("files" in said) == (width == 200)
