"""`iii-trio trigger`, `send` and `receive` as real processes, against an engine and workers in this one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

import iii_trio
from tests.helpers.cli_processes import SECONDS, Site, read_rest, run, start

CONTENT = os.urandom(1024) * 3000  # more than a channel holds


async def test_a_call_prints_its_result_as_json(site: Site) -> None:
    async with site.engine.open_worker("maths") as worker:

        @worker.function("math::add")
        async def add(a: int, b: int) -> dict[str, int]:
            return {"sum": a + b}

        ended = await site.run("trigger", "math::add", "a=1", "--json", '{"a": 5, "b": 2}')
    assert (ended.code, ended.out, ended.err) == (0, '{"sum": 3}\n', "")


async def test_an_error_of_a_call_is_printed_as_code_and_message(site: Site) -> None:
    async with site.engine.open_worker("shop") as worker:

        @worker.function("shop::buy")
        async def buy() -> None:
            raise iii_trio.CallError("sold_out", "nothing left")

        ended = await site.run("trigger", "shop::buy")
    assert (ended.code, ended.out, ended.err) == (3, "", "sold_out: nothing left\n")
    ended = await site.run("trigger", "no::such")
    assert ended.code == 3
    assert ended.err.startswith("function_not_found: Function no::such not found in namespace default.")


async def test_a_call_that_is_not_answered_in_time_has_its_own_exit_code(site: Site) -> None:
    async with site.engine.open_worker("slow") as worker:

        @worker.function("slow::never")
        async def never() -> None:
            await trio.sleep_forever()

        ended = await site.run("trigger", "slow::never", "--timeout", "2")
    said = "iii-trio: slow::never gave no answer within 2 s; see --timeout\n"
    assert (ended.code, ended.out, ended.err) == (124, "", said)


async def test_no_engine_there_is_one_sentence_and_its_own_exit_code() -> None:
    for arguments in (["trigger", "f"], ["send", "/dev/null", "f"], ["receive", "f"]):
        ended = await run(*arguments, "--address", "ws://127.0.0.1:1")
        assert (ended.code, ended.out) == (69, "")
        assert ended.err.startswith("iii-trio: ") and "127.0.0.1:1" in ended.err
        assert len(ended.err.splitlines()) == 1


@pytest.fixture
def big(tmp_path: Path) -> Path:
    (tmp_path / "big.log").write_bytes(CONTENT)
    return tmp_path / "big.log"


@pytest.mark.parametrize("standard_input", [False, True])
async def test_a_file_is_sent_whole(site: Site, big: Path, standard_input: bool) -> None:
    async with site.engine.open_worker("files") as worker:

        @worker.function("files::hash")
        async def hash_it(source: iii_trio.ChannelReader, label: str) -> dict[str, str]:
            digest = hashlib.sha256()
            async for item in source:
                assert isinstance(item, bytes)
                digest.update(item)
            return {label: digest.hexdigest()}

        file, stdin = ("-", CONTENT) if standard_input else (str(big), b"")
        ended = await site.run("send", file, "files::hash", "label=x", "--as", "source", stdin=stdin)
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out) == {"x": hashlib.sha256(CONTENT).hexdigest()}


async def test_the_error_of_the_call_ends_the_sending(site: Site, big: Path) -> None:
    async with site.engine.open_worker("files") as worker:

        @worker.function("files::refuse")
        async def refuse(reader: iii_trio.ChannelReader) -> None:
            await reader.receive()
            raise iii_trio.CallError("not_wanted", "I have seen enough")

        ended = await site.run("send", str(big), "files::refuse")
    assert (ended.code, ended.out, ended.err) == (3, "", "not_wanted: I have seen enough\n")


async def test_a_reader_that_stops_early_is_no_success_and_the_result_is_still_printed(site: Site, big: Path) -> None:
    async with site.engine.open_worker("files") as worker:

        @worker.function("files::head")
        async def head(reader: iii_trio.ChannelReader) -> int:
            return len(await reader.receive())

        ended = await site.run("send", str(big), "files::head")
    assert ended.code == 4
    assert json.loads(ended.out) > 0
    assert ended.err.startswith("iii-trio: the stream was cut: reader_cancelled")


@pytest.mark.parametrize("content", [b"a few bytes", CONTENT[:600_000]])
async def test_a_stream_that_fits_into_its_channel_and_is_not_read_is_no_success(site: Site, content: bytes) -> None:
    """Writing such a stream succeeds at once, so that only the channel's outcome tells."""
    async with site.engine.open_worker("files") as worker:

        @worker.function("files::ignore")
        async def ignore(reader: iii_trio.ChannelReader) -> str:
            return "not read"

        ended = await site.run("send", "-", "files::ignore", stdin=content)
    assert (ended.code, ended.out) == (4, '"not read"\n')
    assert ended.err.startswith("iii-trio: the stream was cut: reader_cancelled")


