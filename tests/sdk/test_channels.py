"""Channels between our worker and those of each SDK, each in a process of its own, in every direction."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

import iii_trio

from .conftest import (
    EACH_KIND,
    EACH_PYTHON,
    EACH_SDK,
    HOW_AN_ABORT_SOUNDS,
    PAIRS,
    PYTHONS,
    STEP_SECONDS,
    Mesh,
)
from .content import pieces, sha256_of_first

pytestmark = pytest.mark.sdk

MIB = 1 << 20


async def stream(
    mesh: Mesh, writer: str, reader: str, writing: dict[str, Any], reading: dict[str, Any]
) -> tuple[Any, Any, str]:
    """Let one worker write and another read; what both say, and the engine's outcome."""
    answers: dict[str, Any] = {}
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

        async def ask(function_id: str, payload: dict[str, Any]) -> None:
            answers[function_id] = await mesh.call(function_id, payload)

        nursery.start_soon(ask, f"{writer}::write", {**writing, "writer": channel.writer_ref})
        nursery.start_soon(ask, f"{reader}::read", {**reading, "reader": channel.reader_ref})
        channel_id = channel.id
    return answers[f"{writer}::write"], answers[f"{reader}::read"], await mesh.outcome(channel_id)


async def test_a_stream_arrives_whole_and_unchanged(mesh: Mesh) -> None:
    """Nine streams at once: each process has three."""
    await mesh.start_pairs("writer", "reader")
    total = 5_000_003
    expected = sha256_of_first(total)

    async def check(writer: str, reader: str) -> None:
        writing = {"total": total, "chunk": 100_000}
        wrote, read, outcome = await stream(mesh, f"writer_{writer}", f"reader_{reader}", writing, {})
        assert (wrote["bytes"], read["bytes"]) == (total, total), (writer, reader)
        assert wrote["sha256"] == read["sha256"] == expected, (writer, reader)
        assert (wrote.get("error"), read["error"]) == (None, None), (writer, reader)
        assert outcome == "completed", (writer, reader)

    async with trio.open_nursery() as nursery:
        for pair in PAIRS:
            nursery.start_soon(check, *pair)
    assert mesh.engine.channels() == []


async def test_texts_arrive_as_texts_before_the_bytes_that_follow_them(mesh: Mesh) -> None:
    await mesh.start_pairs("writer", "reader")
    texts = ['{"type": "progress", "done": 0.5}', "grüße 🙂", "", "x" * 200_000]
    for writer, reader in PAIRS:
        writing = {"texts": texts, "total": 1000}
        _, read, outcome = await stream(mesh, f"writer_{writer}", f"reader_{reader}", writing, {})
        assert read["texts"] == texts, (writer, reader)
        assert read["sha256"] == sha256_of_first(1000), (writer, reader)
        assert outcome == "completed", (writer, reader)


async def test_C2_4_an_empty_stream_ends_cleanly(mesh: Mesh) -> None:
    await mesh.start_pairs("writer", "reader")
    for writer, reader in PAIRS:
        if writer == "node":
            continue  # its SDK does not connect a writer that writes nothing
        _, read, outcome = await stream(mesh, f"writer_{writer}", f"reader_{reader}", {"empty": True}, {})
        assert (read["bytes"], read["texts"], read["error"]) == (0, [], None), (writer, reader)
        assert outcome == "completed", (writer, reader)


@pytest.mark.parametrize("writer", EACH_KIND)
async def test_C3_2_a_slow_reader_holds_a_fast_writer_back_and_gets_everything(mesh: Mesh, writer: str) -> None:
    """The reader stops, until the writer cannot go on: far more is to come than the engine and the kernels hold."""
    await mesh.start(writer=writer, reader="python")
    total = 40 * MIB
    async with trio.open_nursery() as nursery:

        async def check() -> None:
            wrote, read, outcome = await stream(mesh, "writer", "reader", {"total": total}, {"pause_after": MIB})
            assert wrote["sha256"] == read["sha256"] == sha256_of_first(total)
            assert outcome == "completed"

        nursery.start_soon(check)
        with trio.fail_after(STEP_SECONDS):
            await mesh.peers["reader"].event("read", at_least=MIB)
        full = await mesh.until(
            lambda: [view for view in mesh.engine.channels() if view.waiting == "writer for reader"],
            "a writer that waits for its reader",
        )
        assert full[0].bytes_waiting <= 2 * MIB
        await mesh.call("reader::resume")
    assert mesh.engine.channels() == []


@pytest.mark.parametrize("owner", EACH_SDK)
@pytest.mark.parametrize("other", EACH_KIND)
async def test_a_channel_that_an_sdk_creates_works_both_ways(mesh: Mesh, owner: str, other: str) -> None:
    await mesh.start(owner=owner, other=other)
    total = 1_000_003
    answer = await mesh.call(
        "owner::create_and_write", {"function_id": "other::read", "payload": {"more": 1}, "total": total}
    )
    assert answer["written"]["sha256"] == answer["result"]["sha256"] == sha256_of_first(total)
    answer = await mesh.call("owner::create_and_read", {"function_id": "other::write", "payload": {"total": total}})
    assert answer["read"]["sha256"] == answer["result"]["sha256"] == sha256_of_first(total)
    await mesh.until(lambda: not mesh.engine.channels(), "the end of both channels")
    assert [ended.outcome.value for ended in mesh.engine.ended_channels()] == ["completed", "completed"]


@pytest.mark.parametrize("reader", EACH_KIND)
async def test_C3_1_a_large_item_is_cut_for_the_python_sdk_alone(mesh: Mesh, reader: str) -> None:
    """Its SDK would end the stream silently at a message above 1 MiB."""
    await mesh.start(reader=reader)
    total = 6 * MIB
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

        async def write() -> None:
            for piece in pieces(total, 3 * MIB):
                await channel.writer.send(piece)
            await channel.writer.aclose()

        nursery.start_soon(write)
        read = await mesh.call("reader::read", {"reader": channel.reader_ref})
    assert read["largest"] == (MIB if reader in PYTHONS else 3 * MIB)
    assert read["sha256"] == sha256_of_first(total)
    assert await mesh.outcome(channel.id) == "completed"


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("python", EACH_PYTHON)
async def test_C3_1_a_text_too_large_for_the_python_sdk_breaks_the_channel_with_a_reason(
    mesh: Mesh, python: str, closes: bool
) -> None:
    await mesh.start(reader=python)
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

        async def read() -> None:
            await mesh.call("reader::read", {"reader": channel.reader_ref})

        nursery.start_soon(read)
        await channel.writer.send("small")
        with trio.fail_after(STEP_SECONDS):
            await mesh.peers["reader"].event("heard")
            await channel.writer.send("x" * (MIB + 1))
            if closes:  # it may have closed before the engine comes to that text: nobody is left to be told then
                with suppress(iii_trio.ChannelBroken):
                    await channel.writer.aclose()
            outcome = await channel.wait_outcome()
            assert outcome.outcome in ("aborted", "reader_cancelled") if closes else outcome.outcome == "aborted"
            assert "1 MiB" in outcome.reason
            if not closes:
                with pytest.raises(iii_trio.ChannelBroken, match=r"aborted.*1 MiB"):
                    while True:
                        await channel.writer.send("more")


async def test_a_writer_is_told_when_its_reader_closes_early(mesh: Mesh) -> None:
    await mesh.start_pairs("writer", "reader")

    async def check(writer: str, reader: str) -> None:
        # Slowly, as Python's SDK cannot close at once when it is behind with reading.
        writing = {"total": 100 * MIB, "pause_seconds": 0.005}
        reading = {"stop_after": MIB}
        wrote, read, outcome = await stream(mesh, f"writer_{writer}", f"reader_{reader}", writing, reading)
        # The Rust SDK's reader closes by dropping its socket.
        assert outcome == ("reader_lost" if reader in ("rust", "next_rust") else "reader_cancelled"), (writer, reader)
        assert wrote.get("error") is not None, (writer, reader)
        assert wrote["bytes"] < 100 * MIB, (writer, reader)
        assert read["sha256"] == sha256_of_first(read["bytes"]), (writer, reader)

    async with trio.open_nursery() as nursery:
        for pair in PAIRS:
            nursery.start_soon(check, *pair)


@pytest.mark.parametrize("reader", EACH_KIND)
async def test_a_reader_is_told_of_an_abort_as_loud_as_it_can_hear(mesh: Mesh, reader: str) -> None:
    await mesh.start(reader=reader)
    read: dict[str, Any] = {}
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

        async def ask() -> None:
            read.update(await mesh.call("reader::read", {"reader": channel.reader_ref}))

        nursery.start_soon(ask)
        await channel.writer.send(b"some")
        with trio.fail_after(STEP_SECONDS):
            await mesh.peers["reader"].event("read")
        channel.writer.abort("the disk is full", "disk_full")
    assert await mesh.outcome(channel.id) == "aborted"
    assert read["bytes"] == 4
    if reader == "ours":
        assert read["error"] == {"code": "disk_full", "message": "aborted: the disk is full"}
    elif reader in HOW_AN_ABORT_SOUNDS:
        assert HOW_AN_ABORT_SOUNDS[reader] in read["error"].values()
    # Python's SDK has no ear for it (clause C6.1)


@pytest.mark.parametrize("reader", EACH_SDK)
async def test_C2_1_a_second_reader_is_refused_with_an_error_and_disturbs_nobody(mesh: Mesh, reader: str) -> None:
    await mesh.start(first=reader, second=reader)
    answers: list[Any] = []
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

        async def read() -> None:
            answers.append(await mesh.call("first::read", {"reader": channel.reader_ref}))

        nursery.start_soon(read)
        await channel.writer.send(b"one")
        with trio.fail_after(STEP_SECONDS):
            await mesh.peers["first"].event("read")
        refused = await mesh.call("second::read", {"reader": channel.reader_ref})
        assert "409" in refused["error"]["message"]
        await channel.writer.send(b"two")
        await channel.writer.aclose()
    assert answers[0]["bytes"] == 6
    assert await mesh.outcome(channel.id) == "completed"