async def test_a_stream_that_is_read_behind_the_answer_is_waited_for_up_to_the_timeout(site: Site) -> None:
    read = trio.Event()
    async with site.engine.open_worker("files") as worker, trio.open_nursery() as nursery:

        @worker.function("files::later")
        async def later(reader: iii_trio.ChannelReader) -> str:
            async def take() -> None:
                await read.wait()
                assert await reader.read_all() == b"some"

            nursery.start_soon(take)
            reader.detach()
            return "later"

        late = await site.run("send", "-", "files::later", "--timeout", "3", stdin=b"some")
        assert (late.code, late.err) == (
            124,
            "iii-trio: the stream was not read to its end within 3 s; see --timeout\n",
        )
        nursery.cancel_scope.cancel()
    async with site.engine.open_worker("files") as worker, trio.open_nursery() as nursery:
        worker.function("files::later")(later)
        read.set()
        ended = await site.run("send", "-", "files::later", stdin=b"some")
    assert (ended.code, ended.out, ended.err) == (0, '"later"\n', "")


async def test_an_interrupted_sender_leaves_no_complete_looking_stream(site: Site, tmp_path: Path) -> None:
    told: list[BaseException] = []
    heard = trio.Event()
    async with site.engine.open_worker("files") as worker, trio.open_nursery() as nursery:

        async def read(reader: iii_trio.ChannelReader) -> None:
            try:
                async for _ in reader:
                    process.send_signal(signal.SIGINT)
            except iii_trio.ChannelBroken as broken:
                told.append(broken)
            heard.set()

        @worker.function("files::slow")
        async def slow(reader: iii_trio.ChannelReader) -> None:
            nursery.start_soon(read, reader.detach())
            await trio.sleep_forever()

        process = await start(nursery, "send", "/dev/zero", "files::slow", "--address", site.address)
        with trio.fail_after(SECONDS):
            await heard.wait()
            assert await process.wait() == 130
    assert len(told) == 1


def _serve_content(worker: Any, *, cut: bool = False, fail: bool = False) -> None:
    @worker.function("files::download")
    async def download(writer: iii_trio.ChannelWriter) -> dict[str, int]:
        await writer.send(CONTENT[:2_000_000])
        if cut:
            writer.abort("the disk is gone")
            return {"sent": 2_000_000}
        await writer.send(CONTENT[2_000_000:])
        await writer.aclose()
        if fail:
            raise iii_trio.CallError("not_that", "that was the wrong file")
        return {"sent": len(CONTENT)}


async def test_a_file_is_received_whole(site: Site, tmp_path: Path) -> None:
    async with site.engine.open_worker("files") as worker:
        _serve_content(worker)
        ended = await site.run("receive", "files::download", "-o", str(tmp_path / "copy"))
    assert (ended.code, ended.out, ended.err) == (0, f'{{"sent": {len(CONTENT)}}}\n', "")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["copy"]


async def test_data_goes_to_standard_output_and_the_result_then_to_stderr(site: Site) -> None:
    async with site.engine.open_worker("files") as worker:

        @worker.function("files::words")
        async def words(sink: iii_trio.ChannelWriter) -> str:
            await sink.send("grüße, ")
            await sink.send(b"bytes")
            return "done"

        ended = await site.run("receive", "files::words", "--as", "sink")
    assert (ended.code, ended.out, ended.err) == (0, "grüße, bytes", '"done"\n')


async def test_a_stream_that_is_cut_leaves_no_file(site: Site, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"of last week")
    async with site.engine.open_worker("files") as worker:
        _serve_content(worker, cut=True)
        ended = await site.run("receive", "files::download", "-o", str(tmp_path / "copy"))
    assert ended.code == 4
    assert ended.out == '{"sent": 2000000}\n'
    assert re.search(r"received .+ of unknown length\n", ended.err)
    assert "the stream was cut: aborted: the disk is gone" in ended.err
    assert os.listdir(tmp_path) == ["copy"]
    assert (tmp_path / "copy").read_bytes() == b"of last week"


async def test_a_whole_stream_of_a_failed_call_leaves_no_file(site: Site, tmp_path: Path) -> None:
    async with site.engine.open_worker("files") as worker:
        _serve_content(worker, fail=True)
        ended = await site.run("receive", "files::download", "-o", str(tmp_path / "copy"))
    assert (ended.code, ended.out, ended.err) == (3, "", "not_that: that was the wrong file\n")
    assert os.listdir(tmp_path) == []


async def test_an_interrupted_receiver_leaves_no_file(site: Site, tmp_path: Path) -> None:
    async with site.engine.open_worker("files") as worker, trio.open_nursery() as nursery:

        @worker.function("files::forever")
        async def forever(writer: iii_trio.ChannelWriter) -> None:
            await writer.send(b"a beginning")
            process.terminate()
            await trio.sleep_forever()

        place = str(tmp_path / "copy")
        process = await start(nursery, "receive", "files::forever", "-o", place, "--address", site.address)
        with trio.fail_after(SECONDS):
            assert await process.wait() == 143
        assert "Traceback" not in await read_rest(process.stderr)
        nursery.cancel_scope.cancel()
    assert os.listdir(tmp_path) == []
